"""`lora apply`: do what is missing."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorafile.cli.command import (
    budget_options,
    command,
    lock_option,
    quiet_option,
    resolve_option,
    selection_options,
    spec_argument,
    state_option,
)
from lorafile.cli.terminal import agreed
from lorafile.errors import StateError
from lorafile.units import Price

if TYPE_CHECKING:
    from rich.console import Console

    from lorafile.analysis.seed_planning import Resolution
    from lorafile.apply.budget import Budget
    from lorafile.apply.progress import Applied
    from lorafile.cli.progress import Lines
    from lorafile.plan.plan import Plan
    from lorafile.study.study import Study


@command("apply")
@spec_argument
@state_option
@click.option("--yes", is_flag=True, help="Apply without asking for approval.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Worker processes, with up to OMP_NUM_THREADS threads each. [default: one per GPU; on a CPU, by model size]",
)
@click.option(
    "--pack",
    default="auto",
    metavar="auto|off|N",
    help="Adapters on one base to train together: at most N, off, or auto (the number that measures fastest).",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Exit once all work is submitted to a Slurm cluster; a later apply collects the results.",
)
@lock_option
@budget_options
@selection_options
@resolve_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON event per line; requires --yes.")
@quiet_option
def apply(
    spec: Path,
    state: Path | None,
    yes: bool,
    hourly: float | None,
    selected: dict[str, Any],
    resolve: int | None,
    limits: tuple[float | None, float | None],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Train and evaluate only what is missing.

    SPEC is a spec, or a plan saved by `lora plan --out FILE`. A saved plan is applied exactly and without asking; if
    the spec, the data or the state has changed since, apply refuses it with exit code 5. You can interrupt at any
    time: the next apply resumes from the last checkpoints.

    \b
    Example: lora apply study.toml --yes
    """
    from lorafile.apply.budget import Budget
    from lorafile.apply.workers import pack_width, unused_workers
    from lorafile.cli.conclusion import conclusion, with_confounds
    from lorafile.cli.progress import watcher_for
    from lorafile.cli.views.apply import show_collected
    from lorafile.cli.views.console import console, show_warnings
    from lorafile.cli.views.plan import show_plan
    from lorafile.plan.planfile import is_plan
    from lorafile.study import seed_stage
    from lorafile.study.study import Study

    approved = yes or is_plan(spec)
    if as_json and not approved:
        raise click.UsageError("--json cannot ask for approval; also pass --yes.")
    out, width = console(quiet or as_json), pack_width(options["pack"])
    if selected.get("cluster") and not is_plan(spec):
        show_collected(Study.load(spec, state).collect(selected["cluster"], options["lock_timeout"]), out)
    study, planned, stage = _planned(spec, state, selected, resolve, hourly)
    budget = Budget.of(*limits, planned.hourly, planned.machines.devices)
    here = not planned.machines.cluster
    if here:
        study.warm_up(planned)
    conclude = None if quiet or as_json else conclusion(study, planned)
    shown = planned if quiet or as_json else with_confounds(study, planned)
    show_plan(shown, out, stage=stage, pack=width, conclude=conclude.lines if conclude else ())
    if not planned.work and not (stage and stage.seeds):
        _settle(study, planned, options["lock_timeout"], out)
        out.print(f"Next: lora report {study.spec.file}", markup=False)
        watcher_for(planned, out, as_json).on_result(
            {"seconds": 0.0, "left": 0, "exit_code": 0, "warnings": [], "best": None}
        )
        return 0
    if not agreed(approved, "Apply these changes?"):
        return 1
    if stage and stage.seeds:
        seed_stage.append(study, stage)
    if here and (unused := unused_workers(planned, options["workers"])):
        show_warnings([unused], out)
    watcher = watcher_for(planned, out, as_json)
    with watcher:
        applied = study.apply(planned, watchers=[watcher], budget=budget, **options)
    return _conclude(study, planned, applied, budget, watcher, out, options["detach"])


def _conclude(
    study: "Study",
    planned: "Plan",
    applied: "Applied",
    budget: "Budget | None",
    watcher: "Lines",
    out: "Console",
    detached: bool,
) -> int:
    """Show what was done, the best figure so far, and what comes next; return the exit code."""
    from lorafile.cli.views.apply import best_json, best_line, left_over, show_applied, show_tracking
    from lorafile.cli.views.console import show_warnings
    from lorafile.results.datacard import leak_warnings
    from lorafile.state import State

    ended = budget is not None and bool(budget.refused)
    left = left_over(planned, applied)
    warnings = [budget.message(left.words)] if budget is not None and ended else []
    warnings += leak_warnings(planned.graph, State.read(study.state))
    failed = applied.with_outcome("failed") or (applied.with_outcome("interrupted") and not ended)
    exit_code = 130 if applied.interrupted else 1 if failed else 7 if ended else 0
    best = study.best_figure() if any(attempt.finished for attempt in applied.attempts) else None
    show_applied(applied, out)
    show_tracking(applied.tracking, study.state, out)
    show_warnings(warnings, out)
    if detached and left.nodes:
        out.print(
            f"Left to the cluster: {left.words}. Run the same command again to collect the results.", markup=False
        )
    if best is not None:
        out.print(best_line(best), markup=False)
        out.print(f"Next: lora report {study.spec.file}", markup=False)
    content = {"seconds": applied.seconds, "left": left.nodes, "exit_code": exit_code, "warnings": warnings}
    watcher.on_result({**content, "best": best_json(best)})
    return exit_code


def _settle(study: "Study", planned: "Plan", lock_timeout: float, out: "Console") -> None:
    """Record what the study declares now, and send trackers what they lack, where there is no work."""
    from lorafile.cli.views.apply import show_sending, show_tracking
    from lorafile.cli.views.console import show_warnings

    unsent, undeclared = study.untracked(planned), planned.summary()["undeclared"]
    if unsent:
        show_sending(unsent, out)
    elif not undeclared:
        return
    try:
        applied = study.apply(planned, lock_timeout=lock_timeout)
    except StateError as error:
        if undeclared:
            raise
        show_warnings([f"tracking: nothing was sent. {error}"], out)
    else:
        show_tracking(applied.tracking, study.state, out)


def _planned(
    spec: Path, state: Path | None, selected: dict[str, Any], resolve: int | None, hourly: float | None
) -> "tuple[Study, Plan, Resolution | None]":
    """Return the study and the plan that a saved plan is of, or what a spec needs now, with the stage that it adds."""
    from lorafile.plan import planfile
    from lorafile.study import seed_stage
    from lorafile.study.study import Study

    if not planfile.is_plan(spec):
        study, stage = seed_stage.resolve(Study.load(spec, state), resolve)
        return study, study.plan(hourly=hourly, **selected), stage
    if resolve or {*selected} - {"cluster"}:
        raise click.UsageError(f"{spec} is a saved plan, which already contains the other options; omit them.")
    study, plan = Study.approved(spec, state)
    if selected.get("cluster", plan.machines.cluster) != plan.machines.cluster:
        made_for = f"the cluster {plan.machines.cluster}" if plan.machines.cluster else "this machine"
        raise click.UsageError(f"{spec} was made for {made_for}; omit --cluster (or unset LORA_CLUSTER).")
    return study, replace(plan, hourly=plan.hourly if hourly is None else Price(hourly)), None
