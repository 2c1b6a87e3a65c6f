"""Every text that the command line shows of plans and applies: for people, as JSON, and as progress."""

import json
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorafile.lockfile import identity
from lorafile.parameters import adapter_parameters
from lorafile.plan import Action, Change, Plan
from lorafile.standing import edge_lines
from lorafile.views_tuning import open_lines, tuning_json

if TYPE_CHECKING:
    from lorafile.apply import Applied
    from lorafile.resolve import Resolution

FORMAT_VERSION = "1.0"
SYMBOLS = {
    Action.RUN: "+",
    Action.REUSE: "=",
    Action.RETRY: "~",
    Action.DRIFT: "!",
    Action.BLOCKED: "x",
    Action.UNDECLARED: "-",
}
_COLOURS = {
    Action.RUN: "green",
    Action.RETRY: "yellow",
    Action.DRIFT: "magenta",
    Action.BLOCKED: "red",
    Action.UNDECLARED: "dim",
}
_KINDS = ("prepare", "train", "predict", "score", "profile", "inspect", "truncate", "merge")
_MOST = 12  # configurations with work that are shown one by one


def console(quiet: bool = False, stderr: bool = False) -> Console:
    """Return the terminal; off a terminal lines are never broken and nothing is coloured."""
    out = Console(quiet=quiet, stderr=stderr, highlight=False, emoji=False, soft_wrap=True)
    return (
        out
        if out.is_terminal
        else Console(quiet=quiet, stderr=stderr, highlight=False, emoji=False, no_color=True, width=200, soft_wrap=True)
    )


def show_plan(
    plan: Plan, out: Console, full: bool = False, device: str = "", stage: "Resolution | None" = None
) -> None:
    """Show what would be done, why, for how long, and whether it fits; before it, the stage that it includes."""
    show_warnings(plan.warnings, out)
    if stage is not None:
        from lorafile.views_resolve import show_resolution

        show_resolution(stage, out)
    out.print(
        f"Study [bold]{escape(plan.study)}[/]: {len(plan.graph.spec.configurations)} configurations, {seeds(plan)}"
    )
    _show_work(plan, out, full)
    for line in open_lines(plan):
        out.print(f"  [cyan]?[/] {escape(line)}")
    if plan.work:
        out.print(_needs(plan, full))
        for names, word in _words(plan).items():
            out.print(f"[dim]{escape(word)} here: {escape(', '.join(names))}[/]")
    _show_rest(plan, out, full)
    for line in edge_lines(plan.tuning):
        out.print(f"[yellow]{escape(line)}[/]")
    summary = plan.summary()
    told = ", ".join(
        f"{number} to {name}" if name in ("run", "retry", "reuse") else f"{number} {name}"
        for name, number in summary.items()
        if number
    )
    out.print(f"[bold]Plan:[/] {told or 'nothing'}.")
    if plan.work:
        out.print(_duration_of(plan, device))
    else:
        out.print("Nothing to do: everything that the study declares is finished.")


def show_warnings(warnings: list[str], out: Console) -> None:
    """Show what a reader has to know first, or last."""
    for warning in warnings:
        out.print(f"[yellow]Warning:[/] {escape(warning)}")


