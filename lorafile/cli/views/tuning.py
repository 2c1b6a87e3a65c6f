"""What the command line says of settings that are tuned: what waits for a choice, and what was chosen."""

from typing import TYPE_CHECKING, Any

from lorafile.cli.views.plan_scope import counted

if TYPE_CHECKING:
    from lorafile.plan.plan import Plan


def open_lines(plan: "Plan") -> list[str]:
    """Return a line for each configuration of which a part is known only after a choice."""
    found = []
    for one in plan.tuning:
        if not one.chosen:
            what = f"{counted(one.later)} known after the choice" if one.later else "no more to run"
            found.append(f"{one.configuration}  ({what})  {one.why_open}")
    return found


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
