"""A plan as Markdown, for a comment on a pull request: what would run, why, for how long; every node folded away."""

from collections import Counter
from collections.abc import Iterable

from lorafile.cli.views.console import SYMBOLS
from lorafile.cli.views.plan import counted, damage_lines, marked, open_lines, partial_line
from lorafile.cli.views.requirements import bill_line, too_large
from lorafile.plan.plan import Action, Change, Plan
from lorafile.units import duration, size

_GROUPS, _NODES = 25, 200  # rows that are shown; a comment holds no more than 65,536 characters


def plan_markdown(plan: Plan) -> str:
    """Return a plan as GitHub's Markdown."""
    summary = plan.summary()
    told = [f"{summary[each.value]} to {each.value}" for each in (Action.RUN, Action.RETRY) if summary[each.value]]
    told += [f"{summary[each.value]} {word}" for each, word in _REST.items() if summary[each.value]]
    text = [f"### Plan of {marked(plan.study)}", "", f"**{', '.join(told) or 'Nothing is declared'}.**"]
    text[-1] += f" {marked(bill_line(plan))}" if plan.work else " Nothing to do."
    notes = [*plan.warnings, *too_large(plan), *damage_lines(plan), *open_lines(plan)]
    notes = [partial_line(plan), *notes] if plan.options.partial else notes
    text += ["", *(f"- {marked(line)}" for line in notes)] if notes else []
    if plan.work:
        groups = _groups(plan)
        text += ["", "| | configuration | work | why | time | peak memory | fits |", "|---|---|---|---|---:|---:|---|"]
        text += [_group(name, changes) for name, changes in groups[:_GROUPS]]
        text += [f"| | … and {len(groups) - _GROUPS} more | | | | | |"] * (len(groups) > _GROUPS)
    text += _folded(plan)
    return "\n".join(text).rstrip() + "\n"


_REST = {Action.REUSE: "finished", Action.DRIFT: "finished elsewhere", Action.BLOCKED: "blocked"}
_REST |= {Action.UNDECLARED: "no longer declared"}


def _groups(plan: Plan) -> list[tuple[str, list[Change]]]:
    """Return the work of each configuration, that of the data first."""
    owners = plan.graph.spec.owners
    found: dict[str, list[Change]] = {}
    for change in plan.work:
        name = "data" if change.kind == "prepare" else owners.get(change.configuration, change.configuration)
        found.setdefault(name, []).append(change)
    return list(found.items())


def _group(name: str, changes: list[Change]) -> str:
    lead = next((change for change in changes if change.kind == "train"), changes[0])
    forecasts = [change.forecast or {} for change in changes]
    peak = max((one.get("peak_memory_bytes") or 0 for one in forecasts), default=0)
    fits = [one["fits"] for one in forecasts if one.get("fits") is not None]
    cells = [
        f"`{SYMBOLS[lead.action]}`",
        marked(name),
        counted(Counter(change.kind for change in changes)),
        marked(lead.reason),
        duration(sum(one.get("seconds", 0.0) for one in forecasts)),
        size(peak) if peak else "",
        "" if not fits else "yes" if all(fits) else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def _folded(plan: Plan) -> Iterable[str]:
    """Return every node that is not simply finished, folded away."""
    rows = [change for change in plan.changes if change.action is not Action.REUSE]
    if not rows:
        return []
    lines = [f"| `{SYMBOLS[one.action]}` | {marked(one.address)} | {marked(one.reason)} |" for one in rows[:_NODES]]
    lines += [f"| | … and {len(rows) - _NODES} more | |"] * (len(rows) > _NODES)
    head = ["", f"<details><summary>Every node ({len(rows)})</summary>", "", "| | node | why |", "|---|---|---|"]
    return [*head, *lines, "", "</details>"]