def _duration_of(plan: Plan, device: str) -> str:
    """Say how long it would take: work in all, and on the clock with this machine's workers."""
    known = [(change, change.forecast) for change in plan.work if change.forecast]
    total = sum(forecast["seconds"] for _, forecast in known)
    alone = sum(forecast["seconds"] for change, forecast in known if change.kind == "profile")
    clock = (total - alone) / plan.workers + alone
    sources = [forecast["source"] for change, forecast in known if change.kind != "score"]
    with_workers = f", about {duration(clock)} with {plan.workers} workers" if plan.workers > 1 else ""
    source = (sources or ["analytic"])[-1]
    later = "; what follows the choices comes on top" if any(one.later for one in plan.tuning) else ""
    return f"Forecast: {duration(total)} of work on {device or plan.device}{with_workers} ({source}){later}."


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
        for change in plan.changes:
            out.print(_line(change))
        return
    by_name: dict[str, list[Change]] = {}
    owners = plan.graph.spec.owners
    for change in plan.work:
        name = owners.get(change.configuration, change.configuration)
        by_name.setdefault(name if change.kind != "prepare" else change.address, []).append(change)
    for number, (name, changes) in enumerate(by_name.items()):
        if number == _MOST and len(by_name) > _MOST + 1:
            out.print(f"  … and {len(by_name) - _MOST} more configurations with work (--full shows every node)")
            break
        counts = {kind: sum(change.kind == kind for change in changes) for kind in _KINDS}
        work = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        tried = len({change.configuration for change in changes if change.configuration in owners})
        work = f"{tried} candidate{'s' if tried > 1 else ''}: {work}" if tried else work
        lead = next((change for change in changes if change.kind == "train"), changes[0])
        mark = f"[{_COLOURS[lead.action]}]{SYMBOLS[lead.action]}[/]"
        out.print(f"  {mark} {escape(name)}  ({work})  [dim]{escape(lead.reason)}[/]")


def _show_rest(plan: Plan, out: Console, full: bool) -> None:
    if full:
        return
    for action in (Action.DRIFT, Action.BLOCKED, Action.UNDECLARED):
        rows = [change for change in plan.changes if change.action is action]
        for change in rows[:_MOST]:
            out.print(f"  {_line(change).strip()}")
        if len(rows) > _MOST:
            out.print(f"  … and {len(rows) - _MOST} more {action.value} (--full shows every node)")


def _line(change: Change) -> str:
    mark = f"[{_COLOURS.get(change.action, 'default')}]{SYMBOLS[change.action]}[/]"
    return f"  {mark} {escape(change.address)}  [dim]{change.action.value}: {escape(change.reason)}[/]"


def _needs(plan: Plan, full: bool) -> Table:
    """Return a table of what each configuration with work needs, and what its words were resolved to."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", title="What they need", title_justify="left", title_style="bold"
    )
    titles = ("configuration", "adapter", "on", "parameters", "quantization", "rate", "peak memory", "fits")
    for title in (*titles, "time for a seed"):
        table.add_column(title, overflow="fold")
    owners = plan.graph.spec.owners
    named = dict.fromkeys(
        owners.get(change.configuration, change.configuration) for change in plan.work if change.kind != "prepare"
    )
    for number, name in enumerate(named):
        if number == _MOST and len(named) > _MOST + 1 and not full:
            table.add_row("…")
            break
        table.add_row(*map(escape, _need(plan, name)))
    return table


def _need(plan: Plan, name: str) -> list[str]:
    from lorafile.specs.quantizations import quantization_name

    sections = plan.graph.sections[name]
    adapter = sections["adapter"]
    names = {name, *(candidate for candidate, owner in plan.graph.spec.owners.items() if owner == name)}
    mine = [c for c in plan.work if c.configuration in names and c.kind != "prepare" and c.forecast]
    peaks = [
        change.forecast["peak_memory_bytes"]
        for change in mine
        if change.forecast and "peak_memory_bytes" in change.forecast
    ]
    fits = [change.forecast["fits"] for change in mine if change.forecast and "fits" in change.forecast]
    once = [change for change in mine if plan.graph.nodes[change.key].repeat == 1] or mine
    first = [change for change in once if change.seed == once[0].seed]
    for_a_seed = sum((change.forecast or {}).get("seconds", 0.0) for change in first if change.kind != "profile")
    return [
        name,
        _what(adapter),
        _targets(plan, name),
        _parameters(plan, name),
        quantization_name(sections["quantization"]),
        _rate(plan, name),
        size(max(peaks)) if peaks else "",
        "" if not fits else "yes" if all(fits) else "NO",
        duration(for_a_seed) if for_a_seed else "",
    ]


def _rate(plan: Plan, name: str) -> str:
    """Return a configuration's learning rate; where it is not chosen yet, the lowest and highest that are tried."""
    configuration, sections = plan.graph.spec.named[name], plan.graph.sections[name]
    tried = configuration.tuned.tried("train.learning_rate") if configuration.tuned and configuration.open else ()
    if tried:
        return f"{min(tried):g} to {max(tried):g}"
    return f"{sections['training']['learning_rate']:g}" if "training" in sections else ""


