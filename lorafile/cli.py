"""The command line: each command parses, calls, and hands what came to a view."""

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lorafile import __version__
from lorafile.errors import LoraError

spec_argument = click.argument("spec", type=click.Path(path_type=Path), default="study.toml")
state_option = click.option(
    "--state", type=click.Path(path_type=Path), help="The state's directory. [default: LORA_STATE, or .lora]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", is_flag=True, help="Print errors alone.")


class _Group(click.Group):
    """Commands whose wrong usage ends with 64, so that a typo in CI is never read as a plan with changes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; every failure that the user can mend is one sentence and an exit code."""
        kwargs["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **kwargs) or 0)
        except click.exceptions.Exit as end:
            sys.exit(end.exit_code)
        except click.UsageError as error:
            error.show()
            sys.exit(64)
        except click.ClickException as error:
            error.show()
            sys.exit(1)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read us has seen enough
            sys.exit(0)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lora")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Terraform for LoRA studies: declare adapters in TOML, plan what is missing, train only that, report.

    \b
    Example: lora init && lora apply && lora report
    """
    context.obj = debug


def command(name: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command whose LoraErrors are sentences; it returns its exit code."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        @click.pass_context
        def run(context: click.Context, *args: Any, **kwargs: Any) -> int:
            try:
                return function(*args, **kwargs) or 0
            except LoraError as error:
                if context.obj:
                    raise
                click.echo(str(error), err=True)
                return error.exit_code
            except BrokenPipeError:
                raise
            except OSError as error:
                if context.obj:
                    raise
                click.echo(f"{error.filename or 'The system'}: {error.strerror or error}", err=True)
                return 1
            except Exception as error:
                if context.obj:
                    raise
                told = f"{type(error).__name__}: {error}"
                click.echo(
                    f"This is a mistake in lorafile, not in your spec: {told}. See it with: lora --debug {name} …",
                    err=True,
                )
                return 1

        return main.command(name)(run)

    return decorate


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
@click.option("--gpu", help="Say whether it fits a GPU of this much memory, for example 24GB.")
@click.option("--full", is_flag=True, help="Show every node.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 2 when there is something to do.")
@json_option
@quiet_option
def plan(
    spec: Path, state: Path | None, gpu: str | None, full: bool, detailed_exitcode: bool, as_json: bool, quiet: bool
) -> int:
    """Show what an apply would do, why, for how long, and whether it fits. Writes nothing.

    \b
    Example: lora plan study.toml --gpu 24GB
    """
    from lorafile import views
    from lorafile.study import Study

    planned = Study.load(spec, state).plan(gpu)
    if as_json:
        click.echo(views.plan_json(planned))
    else:
        views.show_plan(planned, views.console(quiet), full, f"a GPU of {gpu}" if gpu else "")
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
@click.option("--lock-timeout", type=float, default=0.0, help="Seconds to wait for another apply on the same state.")
@quiet_option
def apply(spec: Path, state: Path | None, yes: bool, workers: int | None, lock_timeout: float, quiet: bool) -> int:
    """Train, predict and measure what is missing, and nothing else.

    \b
    Example: lora apply study.toml --yes
    """
    from lorafile import progress, views
    from lorafile.study import Study

    study = Study.load(spec, state)
    out = views.console(quiet)
    planned = study.plan()
    views.show_plan(planned, out)
    if not planned.work:
        if planned.summary()["undeclared"]:
            study.apply(planned, lock_timeout=lock_timeout)  # notes what the study declares now
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise LoraError("Nobody is there to approve the plan: pass --yes.")
        if input("Do this? Only 'yes' is taken for yes: ").strip() != "yes":
            click.echo("Nothing was done.")
            return 1
    watcher = (progress.Bars if out.is_terminal else progress.Lines)(planned, out)
    with watcher:
        applied = study.apply(planned, workers=workers, lock_timeout=lock_timeout, watchers=[watcher])
    views.show_applied(applied, out)
    if applied.interrupted:
        return 130
    return 1 if applied.with_outcome("failed") or applied.with_outcome("interrupted") else 0


@command("report")
@spec_argument
@state_option
@click.option("--out", type=click.Path(path_type=Path), help="Where to. [default: report.path of the spec]")
@json_option
def report(spec: Path, state: Path | None, out: Path | None, as_json: bool) -> int:
    """Write report.html and RESULTS.md from what is finished, or print every figure as JSON.

    \b
    Example: lora report study.toml
    """
    from lorafile.analysis import analyses
    from lorafile.report import figures, write_report
    from lorafile.study import Study

    study = Study.load(spec, state)
    results = study.gather()
    found = analyses(results, study.spec.tables.analysis)
    if as_json:
        click.echo(json.dumps(figures(results, found), indent=2, allow_nan=False))
        return 0
    for file in write_report(results, found, out or spec.parent / study.spec.tables.report.path):
        click.echo(f"Wrote {file}")
    return 0
