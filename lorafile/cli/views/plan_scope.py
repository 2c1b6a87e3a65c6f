"""What a plan says of the part of a study that it is of, and of damage in the state."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorafile.plan.plan import Plan

_MOST = 5  # damaged files that are named one by one
_NAMES = 4  # configurations of one line
KINDS = ("prepare", "train", "predict", "score", "profile", "inspect", "truncate", "merge")


def partial_line(plan: "Plan") -> str:
    """Say that a plan is of a part of its study, and what that leaves out."""
    nodes = f"{plan.left_out} node{'' if plan.left_out == 1 else 's'}"
    left = f"{nodes} of work left out" if plan.left_out else "nothing that would run is left out"
    return f"Partial, by {plan.options.words}: {left}."


def damage_lines(plan: "Plan") -> list[str]:
    """Name what is missing or damaged of finished results, and what mends it."""
    lines = [f"{one.what.capitalize()} in the state: {one.file} of {one.address}" for one in plan.damaged[:_MOST]]
    if len(plan.damaged) > _MOST:
        lines.append(f"… and {len(plan.damaged) - _MOST} more files of finished results")
    if lines:
        first = plan.damaged[0].address
        lines.append(
            "They are made again when a node that is to run reads them; at once with: "
            f"lora apply --replace '{first}'. Every digest is looked at by: lora state verify"
        )
    return lines


def counted(kinds: Mapping[str, int]) -> str:
    """Return `3 train, 6 predict`."""
    return ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds.get(kind))


def listed(names: Sequence[str]) -> str:
    """Return names in a line, the first of many."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES + 1 else ""
    return ", ".join(names[: _NAMES if more else None]) + more


def marked(text: str) -> str:
    """Return text that Markdown shows as it is, in a table's cell, too."""
    from lorafile.report.markdown import plain

    return plain(text)
