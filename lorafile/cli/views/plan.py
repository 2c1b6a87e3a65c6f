"""Every text that the command line shows of plans and applies: for people, as JSON, and as progress."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import COLOURS, SYMBOLS, show_warnings
from lorafile.cli.views.requirements import MOST, bill_line, fitted, needs, too_large, words
from lorafile.plan.plan import Action, Change, Plan
from lorafile.plan.tuning_status import edge_lines

if TYPE_CHECKING:
    from lorafile.analysis.seed_planning import Resolution
    from lorafile.plan.plan import Plan


def show_plan(
    plan: Plan,
    out: Console,
    full: bool = False,
    device: str = "",
    stage: "Resolution | None" = None,
    pack: int = 0,
) -> None:
    """Show what would be done, why, for how long, and whether it fits; before it, the stage that it includes.

    :param pack: how many adapters are trained together at most; 0 where that is measured
    """
    show_warnings(plan.warnings, out)
    if stage is not None:
        from lorafile.cli.views.seed_stage import show_resolution

        show_resolution(stage, out)
    out.print(
        f"Study [bold]{escape(plan.study)}[/]: {len(plan.graph.spec.configurations)} configurations, {seeds(plan)}"
    )
    _show_work(plan, out, full)
    for line in open_lines(plan):
        out.print(f"  [cyan]?[/] {escape(line)}")
    if plan.work:
        out.print(fitted(needs(plan, full), out))
        for names, word in words(plan).items():
            out.print(f"[dim]{escape(word)} here: {escape(', '.join(names))}[/]")
    _show_rest(plan, out, full)
    for line in damage_lines(plan):
        out.print(f"[red]{escape(line)}[/]")
    for line in edge_lines(plan.tuning):
        out.print(f"[yellow]{escape(line)}[/]")
    summary = plan.summary()
    told = ", ".join(
        f"{number} to {name}" if name in ("run", "retry", "reuse") else f"{number} {name}"
        for name, number in summary.items()
        if number
    )
    out.print(f"[bold]Plan:[/] {told or 'nothing'}.")
    if plan.options.partial:
        out.print(f"[yellow]{escape(partial_line(plan))}[/]")
    if plan.work:
        for line in too_large(plan):
            out.print(f"[yellow]{escape(line)}[/]")
        out.print(bill_line(plan, device) + _packing(plan, pack))
    else:
        whose = "is selected" if plan.options.partial else "the study declares"
        out.print(f"Nothing to do: everything that {whose} is finished.")


def _packing(plan: Plan, pack: int) -> str:
    """Say whether adapters will be trained together."""
    from lorafile.apply.work_groups import can_pack

    if pack == 1 or not can_pack(plan):
        return ""
    how = f"up to {pack} at a time" if pack else "where that is measured to be faster"
    return f" Adapters on one base are trained together, {how}."


def seeds(plan: Plan) -> str:
    """Return `3 seeds (42, 1337, 2024), stage 1 with 2 (2025, 2026)`."""
    tables = plan.graph.spec.tables
    values = tables.study.seeds
    stages = [f", stage {at} with {len(one.seeds)} ({_listed(one.seeds)})" for at, one in enumerate(tables.stage, 1)]
    again = f", the first of them {tables.study.repeats} times" if tables.study.repeats > 1 else ""
    return f"{len(values)} seed{'s' if len(values) > 1 else ''} ({_listed(values)}){again}" + "".join(stages)


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _show_work(plan: Plan, out: Console, full: bool) -> None:
    """Show the nodes that would run: one line for each configuration and reason, or each node in full."""
    if full:
        _print_each(plan.changes, out)
        return
    by_name: dict[str, list[Change]] = {}
    owners = plan.graph.spec.owners
    for change in plan.work:
        name = owners.get(change.configuration, change.configuration)
        by_name.setdefault(name if change.kind != "prepare" else change.address, []).append(change)
    if len(by_name) > MOST + 1:
        _print_groups(list(work_lines(plan, by_name)), out)
        return
    for name, changes in by_name.items():
        counts = {kind: sum(change.kind == kind for change in changes) for kind in KINDS}
        work = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        tried = len({change.configuration for change in changes if change.configuration in owners})
        work = f"{tried} candidate{'s' if tried > 1 else ''}: {work}" if tried else work
        lead = next((change for change in changes if change.kind == "train"), changes[0])
        mark = f"[{COLOURS[lead.action]}]{SYMBOLS[lead.action]}[/]"
        out.print(f"  {mark} {escape(name)}  ({work})  [dim]{escape(lead.reason)}[/]")


def _show_rest(plan: Plan, out: Console, full: bool) -> None:
    if full:
        return
    for action in (Action.DRIFT, Action.BLOCKED, Action.UNDECLARED):
        rows = [change for change in plan.changes if change.action is action]
        if len(rows) > MOST:
            _print_groups(list(node_lines(plan, rows)), out)
        else:
            for change in rows:
                out.print(_line(change))


def _print_groups(lines: list[tuple[Action, str, str]], out: Console) -> None:
    """Show what many nodes have in common, a line for each group."""
    for action, what, reason in lines[:MOST]:
        out.print(f"  [{COLOURS[action]}]{SYMBOLS[action]}[/] {escape(what)}  [dim]{escape(reason)}[/]")
    more = f"… and {len(lines) - MOST} more groups of them; " if len(lines) > MOST else ""
    out.print(f"  [dim]{more}--full shows every node[/]")


def _print_each(changes: Sequence[Change], out: Console) -> None:
    """Show every node; off a terminal as one text, because tens of thousands of lines take seconds to colour."""
    if out.is_terminal:
        for change in changes:
            out.print(_line(change))
    else:
        out.out("\n".join(f"  {SYMBOLS[c.action]} {c.address}  {c.action.value}: {c.reason}" for c in changes))


def _line(change: Change) -> str:
    mark = f"[{COLOURS.get(change.action, 'default')}]{SYMBOLS[change.action]}[/]"
    return f"  {mark} {escape(change.address)}  [dim]{change.action.value}: {escape(change.reason)}[/]"


_MOST_DAMAGED = 5  # damaged files that are named one by one
_NAMES = 4  # configurations of one line
KINDS = ("prepare", "train", "predict", "score", "profile", "inspect", "truncate", "merge")


def partial_line(plan: "Plan") -> str:
    """Say that a plan is of a part of its study, and what that leaves out."""
    nodes = f"{plan.left_out} node{'' if plan.left_out == 1 else 's'}"
    left = f"{nodes} of work left out" if plan.left_out else "nothing that would run is left out"
    return f"Partial, by {plan.options.words}: {left}."


def damage_lines(plan: "Plan") -> list[str]:
    """Name what is missing or damaged of finished results, and what mends it."""
    lines = [
        f"{one.what.capitalize()} in the state: {one.file} of {one.address}" for one in plan.damaged[:_MOST_DAMAGED]
    ]
    if len(plan.damaged) > _MOST_DAMAGED:
        lines.append(f"… and {len(plan.damaged) - _MOST_DAMAGED} more files of finished results")
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


def open_lines(plan: "Plan") -> list[str]:
    """Return a line for each configuration of which a part is known only after a choice."""
    found = []
    for one in plan.tuning:
        if not one.chosen:
            what = f"{counted(one.later)} known after the choice" if one.later else "no more to run"
            found.append(f"{one.configuration}  ({what})  {one.why_open}")
    return found


_NUMBER = re.compile(r"\d+(\.\d+)?")


def work_lines(plan: Plan, by_name: dict[str, list[Change]]) -> Iterator[tuple[Action, str, str]]:
    """Yield (action, what, reason) of the configurations with work, those of one sweep and one reason together.

    :param by_name: configuration, or the address of prepared data -> its work
    """
    groups: dict[tuple[str, Action, str], list[tuple[str, Change, list[Change]]]] = {}
    for name, changes in by_name.items():
        lead = next((change for change in changes if change.kind == "train"), changes[0])
        group = (_sweep(plan, lead), lead.action, _kind_of(lead))
        groups.setdefault(group, []).append((name, lead, changes))
    for (sweep, action, _), members in groups.items():
        work = counted(Counter(change.kind for *_, changes in members for change in changes))
        name, lead, _ = members[0]
        what = name if len(members) == 1 else f"{sweep}: {len(members):,} {_noun(lead)}"
        yield action, f"{what}  ({work})", _reason([lead for _, lead, _ in members], name)


def node_lines(plan: Plan, changes: Iterable[Change]) -> Iterator[tuple[Action, str, str]]:
    """Yield (action, what, reason) of single nodes, those of one sweep and one reason together."""
    groups: dict[tuple[str, Action, str], list[Change]] = {}
    for change in changes:
        groups.setdefault((_sweep(plan, change), change.action, _kind_of(change)), []).append(change)
    for (sweep, action, _), members in groups.items():
        work = counted(Counter(change.kind for change in members))
        what = members[0].address if len(members) == 1 else f"{sweep}: {len(members):,} nodes  ({work})"
        yield action, what, f"{action.value}: {_reason(members, members[0].address)}"


def _reason(members: list[Change], first: str) -> str:
    same = all(change.reason == members[0].reason for change in members)
    return members[0].reason if same else f"such as {first}: {members[0].reason}"


def _noun(lead: Change) -> str:
    return "prepared splits" if lead.kind == "prepare" else "configurations"


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
