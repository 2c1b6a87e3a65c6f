"""Where figures were computed: what differs between two environments, runs or configurations in a way that matters.

The fields that matter are those of `drift` in a plan: for quality the device and the major versions of torch,
transformers and peft; for cost the device, its driver and the exact torch.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

from lorafile.plan.drift import what_matters
from lorafile.results.results import Results

Of = Literal["quality", "cost"]


def differs(one: dict[str, Any], other: dict[str, Any], kind: Of) -> list[str]:
    """Return what differs between two environments, such as `["device cpu and NVIDIA L4", "torch 2 and 3"]`.

    Where an imported run was trained is not known, so nothing differs from it.
    """
    if one.get("imported") or other.get("imported"):
        return []
    mine, theirs = (what_matters(environment, kind == "cost") for environment in (one, other))
    return [f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def between(results: Results, one: str, other: str, kind: Of) -> list[str]:
    """Return what differs between the environments of two configurations' figures; of one and the same: within it.

    :param kind: `quality` looks at the runs, `cost` at the profiles
    """
    mine, theirs = (indexes(results, name, kind) for name in (one, other))
    return among(results.environments, [(a, b) for a in mine for b in theirs], kind)


def among(environments: list[dict[str, Any]], pairs: Iterable[tuple[int, int]], kind: Of) -> list[str]:
    """Return what differs in any pair of environments, each once."""
    ordered = sorted({(min(pair), max(pair)) for pair in pairs})
    return list(dict.fromkeys(text for a, b in ordered for text in differs(environments[a], environments[b], kind)))


def indexes(results: Results, configuration: str, kind: Of) -> list[int]:
    """Return the environments that a configuration's figures come from, as indexes into `results.environments`."""
    return _indexes(results, kind).get(configuration, [])


@lru_cache(maxsize=16)
def _indexes(results: Results, kind: Of) -> dict[str, list[int]]:
    from lorafile.analysis.common.scores import cells

    table = results.runs if kind == "quality" else results.profiles
    names = ("environment", "predicted_in") if kind == "quality" else ("environment",)
    rows = zip(cells(table, "configuration"), *(cells(table, name) for name in names), strict=True)
    used: dict[str, set[int]] = {}
    for name, *found in rows:
        used.setdefault(str(name), set()).update(int(at) for at in found if at is not None)
    return {name: sorted(found) for name, found in used.items()}


def places(results: Results, kind: Of) -> dict[str, str]:
    """Return configuration -> where its figures were computed, in the words that tell environments apart.

    More than one has a †. Nothing at all where no two environments of the study differ in what matters.
    """
    from lorafile.analysis.common.scores import names

    used = {name: indexes(results, name, kind) for name in names(results)}
    known = {at: what_matters(results.environments[at], kind == "cost") for found in used.values() for at in found}
    known = {at: fields for at, fields in known.items() if not results.environments[at].get("imported")}
    fields = {name for one in known.values() for name in one if len({other[name] for other in known.values()}) > 1}
    if not fields:
        return {}
    words = {at: ", ".join(_word(name, one[name]) for name in one if name in fields) for at, one in known.items()}
    told = {name: list(dict.fromkeys(words[at] for at in found if at in words)) for name, found in used.items()}
    return {name: " and ".join(texts) + (" †" if len(texts) > 1 else "") for name, texts in told.items() if texts}


def _word(field: str, value: str | None) -> str:
    return str(value) if field == "device" else f"{field} {value}"
