"""What the command line says of settings that are tuned: what waits for a choice, and what was chosen."""

from typing import TYPE_CHECKING

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
