"""The texts of `lora plan`: what would be done, why and for how long, on a terminal and as Markdown."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import COLOURS, MOST, SYMBOLS, show_warnings
from lorafile.cli.views.requirements import cost_line, in_spec_order, memory_limit, memory_lines, show_requirements
from lorafile.plan.plan import Action, Change, Plan
from lorafile.plan.training_summary import dropped_lines, run_steps, split_rows, training_lines
from lorafile.plan.tuning_status import edge_lines
from lorafile.units import and_more, duration, memory_size, plural

if TYPE_CHECKING:
    from lorafile.analysis.seed_planning import Resolution

KINDS = ("prepare", "train", "predict", "score", "profile", "inspect", "truncate", "merge")
_MOST_DAMAGED = 5  # damaged files that are named one by one
_NAMES = 4  # configurations of one line
_GROUPS, _NODES = 25, 200  # rows of Markdown that are shown; a comment holds no more than 65,536 characters
_VERIFY = "To check every digest, run: lora state verify"
_NUMBER = re.compile(r"\d+(\.\d+)?")
_REST = {
    Action.REUSE: "finished",
    Action.DRIFT: "finished elsewhere",
    Action.BLOCKED: "blocked",
    Action.UNDECLARED: "no longer declared",
}


def show_plan(
    plan: Plan,
    out: Console,
    full: bool = False,
    device: str = "",
    stage: "Resolution | None" = None,
    pack: int = 0,
    conclude: Sequence[str] = (),
) -> None:
    """Show what would be done, why, for how long, and whether it fits; before it, the stage that it includes.

    :param pack: how many adapters are trained together at most; 0 where that is measured
    :param conclude: what the study will be able to conclude
    """
    show_warnings(plan.warnings, out)
    if stage is not None:
        from lorafile.cli.views.seed_stage import show_resolution

        show_resolution(stage, out)
    configurations = plural(len(plan.graph.spec.configurations), "configuration")
    out.print(f"Study [bold]{escape(plan.study)}[/]: {configurations}, {seeds(plan)}")
    _show_work(plan, out, full)
    for line in open_lines(plan):
        out.print(f"  [cyan]?[/] {escape(line)}")
    for line in plan.programs:
        out.print(f"  [cyan]$[/] {escape(line)}")
    if plan.work:
        _show_training(plan, out)
        show_requirements(plan, out, full)
        if memory_limit(plan):
            out.print(f"[dim]{escape(memory_limit(plan))}[/]")
    if not full:
        _show_rest(plan, out)
    for line in damage_lines(plan):
        out.print(f"[red]{escape(line)}[/]")
    for line in edge_lines(plan.tuning):
        out.print(f"[yellow]{escape(line)}[/]")
    _show_sums(plan, out, device, pack)
    for number, line in enumerate(conclude):
        out.print(f"[bold]{escape(line)}[/]" if not number else f"[dim]{escape(line)}[/]")


def _show_training(plan: Plan, out: Console) -> None:
    """Show the rows and steps of what would be trained."""
    rows = split_rows(plan)
    for line in dropped_lines(rows):
        out.print(f"[yellow]{escape(line)}[/]")
    for line in training_lines(rows, run_steps(plan)):
        out.print(escape(line))


def _show_sums(plan: Plan, out: Console, device: str, pack: int) -> None:
    """Show how much there is of each action, what does not fit, and what all of it would cost."""
    counts = [
        f"{number:,} to {name}" if name in ("run", "retry", "reuse") else f"{number:,} {name}"
        for name, number in plan.summary().items()
        if number
    ]
    out.print(f"[bold]Plan:[/] {', '.join(counts) or 'nothing'}.")
    if reused := sum(change.key in plan.if_equal for change in plan.work):
        out.print(f"{reused:,} of them are reused if their prepared data are identical (known after prepare).")
    if plan.options.partial:
        out.print(f"[yellow]{escape(partial_line(plan))}[/]")
    if plan.work:
        for line in memory_lines(plan):
            out.print(f"[yellow]{escape(line)}[/]")
        out.print(cost_line(plan, device) + _packing(plan, pack))
    else:
        whose = "is selected" if plan.options.partial else "the study declares"
        out.print(f"Nothing to do: everything that {whose} is finished.")


def _packing(plan: Plan, pack: int) -> str:
    """Say whether adapters will be trained together."""
    from lorafile.apply.work_groups import can_pack

    if pack == 1 or not can_pack(plan):
        return ""
    how = f"up to {pack} at a time" if pack else "if measurements show that to be faster"
    return f" Adapters on one base are trained together, {how}."


def seeds(plan: Plan) -> str:
    """Return `3 seeds (42, 1337, 2024), stage 1 with 2 (2025, 2026)`."""
    tables = plan.graph.spec.tables
    text = f"{plural(len(tables.study.seeds), 'seed')} ({', '.join(map(str, tables.study.seeds))})"
    text += f", the first of them {tables.study.repeats} times" if tables.study.repeats > 1 else ""
    for number, stage in enumerate(tables.stage, 1):
        text += f", stage {number} with {len(stage.seeds)} ({', '.join(map(str, stage.seeds))})"
    return text


def _show_work(plan: Plan, out: Console, full: bool) -> None:
    """Show the nodes that would run: one line for each configuration and reason, or each node in full."""
    if full:
        _print_each(in_spec_order(plan, plan.changes), out)
        return
    by_name: dict[str, list[Change]] = {}
    owners = plan.graph.spec.owners
    for change in in_spec_order(plan, plan.work):
        name = owners.get(change.configuration, change.configuration)
        by_name.setdefault(name if change.kind != "prepare" else change.address, []).append(change)
    if len(by_name) > MOST + 1:
        _print_groups(list(work_lines(plan, by_name)), out)
        return
    reasons = {_why(_lead(changes)) for changes in by_name.values()}
    if len(by_name) > 1 and len(reasons) == 1:
        out.print(f"In every row: [dim]{escape(next(iter(reasons)))}[/]")
    for name, changes in by_name.items():
        work, lead = counted(changes), _lead(changes)
        tried = len({change.configuration for change in changes if change.configuration in owners})
        work = f"{plural(tried, 'candidate')}: {work}" if tried else work
        why = "" if len(by_name) > 1 and len(reasons) == 1 else f"  [dim]{escape(_why(lead))}[/]"
        out.print(f"  {_mark(lead.action)} {escape(name)}  ({work}){why}")


def _lead(changes: list[Change]) -> Change:
    """Return the change that stands for all of a configuration: its first training, if there is one."""
    return next((change for change in changes if change.kind == "train"), changes[0])


def _why(lead: Change) -> str:
    """Return the reason for a configuration's work: what only follows new work is new."""
    return "new" if lead.reason.startswith("follows ") else lead.reason


