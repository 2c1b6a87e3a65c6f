"""`lora plan` and `lora apply`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorafile.cli.command import (
    budget_options,
    command,
    json_option,
    markdown_option,
    price_option,
    quiet_option,
    resolve_option,
    selection_options,
    spec_argument,
    state_option,
    until_the_end,
)
from lorafile.cli.terminal import say
from lorafile.errors import LoraError, StateError

if TYPE_CHECKING:
    from rich.console import Console

    from lorafile.analysis.seed_planning import Resolution
    from lorafile.apply.budget import Budget
    from lorafile.plan.plan import Plan
    from lorafile.study.study import Study


@command("plan")
@spec_argument
@state_option
@click.option("--gpu", help="Say whether it fits this GPU: 24GB, or a name such as 'RTX 4090' or H100.")
@click.option("--full", is_flag=True, help="Show every node.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 2 when there is something to do.")
@click.option("--out", type=click.Path(path_type=Path), help="Save the plan, for `lora apply FILE`.")
@price_option
@selection_options
@resolve_option
@json_option
@markdown_option
@quiet_option
def plan(
    spec: Path,
    state: Path | None,
    gpu: str | None,
    full: bool,
    detailed_exitcode: bool,
    out: Path | None,
    hourly: float | None,
    selected: dict[str, Any],
    resolve: int | None,
    as_json: bool,
    markdown: bool,
    quiet: bool,
) -> int:
    """Show what an apply would do, why, for how long, and whether it fits. Writes nothing.

    \b
    Example: lora plan study.toml --gpu 24GB
    """
    from lorafile.cli.views import plan as views
    from lorafile.state import State
    from lorafile.study import seed_stage
    from lorafile.study.study import Study

    if out is not None and resolve:
        raise click.UsageError("--out keeps what an apply can do; add the seeds first with: lora apply --resolve")
    loaded = Study.load(spec, state)

    def read(_: State) -> "tuple[Plan, Resolution | None]":
        study, stage = seed_stage.resolve(loaded, resolve)
        return study.plan(gpu, hourly=hourly, **selected), stage

    planned, stage = State.snapshot(loaded.state, read)
    until_the_end(planned)
    if as_json:
        from lorafile.cli.views.seed_stage import resolution_json
        from lorafile.plan.document import document, text

        say(text(document(planned, resolution_json(stage) if stage else None)))
    elif markdown:
        from lorafile.cli.views import plan_markdown

        say(plan_markdown.plan_markdown(planned), nl=False)
    else:
        views.show_plan(planned, views.console(quiet), full, f"a GPU of {gpu}" if gpu else "", stage)
    if out is not None:
        loaded.save_plan(planned, out)
        said = views.console(quiet or as_json or markdown)
        said.print(f"Saved. Do exactly this with: lora apply {out}", markup=False)
    return 2 if detailed_exitcode and planned.work else 0


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
@click.option("--lock-timeout", type=float, default=0.0, help="Seconds to wait for another apply on the same state.")
@budget_options
@selection_options
@resolve_option
@quiet_option
def apply(
    spec: Path,
    state: Path | None,
    yes: bool,
    workers: int | None,
    pack: str,
    lock_timeout: float,
    hourly: float | None,
    budget: "Budget | None",
    selected: dict[str, Any],
    resolve: int | None,
    quiet: bool,
) -> int:
    """Train, predict and measure what is missing, and nothing else.

    A plan that `lora plan --out FILE` has saved is applied as it is, without a question, or not at all.

    \b
    Example: lora apply study.toml --yes
    """
    from lorafile.apply.workers import pack_width, unused_workers
    from lorafile.cli import progress
    from lorafile.cli.views import plan as views
    from lorafile.cli.views import tracking
    from lorafile.plan.planfile import is_plan
    from lorafile.results.datacard import leak_warnings
    from lorafile.state import State
    from lorafile.study import seed_stage

    out, width = views.console(quiet), pack_width(pack)
    study, planned, stage = _planned(spec, state, selected, resolve, hourly)
    study.warm_up(planned)
    views.show_plan(planned, out, stage=stage, pack=width)
    if not planned.work and not (stage and stage.seeds):
        _settle(study, planned, lock_timeout, out)
        return 0
    if not (yes or is_plan(spec) or _agreed()):
        return 1
    if stage and stage.seeds:
        seed_stage.append(study, stage)
    if unused := unused_workers(planned, workers):
        views.show_warnings([unused], out)
    watcher = (progress.Bars if out.is_terminal else progress.Lines)(planned, out)
    options: dict[str, Any] = {"workers": workers, "pack": pack, "lock_timeout": lock_timeout, "budget": budget}
    with watcher:
        applied = study.apply(planned, watchers=[watcher], **options)
    views.show_applied(applied, out)
    tracking.show_tracking(applied.tracking, study.state, out)
    ended = [] if budget is None or not budget.refused else [budget.told()]
    views.show_warnings([*ended, *leak_warnings(planned.graph, State.read(study.state))], out)
    if applied.interrupted:
        return 130
    return 1 if applied.with_outcome("failed") or (applied.with_outcome("interrupted") and not ended) else 0


def _settle(study: "Study", planned: "Plan", lock_timeout: float, out: "Console") -> None:
    """Where there is no work, note what the study declares now, and send trackers what they do not have."""
    from lorafile.cli.views import plan as views
    from lorafile.cli.views import tracking

    wanting = study.untracked(planned)
    if wanting:
        tracking.show_sending(wanting, out)
    if not (wanting or planned.summary()["undeclared"]):
        return
    try:
        applied = study.apply(planned, lock_timeout=lock_timeout)
    except StateError as error:
        if planned.summary()["undeclared"]:
            raise
        views.show_warnings([f"tracking: nothing was sent. {error}"], out)
    else:
        tracking.show_tracking(applied.tracking, study.state, out)


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


def _agreed() -> bool:
    """Ask whether the plan that was shown shall be done."""
    if not sys.stdin.isatty():
        raise LoraError("Nobody is there to approve the plan: pass --yes.")
    if input("Do this? Only 'yes' is taken for yes: ").strip() == "yes":
        return True
    say("Nothing was done.")
    return False
