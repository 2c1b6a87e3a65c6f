"""The command line: each command parses, calls, and hands what came to a view."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorafile.command import (
    budget_options,
    command,
    json_option,
    main,
    markdown_option,
    price_option,
    quiet_option,
    resolve_option,
    selection_options,
    spec_argument,
    state_option,
)
from lorafile.errors import LoraError

if TYPE_CHECKING:
    from lorafile.budget import Budget

__all__ = ["main"]


@command("init")
@click.argument("spec", type=click.Path(path_type=Path), default="study.toml")
@click.option(
    "--preset",
    help="Begin with a preset: rank_sweep, module_sweep, quantization_sweep, placement, lora_vs_full, hyperparameters.",
)
@click.option("--model", help="A hub id or a directory. [default: the built-in model]")
@click.option("--data", help="A data file, a directory, or a hub id. [default: the built-in task]")
@click.option("--force", is_flag=True, help="Write over a spec that is there.")
def init(spec: Path, preset: str | None, model: str | None, data: str | None, force: bool) -> int:
    """Write a first spec that runs.

    \b
    Example: lora init --preset rank_sweep --model microsoft/phi-2 --data rows.jsonl
    """
    from lorafile.init import first_spec

    if spec.exists() and not force:
        raise LoraError(f"{spec} is there already; name another file, or pass --force to write over it.")
    spec.write_text(first_spec(preset, model, data), encoding="utf-8")
    click.echo(f"Wrote {spec}. Next: lora plan {spec}")
    return 0


@command("validate")
@click.argument("specs", nargs=-1, type=click.Path(path_type=Path))
def validate(specs: tuple[Path, ...]) -> int:
    """Check specs; every mistake is shown, each where it stands.

    \b
    Example: lora validate study.toml
    """
    from lorafile.errors import SpecError
    from lorafile.specs import load

    wrong = 0
    for file in specs or (Path("study.toml"),):
        try:
            spec = load(file)
            click.echo(f"{file}: good, {len(spec.configurations)} configurations")
        except SpecError as error:
            wrong = error.exit_code
            click.echo(str(error), err=True)
    return wrong


@command("schema")
def schema() -> int:
    """Print the JSON schema of specs, for editors.

    \b
    Example: lora schema > study.schema.json
    """
    from lorafile.specs.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
    return 0


@command("lock")
@spec_argument
def lock(spec: Path) -> int:
    """Look at models and data afresh and write the lock beside the spec.

    \b
    Example: lora lock study.toml
    """
    from lorafile.lockfile import lock_file
    from lorafile.study import Study

    study = Study.load(spec)
    written = study.lock()
    click.echo(f"Wrote {lock_file(study.spec)}: {len(written.models)} models, {len(written.data)} data sets.")
    return 0


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
    from lorafile import plan_format, staging, views, views_markdown
    from lorafile.study import Study

    if out is not None and resolve:
        raise click.UsageError("--out keeps what an apply can do; add the seeds first with: lora apply --resolve")
    study, stage = staging.resolve(Study.load(spec, state), resolve)
    planned = study.plan(gpu, **selected)
    planned.hourly = hourly
    if as_json:
        click.echo(plan_format.text(plan_format.document(planned, stage)))
    elif markdown:
        click.echo(views_markdown.plan_markdown(planned), nl=False)
    else:
        views.show_plan(planned, views.console(quiet), full, f"a GPU of {gpu}" if gpu else "", stage)
    if out is not None:
        planned.save(out)
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
    help="Worker processes. [default: one for each GPU; on a CPU by the model's size]",
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
    from lorafile import progress, saved, staging, views
    from lorafile.datacard import leak_warnings
    from lorafile.state import State
    from lorafile.study import Study, pack_width

    out, stage = views.console(quiet), None
    width = pack_width(pack)
    if is_saved := saved.is_plan(spec):
        if selected or resolve:
            raise click.UsageError(f"{spec} is a plan, and says itself what it is of; leave the other options out.")
        study, planned = saved.approved(spec, state)
    else:
        study, stage = staging.resolve(Study.load(spec, state), resolve)
        planned = study.plan(**selected)
    planned.hourly = hourly
    study.warm_up(planned)
    views.show_plan(planned, out, stage=stage, pack=width)
    if not planned.work and not (stage and stage.seeds):
        if planned.summary()["undeclared"]:
            study.apply(planned, lock_timeout=lock_timeout)  # notes what the study declares now
        return 0
    if not (yes or is_saved):
        if not sys.stdin.isatty():
            raise LoraError("Nobody is there to approve the plan: pass --yes.")
        if input("Do this? Only 'yes' is taken for yes: ").strip() != "yes":
            click.echo("Nothing was done.")
            return 1
    if stage and stage.seeds:
        staging.append(study, stage)
    watcher = (progress.Bars if out.is_terminal else progress.Lines)(planned, out)
    options: dict[str, Any] = {"workers": workers, "pack": pack, "lock_timeout": lock_timeout, "budget": budget}
    with watcher:
        applied = study.apply(planned, watchers=[watcher], **options)
    views.show_applied(applied, out)
    if over := budget is not None and budget.refused > 0:
        views.show_warnings([budget.told()] if budget else [], out)
    views.show_warnings(leak_warnings(planned.graph, State.read(study.state)), out)
    if applied.interrupted:
        return 130
    return 1 if applied.with_outcome("failed") or (applied.with_outcome("interrupted") and not over) else 0


@command("report")
@click.argument("specs", nargs=-1, type=click.Path(path_type=Path))
@state_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to. [default: report.path of the spec; of several specs: report in the current directory]",
)
@click.option("--check", "check_only", is_flag=True, help="Only check the claims; end with 6 when one no longer holds.")
@click.option("--watch", is_flag=True, help="Write the page anew while an apply runs, until all is done or Ctrl-C.")
@json_option
def report(
    specs: tuple[Path, ...], state: Path | None, out: Path | None, check_only: bool, watch: bool, as_json: bool
) -> int:
    """Write report.html, RESULTS.md and results.tex from what is finished, or print every figure as JSON.

    Several specs make one page that puts their studies side by side.

    \b
    Example: lora report study.toml
    """
    from lorafile import reporting
    from lorafile.study import Study

    if check_only and (out is not None or len(specs) > 1):
        raise click.UsageError("--check writes no report, and checks the claims of one spec; leave the rest out.")
    if watch and (check_only or as_json):
        raise click.UsageError("--watch writes the page while a study runs; leave out --check and --json.")
    studies = [Study.load(spec, state) for spec in specs or (Path("study.toml"),)]
    if watch:
        return reporting.follow(studies, out)
    if check_only:
        return reporting.check_claims(studies[0], as_json)
    return reporting.print_figures(studies) if as_json else reporting.write(studies, out)


from lorafile import cli_data, cli_export, cli_models, cli_review, cli_show, cli_state  # noqa: E402, F401  (commands)
