"""How two nodes differ in their settings, and two environments in what matters."""

import math
from typing import Any

from lorafile.graph.graph import GraphNode
from lorafile.state import Node

# Two results that differ in these meet in one comparison only with a mark: see docs/architecture.md.
_COST_FIELDS = ("device", "driver", "torch")
_QUALITY_FIELDS = ("device",)
_QUALITY_MAJOR = ("torch", "transformers", "peft")


def drift(kind: str, then: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what differs between two environments in a way that matters for a kind, or nothing.

    A machine without torch computes nothing, so nothing drifts on it. Where an imported run was trained is not known.
    """
    if now["torch"] is None or then.get("imported") or kind in ("prepare", "score"):
        return ""
    before, after = (what_matters(environment, kind == "profile") for environment in (then, now))
    return ", ".join(f"{name} {before[name]} is now {after[name]}" for name in before if before[name] != after[name])


def what_matters(environment: dict[str, Any], cost: bool) -> dict[str, str | None]:
    """Return what a figure depends on: a cost on the exact torch, quality on the major version of each library."""
    found = {name: environment.get(name) for name in (_COST_FIELDS if cost else _QUALITY_FIELDS)}
    return found if cost else found | {name: _major(environment.get(name)) for name in _QUALITY_MAJOR}


def flat(node: GraphNode | Node) -> dict[str, Any]:
    """Return a node's settings as `section.setting` -> value, its inputs among them."""
    return {f"input.{role}": key for role, key in node.inputs.items()} | flat_sections(node.settings)


def flat_sections(sections: dict[str, Any]) -> dict[str, Any]:
    """Return sections of settings as `section.setting` -> value."""
    found: dict[str, Any] = {}
    for section, value in sections.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{section}.{name}".rstrip("."): item for name, item in rows}
    return found


def describe(name: str, before: Any, after: Any, method: str = "lora") -> str:
    """Return `lora.r 8 → 16`; digests and keys are only named.

    :param method: the method whose settings an adapter's are
    """
    label = "method" if name == "adapter.method" else name.replace("adapter.", f"{method}.")
    label = label.replace("training.", "train.")
    if any(isinstance(value, str) and len(value) == 64 for value in (before, after)):
        return f"other {label}"
    return f"{label} {_short(before)} → {_short(after)}"


def apart(before: Any, after: Any) -> float:
    """Return how far apart two numbers are, as a ratio (8 and 16 as far as 16 and 32); 1 for what is no number."""
    if isinstance(before, (int, float)) and isinstance(after, (int, float)) and before > 0 and after > 0:
        return abs(math.log(after / before))
    return 1.0


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return "unset" if value is None else str(value)


def _major(text: str | None) -> str | None:
    return text.split(".")[0] if text else None
