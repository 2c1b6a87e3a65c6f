"""What is said of settings that are tuned: what waits for a choice, what was chosen, what is at an edge."""

from typing import TYPE_CHECKING, Any

from lorafile.tuning import Edge, Standing, shown

if TYPE_CHECKING:
    from lorafile.plan import Plan

_ORDER = ("train", "predict", "score", "inspect", "truncate", "merge", "profile")


def counted(kinds: dict[str, int]) -> str:
    """Return `2 predict, 1 profile`."""
    return ", ".join(f"{kinds[kind]} {kind}" for kind in _ORDER if kinds.get(kind))


def open_lines(plan: "Plan") -> list[str]:
    """Return a line for each configuration of which a part is known only after a choice."""
    found = []
    for one in plan.tuning:
        if not one.chosen:
            what = f"{counted(one.later)} known after the choice" if one.later else "all of it is run as candidates"
            found.append(f"{one.configuration}  ({what})  {one.why_open}")
    return found


def edge_lines(tuning: "list[Standing] | tuple[Standing, ...]") -> list[str]:
    """Return a line for each tuned setting whose best value is not bracketed, with the next values for all."""
    lines = []
    at: dict[tuple[Any, ...], list[tuple[Standing, Edge]]] = {}
    for one in tuning:
        for edge in one.edges:
            at.setdefault((edge.where, edge.highest, edge.value), []).append((one, edge))
    for (where, *_), found in at.items():
        edge = found[0][1]
        names = ", ".join(one.configuration for one, _ in found)
        sharing = sum(edge.setting in one.tried and where in one.places for one in tuning)
        line = f"Not bracketed: {edge.setting.rpartition('.')[2]} of {names} is {edge.words}"
        lines.append(f"{line}; {_remedy(edge, sharing)}")
    return lines


def _remedy(edge: Edge, sharing: int) -> str:
    if edge.next is None:
        return "no valid value follows."
    everyone = f" for all {sharing} configurations that share its candidates" if sharing > 1 else ""
    if edge.extended:
        return f"the plan added {edge.extended} values there, and adds no more; the next would be {shown(edge.next)}."
    return f"next would be {shown(edge.next)}{everyone}: add it to tune, or set extend = true."


def stage_lines(plan: "Plan") -> list[str]:
    """Return what an apply says between its stages."""
    lines = [f"Chosen: {one.choice}." for one in plan.tuning if one.chosen]
    reasons = dict.fromkeys(change.reason for change in plan.work if "was added, since" in change.reason)
    lines += [f"Not chosen yet: {reason}." for reason in reasons]
    return [*lines, f"{len(plan.work)} more nodes follow."]


def tuning_json(plan: "Plan") -> list[dict[str, Any]]:
    """Return how the choice of each tuned configuration stands, as documented JSON."""
    return [
        {
            "configuration": one.configuration,
            "tried": {setting: list(values) for setting, values in one.tried.items()},
            "candidates": one.candidates,
            "chosen": one.values if one.chosen else None,
            "reason": one.why_open or one.choice,
            "not_bracketed": [
                {"setting": edge.setting, "value": edge.value, "end": "highest" if edge.highest else "lowest"}
                | {"next": edge.next}
                for edge in one.edges
            ],
            "after_choice": one.later,
        }
        for one in plan.tuning
    ]
