"""`lora plan`: what an apply would do, why, for how long, and whether it fits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorafile.cli.command import (
    PATH,
    command,
    json_option,
    keep_until_exit,
    markdown_option,
    price_option,
    quiet_option,
    resolve_option,
    selection_options,
    spec_argument,
    state_option,
)
from lorafile.cli.terminal import echo

if TYPE_CHECKING:
    from lorafile.analysis.seed_planning import Resolution
    from lorafile.cli.conclusion import Conclusion
    from lorafile.plan.plan import Plan


@command("plan")
@spec_argument
@state_option
@click.option("--gpu", help="Show whether it fits on this GPU: 24GB, or a name such as 'RTX 4090' or H100.")
@click.option("--full", is_flag=True, help="List every node.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there is something to do.")
@click.option(
    "--detect",
    metavar="DIFFERENCE",
    help="Find the cheapest seeds and test rows that detect this difference, e.g. 1pt.",
)
@click.option("--out", type=PATH, help="Save the plan to this file, for `lora apply FILE`.")
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
    detect: str | None,
    out: Path | None,
    hourly: float | None,
    selected: dict[str, Any],
    resolve: int | None,
    as_json: bool,
    markdown: bool,
    quiet: bool,
) -> int:
    """Show what apply would run, its time, and if it fits.

    Writes nothing unless --out is given.

    \b
    Example: lora plan study.toml --gpu 24GB
    """
    from lorafile.cli.conclusion import conclusion, with_confounds
    from lorafile.cli.views.console import console
    from lorafile.cli.views.plan import plan_markdown, show_plan
    from lorafile.state import State
    from lorafile.study import seed_stage
    from lorafile.study.study import Study

    if out is not None and resolve:
        raise click.UsageError(
            "--out cannot save a plan with --resolve. Add the seeds first with: lora apply --resolve"
        )
    loaded = Study.load(spec, state)

    def read(_: State) -> "tuple[Plan, Resolution | None, Conclusion | None]":
        study, stage = seed_stage.resolve(loaded, resolve)
        made = with_confounds(study, study.plan(gpu, hourly=hourly, **selected))
        return made, stage, conclusion(study, made, detect, gpu)

    planned, stage, conclude = State.snapshot(loaded.state, read)
    keep_until_exit(planned)
    if as_json:
        from lorafile.cli.views.seed_stage import resolution_json
        from lorafile.plan.document import document, text

        resolved = resolution_json(stage) if stage else None
        echo(text(document(planned, resolved, conclude.as_json if conclude else None)))
    elif markdown:
        echo(plan_markdown(planned, conclude.lines if conclude else ()), nl=False)
    else:
        device = planned.target.name if gpu and planned.target else ""
        show_plan(planned, console(quiet), full, device, stage, conclude=conclude.lines if conclude else ())
    if out is not None:
        loaded.save_plan(planned, out)
        console(quiet or as_json or markdown).print(
            f"Saved. To apply exactly this plan: lora apply {out}", markup=False
        )
    return 2 if detailed_exitcode and planned.work else 0
