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

if TYPE_CHECKING:
    from rich.console import Console

    from lorafile.analysis.seed_planning import Resolution
    from lorafile.apply.budget import Budget
    from lorafile.plan.plan import Plan
    from lorafile.study.study import Study


@command("apply")
@spec_argument
@state_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Worker processes, of OMP_NUM_THREADS threads at most. [default: one for each GPU; on a CPU by model size]",
)
@click.option(
    "--pack",
    default="auto",
    metavar="auto|off|N",
    help="How many adapters on one base are trained together: at most N; auto: as many as are measured to be fastest.",
)
@lock_option
@budget_options
@selection_options
@resolve_option
@quiet_option
def apply(
    spec: Path,
    state: Path | None,
    yes: bool,
    hourly: float | None,
    selected: dict[str, Any],
    resolve: int | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Train, predict and measure what is missing, and nothing else.

    A plan that `lora plan --out FILE` has saved is applied as it is, without a question, or not at all.

    \b
    Example: lora apply study.toml --yes
    """
    from lorafile.apply.workers import pack_width, unused_workers
    from lorafile.cli.conclusion import conclusion
    from lorafile.cli.progress import Bars, Lines
    from lorafile.cli.views.apply import show_applied, show_tracking
    from lorafile.cli.views.console import console, show_warnings
    from lorafile.cli.views.plan import show_plan
    from lorafile.plan.planfile import is_plan
    from lorafile.results.datacard import leak_warnings
    from lorafile.state import State
    from lorafile.study import seed_stage

    out, width = console(quiet), pack_width(options["pack"])
    budget: Budget | None = options["budget"]
    study, planned, stage = _planned(spec, state, selected, resolve, hourly)
    study.warm_up(planned)
    conclude = None if quiet else conclusion(study, planned)
    show_plan(planned, out, stage=stage, pack=width, conclude=conclude.lines if conclude else ())
    if not planned.work and not (stage and stage.seeds):
        _settle(study, planned, options["lock_timeout"], out)
        return 0
    if not agreed(yes or is_plan(spec), "Do this?"):
        return 1
    if stage and stage.seeds:
        seed_stage.append(study, stage)
    if unused := unused_workers(planned, options["workers"]):
        show_warnings([unused], out)
    watcher = (Bars if out.is_terminal else Lines)(planned, out)
    with watcher:
        applied = study.apply(planned, watchers=[watcher], **options)
    show_applied(applied, out)
    show_tracking(applied.tracking, study.state, out)
    ended = [] if budget is None or not budget.refused else [budget.message()]
    show_warnings([*ended, *leak_warnings(planned.graph, State.read(study.state))], out)
    if applied.interrupted:
        return 130
    return 1 if applied.with_outcome("failed") or (applied.with_outcome("interrupted") and not ended) else 0


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
    if selected or resolve:
        raise click.UsageError(f"{spec} is a plan, and says itself what it is of; leave the other options out.")
    study, plan = Study.approved(spec, state)
    return study, replace(plan, hourly=hourly), None
