"""What a plan says of the part of a study that it is of, and of damage in the state."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorafile.plan import Plan

_MOST = 5  # damaged files that are named one by one


def partial_line(plan: "Plan") -> str:
    """Say that a plan is of a part of its study, and what that leaves out."""
    nodes = f"{plan.left_out} node{'' if plan.left_out == 1 else 's'}"
    left = f"{nodes} of work left out" if plan.left_out else "nothing that would run is left out"
    return f"Partial, by {plan.selection.words}: {left}."


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