def _mark(action: Action) -> str:
    return f"[{COLOURS.get(action, 'default')}]{SYMBOLS[action]}[/]"


def _show_rest(plan: Plan, out: Console) -> None:
    """Show what drifted, is blocked, or is declared no more."""
    for action in (Action.DRIFT, Action.BLOCKED, Action.UNDECLARED):
        rows = in_spec_order(plan, (change for change in plan.changes if change.action is action))
        if len(rows) > MOST:
            _print_groups(list(node_lines(plan, rows)), out)
        else:
            for change in rows:
                out.print(_line(change))


def _print_groups(lines: list[tuple[Action, str, str]], out: Console) -> None:
    """Show what many nodes have in common, a line for each group."""
    for action, what, reason in lines[:MOST]:
        out.print(f"  {_mark(action)} {escape(what)}  [dim]{escape(reason)}[/]")
    more = and_more(len(lines), MOST, "groups of them; ")
    out.print(f"  [dim]{more}--full shows every node[/]")


def _print_each(changes: Sequence[Change], out: Console) -> None:
    """Show every node; off a terminal as one text, because tens of thousands of lines take seconds to colour."""
    if out.is_terminal:
        for change in changes:
            out.print(_line(change))
    else:
        out.out("\n".join(f"  {SYMBOLS[c.action]} {c.address}  {c.action.value}: {c.reason}" for c in changes))


