"""Every text that the command line shows of plans and applies: for people, as JSON, and as progress."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from lorafile.cli.terminal import printable
from lorafile.cli.views.cost import bill_line, too_large
from lorafile.cli.views.plan_groups import node_lines, work_lines
from lorafile.cli.views.plan_scope import KINDS, damage_lines, partial_line
from lorafile.cli.views.requirements import MOST, fitted, needs, words
from lorafile.cli.views.tuning import open_lines
from lorafile.plan.plan import Action, Change, Plan
from lorafile.plan.tuning_status import edge_lines
from lorafile.units import duration

if TYPE_CHECKING:
    from lorafile.analysis.seed_planning import Resolution
    from lorafile.apply.applier import Applied

FORMAT_VERSION = "1.0"  # of the JSON that commands print
SYMBOLS = {
    Action.RUN: "+",
    Action.REUSE: "=",
    Action.RETRY: "~",
    Action.DRIFT: "!",
    Action.BLOCKED: "x",
    Action.UNDECLARED: "-",
}
COLOURS = {
    Action.RUN: "green",
    Action.RETRY: "yellow",
    Action.DRIFT: "magenta",
    Action.BLOCKED: "red",
    Action.UNDECLARED: "dim",
}


class _Terminal(Console):
    """Rich's console, which obeys no control character that stands in what it shows."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of what is shown; the console's own control codes are pieces by themselves."""
        for piece in super().render(renderable, options):
            ours = piece.control or piece.text == "\r" or piece.text.isprintable()
            yield piece if ours else Segment(printable(piece.text), piece.style)


def console(quiet: bool = False, stderr: bool = False) -> Console:
    """Return the terminal; off a terminal lines are never broken and nothing is coloured."""
    out = _Terminal(quiet=quiet, stderr=stderr, highlight=False, emoji=False, soft_wrap=True)
    return (
        out
        if out.is_terminal
        else _Terminal(
            quiet=quiet, stderr=stderr, highlight=False, emoji=False, no_color=True, width=200, soft_wrap=True
        )
    )


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


def show_warnings(warnings: Iterable[str], out: Console) -> None:
    """Show what a reader has to know first, or last."""
    for warning in warnings:
        out.print(f"[yellow]Warning:[/] {escape(warning)}")


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


def show_applied(applied: "Applied", out: Console) -> None:
    """Say what an apply has done, and what went wrong."""
    counts = {kind: sum(a.kind == kind and a.finished for a in applied.attempts) for kind in KINDS}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"
    out.print(f"[bold]Done:[/] {told} in {duration(applied.seconds)}.")
    for outcome, colour in (("diverged", "yellow"), ("out-of-memory", "yellow"), ("failed", "red")):
        attempts = applied.with_outcome(outcome)
        for attempt in attempts[:MOST]:
            out.print(f"[{colour}]{outcome}:[/] {escape(attempt.address)}: {escape(attempt.message)}")
        if len(attempts) > MOST:
            out.print(f"… and {len(attempts) - MOST} more {outcome}")
    if applied.interrupted:
        out.print("[yellow]Interrupted.[/] What had finished is kept; the next apply goes on from there.")
