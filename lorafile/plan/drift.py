"""How two nodes differ in their settings (and which finished one is most like a new one), and two environments."""

import math
from dataclasses import dataclass, field
from operator import ne
from typing import Any

from lorafile.graph.graph import GraphNode
from lorafile.specs.tables.quantizations import quantization_name
from lorafile.state import Node, State

# Two results that differ in these meet in one comparison only with a mark: see docs/architecture.md.
_COST_FIELDS = ("device", "driver", "torch")
_QUALITY_FIELDS = ("device",)
_QUALITY_MAJOR = ("torch", "transformers", "peft")
_SHOWN = 3  # settings that are named
_LISTED = 4  # values of a list that are shown
_DIGEST = 64  # characters
_OTHERS = {  # digests and keys, by setting or section, in the words of a reader
    "input.train": "training data",
    "input.data": "data",
    "input.validation": "validation data",
    "input.start": "adapter to start from",
    "data.digest": "data",
    "metric_file": "metric file",
    "model.tokenizer": "tokenizer",
    "tokenizer": "tokenizer",
    "model": "model",
}
# What follows from which evaluations a run has.
_OF_VALIDATION = ("input.validation", "validation.metrics", "validation.tasks")


def drift(kind: str, then: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what differs between two environments in a way that matters for a kind, or nothing.

    A machine without torch computes nothing, so nothing drifts on it. Where an imported run was trained is not known,
    nor which driver and libraries a cluster has.
    """
    remote = bool(now.get("remote"))
    if (now["torch"] is None and not remote) or then.get("imported") or kind in ("prepare", "score"):
        return ""
    before, after = (what_matters(environment, kind == "profile") for environment in (then, now))
    if then.get("trainer"):  # its libraries are those of an environment of its own
        before = {name: before[name] for name in _QUALITY_FIELDS}
    differing = [name for name in before if before[name] != after[name] and not (remote and after[name] is None)]
    return ", ".join(f"{name} {before[name]} is now {after[name]}" for name in differing)


def what_matters(environment: dict[str, Any], cost: bool) -> dict[str, str | None]:
    """Return what a figure depends on: a cost on the exact torch, quality on the major version of each library."""
    values = {name: environment.get(name) for name in (_COST_FIELDS if cost else _QUALITY_FIELDS)}
    return values if cost else values | {name: _major(environment.get(name)) for name in _QUALITY_MAJOR}


def flat(node: GraphNode | Node) -> dict[str, Any]:
    """Return a node's settings as `section.setting` -> value, its inputs among them."""
    return {f"input.{role}": key for role, key in node.inputs.items()} | flat_sections(node.settings)


def flat_sections(sections: dict[str, Any]) -> dict[str, Any]:
    """Return sections of settings as `section.setting` -> value."""
    settings: dict[str, Any] = {}
    for section, value in sections.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        settings |= {f"{section}.{name}".rstrip("."): item for name, item in rows}
    return settings


def describe_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return `r 8 → 16` for each setting that differs, as a spec names it; what follows from another is left out.

    :param before, after: settings as `flat_sections` has them
    """
    differing = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    parts: dict[str, None] = {}
    if ("metric_file" in before) != ("metric_file" in after):
        return ["scored by a new metric file" if "metric_file" in after else "scored by other metrics"]
    if "adapter.method" in differing:  # its other settings follow
        parts[_change("method", before.get("adapter.method"), after.get("adapter.method"))] = None
        differing = [name for name in differing if not name.startswith("adapter.")]
    if any(name.startswith("validation.") and name not in _OF_VALIDATION for name in differing):
        differing = [name for name in differing if name not in _OF_VALIDATION]
    if _same_scale(before, after):
        differing = [name for name in differing if name != "adapter.lora_alpha"]
    parts |= dict.fromkeys(_program_differences(before, after))
    for name in differing:
        section, _, setting = name.partition(".")
        if section == "trainer":
            continue
        if section == "metrics":
            parts[_metric_change(setting, before.get(name), after.get(name))] = None
        elif section == "quantization":
            parts[_change("quantization", _quantization(before), _quantization(after))] = None
        elif any(isinstance(values.get(name), str) and len(values[name]) == _DIGEST for values in (before, after)):
            parts[f"other {_OTHERS.get(name) or _OTHERS.get(section, name)}"] = None
        else:
            label = setting if section in ("adapter", "training", "validation") else name
            parts[_change(label, before.get(name), after.get(name))] = None
    return list(parts)


def _program_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return how two programs that train differ: their files by name, their libraries by version."""
    if ("trainer.command" in before) != ("trainer.command" in after):
        return [_change("trainer", *(_program(settings) for settings in (before, after)))]
    parts = []
    for name in sorted(name for name in {**before, **after} if name.startswith("trainer.")):
        one, other, setting = before.get(name), after.get(name), name.partition(".")[2]
        if not (isinstance(one, dict) and isinstance(other, dict)):
            parts += [_change(name, one, other)] if one != other else []
            continue
        for key in sorted(key for key in {**one, **other} if one.get(key) != other.get(key)):
            if setting in ("files", "data"):
                parts.append(f"{key} {'added' if key not in one else 'removed' if key not in other else 'changed'}")
            else:
                versions = [str(each.get(key, "unset")).removeprefix(f"{key}==") for each in (one, other)]
                parts.append(f"{key} {' → '.join(versions)}")
    return parts


def _program(settings: dict[str, Any]) -> str:
    return " ".join(settings.get("trainer.command", ["builtin"]))


def _same_scale(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Return whether alpha only follows the rank, as in `lora_alpha = "2r"`."""
    names = ("adapter.lora_alpha", "adapter.r")
    (alpha, rank), (other_alpha, other_rank) = (map(values.get, names) for values in (before, after))
    if not all(isinstance(value, (int, float)) for value in (alpha, rank, other_alpha, other_rank)):
        return False
    return bool(rank != other_rank and alpha * other_rank == other_alpha * rank)  # type: ignore[operator]


def _quantization(settings: dict[str, Any]) -> str:
    section = {name.partition(".")[2]: value for name, value in settings.items() if name.startswith("quantization.")}
    return quantization_name(section or None)


def _metric_change(name: str, before: Any, after: Any) -> str:
    """Return how a metric differs, whose value is the protocol version of its code."""
    if before is None or after is None:
        return f"metric {name} {'added' if before is None else 'removed'}"
    return f"metric {name} is computed differently"


def _change(label: str, before: Any, after: Any) -> str:
    return f"{label} {_short(before)} → {_short(after)}"


def log_ratio_distance(before: Any, after: Any) -> float:
    """Return how far apart two numbers are, as a ratio (8 and 16 as far as 16 and 32); 1 for what is no number."""
    if isinstance(before, (int, float)) and isinstance(after, (int, float)) and before > 0 and after > 0:
        return abs(math.log(after / before))
    return 1.0


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) if len(value) <= _LISTED else f"{len(value)} of them"
    if isinstance(value, dict) and value.keys() == {"function", "digest"}:  # a user's own
        return f"{value['function']} ({value['digest'][:12]}…)"
    if isinstance(value, dict) and value:
        return f"{{ {', '.join(f'{name} = {_short(each)}' for name, each in value.items())} }}"
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _major(text: str | None) -> str | None:
    return text.split(".")[0] if text else None


@dataclass
class Nearest:
    """The finished nodes of one kind.

    :ivar flats: the settings of each, as `section.setting` -> value
    :ivar rows: of each node the values of the `varying` settings, in their order: the others are alike in all of them
    """

    addresses: list[str]
    flats: list[dict[str, Any]]
    keys: dict[str, None]
    varying: list[str] = field(init=False)
    rows: list[tuple[Any, ...]] = field(init=False)

    @classmethod
    def of(cls, state: State, kind: str) -> "Nearest":
        """Return what state has finished of a kind, by address: the order in which workers finish is chance."""
        finished = sorted(state.finished(kind), key=lambda row: row[1])
        nodes = [node for node, _ in finished]
        keys = dict.fromkeys(node.key for node in nodes)
        return cls([address for _, address in finished], [flat(node) for node in nodes], keys)

    def __post_init__(self) -> None:
        first = self.flats[0] if self.flats else {}
        names = dict.fromkeys(name for settings in self.flats for name in settings)
        self.varying = [name for name in names if any(settings.get(name) != first.get(name) for settings in self.flats)]
        self.rows = [tuple(map(settings.get, self.varying)) for settings in self.flats]

    def best(self, wanted: dict[str, Any]) -> int | None:
        """Return the number of the node in which the fewest settings differ, of several whose numbers are nearest."""
        if not self.rows:
            return None
        target = tuple(map(wanted.get, self.varying))
        counts = [sum(map(ne, row, target)) for row in self.rows]
        least = min(counts)
        alike = [number for number, count in enumerate(counts) if count == least]
        return min(alike, key=lambda number: self._distance(self.rows[number], target))

    def reason(self, wanted: dict[str, Any]) -> str:
        """Name the nearest node, and what differs from it."""
        best = self.best(wanted)
        differences = [] if best is None else describe_differences(self.flats[best], wanted)
        if best is None or not differences:
            return "new"
        if len(differences) == 1 and self.flats[best].get("seed") != wanted.get("seed"):
            return "new seed"
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        run = self.addresses[best].rpartition(":")[0] or self.addresses[best]
        nearest = run if self.flats[best].get("seed") != wanted.get("seed") else run.partition("/seed=")[0]
        return f"new: {', '.join(differences[:_SHOWN])}{more}, compared with {nearest}"

    def _distance(self, row: tuple[Any, ...], target: tuple[Any, ...]) -> float:
        pairs = [(value, other) for value, other in zip(row, target, strict=True) if value != other]
        return round(sum(log_ratio_distance(*pair) for pair in pairs), 9)  # 1 and 16 are equally far from 4