def _line(change: Change) -> str:
    return f"  {_mark(change.action)} {escape(change.address)}  [dim]{change.action.value}: {escape(change.reason)}[/]"


def partial_line(plan: Plan) -> str:
    """Say that a plan is of a part of its study, and what that leaves out."""
    left = f"{plural(plan.left_out, 'node')} of work excluded" if plan.left_out else "no work is excluded"
    return f"Partial plan ({plan.options.words}): {left}."


def damage_lines(plan: Plan) -> list[str]:
    """Name what is missing or damaged of finished results, and what mends it."""
    if not plan.damaged:
        return []
    shown = plan.damaged[:_MOST_DAMAGED]
    lines = [f"{damage.what.capitalize()} in the state: {damage.file} of {damage.address}" for damage in shown]
    if more := and_more(len(plan.damaged), _MOST_DAMAGED, "files of finished results"):
        lines.append(more)
    remedy = f"now with: lora apply --replace '{plan.damaged[0].address}'"
    lines.append(f"They are recreated when a planned node reads them, or {remedy}. {_VERIFY}")
    return lines


def counted(work: Iterable[Change] | Mapping[str, int]) -> str:
    """Return `3 train, 6 predict`, of changes or of numbers by kind."""
    kinds = work if isinstance(work, Mapping) else Counter(change.kind for change in work)
    return ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS if kinds.get(kind))


def listed(names: Sequence[str]) -> str:
    """Return names in a line, the first of many."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES + 1 else ""
    return ", ".join(names[: _NAMES if more else None]) + more


def marked(text: str) -> str:
    """Return text that Markdown shows as it is, in a table's cell, too."""
    from lorafile.report.markdown import plain

    return plain(text)


def open_lines(plan: Plan) -> list[str]:
    """Return a line for each configuration of which a part is known only after a choice."""
    lines = []
    for status in plan.tuning:
        if not status.chosen:
            what = f"{counted(status.later)} known after the choice" if status.later else "no more to run"
            lines.append(f"{status.configuration}  ({what})  {status.why_open}")
    return lines


def work_lines(plan: Plan, by_name: dict[str, list[Change]]) -> Iterator[tuple[Action, str, str]]:
    """Yield (action, what, reason) of the configurations with work, those of one sweep and one reason together.

    :param by_name: configuration, or the address of prepared data -> its work
    """
    leads = {name: _lead(changes) for name, changes in by_name.items()}
    groups: dict[tuple[str, Action, str], list[str]] = {}
    for name, lead in leads.items():
        groups.setdefault((_sweep(plan, lead), lead.action, _kind_of(lead)), []).append(name)
    for (sweep, action, _), names in groups.items():
        noun = "prepared splits" if leads[names[0]].kind == "prepare" else "configurations"
        what = names[0] if len(names) == 1 else f"{sweep}: {len(names):,} {noun}"
        work = counted(change for name in names for change in by_name[name])
        yield action, f"{what}  ({work})", _reason([leads[name] for name in names], names[0])


def node_lines(plan: Plan, changes: Iterable[Change]) -> Iterator[tuple[Action, str, str]]:
    """Yield (action, what, reason) of single nodes, those of one sweep and one reason together."""
    groups: dict[tuple[str, Action, str], list[Change]] = {}
    for change in changes:
        groups.setdefault((_sweep(plan, change), change.action, _kind_of(change)), []).append(change)
    for (sweep, action, _), members in groups.items():
        several = f"{sweep}: {len(members):,} nodes  ({counted(members)})"
        what = members[0].address if len(members) == 1 else several
        yield action, what, f"{action.value}: {_reason(members, members[0].address)}"


def _reason(members: list[Change], first: str) -> str:
    why = _why(members[0])
    return why if all(_why(change) == why for change in members) else f"such as {first}: {why}"