def _parameters(plan: Plan, name: str) -> str:
    """Return how many parameters a configuration trains."""
    configuration = plan.graph.spec.named[name]
    lock = plan.graph.lock.models[identity(configuration.model)]
    count = adapter_parameters(plan.graph.sections[name]["adapter"], lock)
    return f"{count:,}" if count else ""


def _what(adapter: dict[str, Any]) -> str:
    """Return `r=16 alpha=32`, with the method's name where it is not LoRA; its rank is the solved one."""
    from lorafile.specs.methods import METHODS

    method = METHODS.get(adapter["method"])
    if method is None:
        return str(adapter["method"])
    words = [] if adapter["method"] == "lora" else [adapter["method"]]
    words += [f"r={adapter[method.rank]}"] if method.rank else []
    words += [f"alpha={adapter[method.alpha]}"] if method.alpha else []
    words += [f"{adapter['num_virtual_tokens']} virtual tokens"] if "num_virtual_tokens" in adapter else []
    start = adapter.get("init_lora_weights", True)
    return " ".join([*words, start] if isinstance(start, str) else words)


def _targets(plan: Plan, name: str) -> str:
    """Return what an adapter is put on: the spec's own word where it used one; its names stand below the table."""
    adapter = plan.graph.sections[name]["adapter"]
    if "target_modules" not in adapter:
        return ""
    word = _words(plan).get(tuple(adapter["target_modules"])) or ", ".join(adapter["target_modules"])
    layers = adapter.get("layers_to_transform")
    return f"{word} in layers {', '.join(map(str, layers))}" if layers else word


def _words(plan: Plan) -> dict[tuple[str, ...], str]:
    """Return module names -> the word of the spec that stands for them."""
    found = {}
    for configuration in plan.graph.spec.configurations:
        word = (configuration.adapter or {}).get("target_modules")
        if isinstance(word, str):
            found[tuple(plan.graph.sections[configuration.name]["adapter"]["target_modules"])] = word
    return found


def plan_json(plan: Plan, stage: "Resolution | None" = None) -> str:
    """Return the plan as documented JSON, with the stage that `--resolve` has planned."""
    changes = [
        {
            "address": c.address,
            "key": c.key,
            "kind": c.kind,
            "action": c.action.value,
            "reason": c.reason,
            "forecast": c.forecast,
        }
        for c in plan.changes
    ]
    content = {
        "format_version": FORMAT_VERSION,
        "study": plan.study,
        "summary": plan.summary(),
        "warnings": plan.warnings,
        "changes": changes,
        "tuning": tuning_json(plan),
    }
    if stage is not None:
        from lorafile.views_resolve import resolution_json

        content["resolve"] = resolution_json(stage)
    return json.dumps(content, indent=2, allow_nan=False)


def show_applied(applied: "Applied", out: Console) -> None:
    """Say what an apply has done, and what went wrong."""
    counts = {kind: sum(a.kind == kind and a.finished for a in applied.attempts) for kind in _KINDS}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "nothing"
    out.print(f"[bold]Done:[/] {told} in {duration(applied.seconds)}.")
    for outcome, colour in (("diverged", "yellow"), ("out-of-memory", "yellow"), ("failed", "red")):
        attempts = applied.with_outcome(outcome)
        for attempt in attempts[:_MOST]:
            out.print(f"[{colour}]{outcome}:[/] {escape(attempt.address)}: {escape(attempt.message)}")
        if len(attempts) > _MOST:
            out.print(f"… and {len(attempts) - _MOST} more {outcome}")
    if applied.interrupted:
        out.print("[yellow]Interrupted.[/] What had finished is kept; the next apply goes on from there.")


def duration(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if math.isfinite(seconds) else "for ever"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