def _sweep(plan: Plan, change: Change) -> str:
    """Return the sweep that a node belongs to; of one that is no longer declared the first part of its address."""
    configuration = plan.graph.spec.named.get(change.configuration)
    return change.address.split("/")[0] if configuration is None or change.kind == "prepare" else configuration.sweep


def _kind_of(change: Change) -> str:
    """Return what the reasons of alike changes have in common: neither names nor numbers."""
    reason = change.reason
    if reason.startswith(("new", "follows ")):
        return "new"
    if change.action is Action.BLOCKED:
        return next((why for why in ("diverged", "ran out of memory") if reason.endswith(why)), reason)
    return _NUMBER.sub("…", reason)


def plan_markdown(plan: Plan, conclude: Sequence[str] = ()) -> str:
    """Return a plan as GitHub's Markdown.

    :param conclude: what the study will be able to conclude
    """
    summary = plan.summary()
    words = {Action.RUN: "to run", Action.RETRY: "to retry", **_REST}
    counts = [f"{summary[action.value]:,} {word}" for action, word in words.items() if summary[action.value]]
    text = [f"### Plan of {marked(plan.study)}", "", f"**{', '.join(counts) or 'Nothing is declared'}.**"]
    text[-1] += f" {marked(cost_line(plan))}" if plan.work else " Nothing to do."
    rows = split_rows(plan) if plan.work else []
    trained = [*dropped_lines(rows), *training_lines(rows, run_steps(plan))] if plan.work else []
    notes = [
        *conclude,
        *plan.warnings,
        *plan.programs,
        *trained,
        *memory_lines(plan),
        *damage_lines(plan),
        *open_lines(plan),
    ]
    notes = [partial_line(plan), *notes] if plan.options.partial else notes
    text += ["", *(f"- {marked(line)}" for line in notes)] if notes else []
    if plan.work:
        groups = _groups(plan)
        text += ["", "| | configuration | work | why | time | peak memory | fits |", "|---|---|---|---|---:|---:|---|"]
        text += [_group(name, changes) for name, changes in groups[:_GROUPS]]
        text += [f"| | {and_more(len(groups), _GROUPS)} | | | | | |"] if len(groups) > _GROUPS else []
    text += _folded(plan)
    return "\n".join(text).rstrip() + "\n"


def _groups(plan: Plan) -> list[tuple[str, list[Change]]]:
    """Return the work of each configuration, that of the data first."""
    owners = plan.graph.spec.owners
    groups: dict[str, list[Change]] = {}
    for change in in_spec_order(plan, plan.work):
        name = "data" if change.kind == "prepare" else owners.get(change.configuration, change.configuration)
        groups.setdefault(name, []).append(change)
    return list(groups.items())


def _group(name: str, changes: list[Change]) -> str:
    lead = _lead(changes)
    forecasts = [change.forecast or {} for change in changes]
    peak = max((forecast.get("reserved_bytes") or 0 for forecast in forecasts), default=0)
    fits = [forecast["fits"] for forecast in forecasts if forecast.get("fits") is not None]
    cells = [
        f"`{SYMBOLS[lead.action]}`",
        marked(name),
        counted(changes),
        marked(_why(lead)),
        duration(sum(forecast.get("seconds", 0.0) for forecast in forecasts)),
        memory_size(peak) if peak else "",
        "" if not fits else "yes" if all(fits) else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def _folded(plan: Plan) -> Iterable[str]:
    """Return every node that is not simply finished, folded away."""
    rows = in_spec_order(plan, (change for change in plan.changes if change.action is not Action.REUSE))
    if not rows:
        return []
    lines = [f"| `{SYMBOLS[row.action]}` | {marked(row.address)} | {marked(row.reason)} |" for row in rows[:_NODES]]
    lines += [f"| | {and_more(len(rows), _NODES)} | |"] if len(rows) > _NODES else []
    head = ["", f"<details><summary>Every node ({len(rows)})</summary>", "", "| | node | why |", "|---|---|---|"]
    return [*head, *lines, "", "</details>"]
