"""What every command shares: the group with its exit codes, and the options that several of them take."""

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lorafile import __version__
from lorafile.cli.status_line import status_line
from lorafile.cli.terminal import echo_error
from lorafile.errors import LoraError, StateError

PATH = click.Path(path_type=Path)
spec_argument = click.argument("spec", type=PATH, default="study.toml")
state_option = click.option(
    "--state",
    type=PATH,
    metavar="DIRECTORY|URL",
    help="The state: a directory, or s3://BUCKET/PREFIX (also gs://, az://, file://). [default: LORA_STATE, or .lora]",
)
spec_option = click.option("--spec", type=PATH, help="The study that is meant, where several have the name.")
study_option = click.option("--spec", type=PATH, default="study.toml", show_default=True, help="The study.")
_timeout_option = click.option(
    "--lock-timeout", type=float, default=0.0, help="Seconds to wait while an apply holds the state."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
markdown_option = click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
_SEEDS = 20  # of a stage, at most, unless --max-seeds says otherwise
rehash_option = click.option("--rehash", is_flag=True, help="Read weights although their digests are known.")
cluster_option = click.option(
    "--cluster",
    metavar="NAME",
    envvar="LORA_CLUSTER",
    help="Where the work runs: a [cluster.NAME] of lora.toml, ray, or slurm. [default: this machine]",
)
quiet_option = click.option("--quiet", is_flag=True, help="Print errors alone.")
atexit.register(gc.freeze)  # what is left goes with the process: no need to look for cycles in it first
_kept: list[Any] = []


def keep_until_exit(made: Any) -> None:
    """Keep what a command made until its process ends: to free a plan piece by piece takes 6 % of a large one's time.

    It is kept in a cycle, which `gc.freeze` keeps from being taken apart when the interpreter ends.
    """
    _kept[:] = [_kept, made]


def _set_lock_mode(_context: click.Context, _option: click.Parameter, mode: str) -> None:
    if mode == "none":
        from lorafile.state.remote.lock import lock_mode

        lock_mode.set(mode)


_lock_mode_option = click.option(
    "--state-lock",
    type=click.Choice(["lease", "none"]),
    default="lease",
    expose_value=False,
    callback=_set_lock_mode,
    help="none: write to a bucket without conditional writes; make sure that no one else does. [default: lease]",
)


def lock_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--lock-timeout`; it gets `lock_timeout`, in seconds. `--state-lock` holds for its process."""
    return _timeout_option(_lock_mode_option(function))


def resolve_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--resolve` and `--max-seeds`; it gets `resolve`, the most seeds, or None without the flag."""

    @click.option("--resolve", is_flag=True, help="Plan a stage of seeds that decides what is open.")
    @click.option("--max-seeds", "most", type=click.IntRange(1, 1000), help="Most seeds of that stage. [default: 20]")
    @wraps(function)
    def run(*args: Any, resolve: bool, most: int | None, **kwargs: Any) -> Any:
        if most is not None and not resolve:
            raise click.UsageError("--max-seeds is read by --resolve, which is not given.")
        return function(*args, resolve=(most or _SEEDS) if resolve else None, **kwargs)

    return run


def price_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--price`; it gets `hourly`, what an hour of one device costs, or None."""

    @click.option(
        "--price",
        "text",
        metavar="PRICE",
        help="What an hour of one GPU costs: 2.50/h, '$2.50/h', '2.50 EUR/h'.",
    )
    @wraps(function)
    def run(*args: Any, text: str | None, **kwargs: Any) -> Any:
        from lorafile.plan.clusters.machines import price_of_an_hour

        hourly = None if text is None else price_of_an_hour(text, "--price")
        return function(*args, hourly=hourly, **kwargs)

    return run


def budget_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--price`, `--max-hours` and `--max-cost`; it gets `hourly`, and `limits`: hours, money."""

    @price_option
    @click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="End before so many hours have passed.")
    @click.option("--max-cost", type=click.FloatRange(0, min_open=True), help="End before so much is paid, by --price.")
    @wraps(function)
    def run(*args: Any, max_hours: float | None, max_cost: float | None, **kwargs: Any) -> Any:
        return function(*args, limits=(max_hours, max_cost), **kwargs)

    return run


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take what selects a part of a study; it gets `selected`, the arguments of `Study.plan`."""

    def option(name: str, words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return click.option(name, multiple=True, metavar="PATTERN", help=words)

    @option("--target", "Only nodes of this address or configuration, as in 'rank/*', and what they read. Repeatable.")
    @option("--exclude", "Without nodes of this address or configuration, and what reads them. Repeatable.")
    @option("--replace", "Do the nodes of this address again although they are finished. Repeatable.")
    @click.option("--rerun-drifted", is_flag=True, help="Do again what was done in another environment.")
    @click.option("--refresh", is_flag=True, help="Look at models and data afresh, on the hub too.")
    @rehash_option
    @cluster_option
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # A saved plan says itself which cluster it is of, and `Study.approved` finds that one's state.
        if kwargs["cluster"] and kwargs["state"] is None:
            from lorafile.plan.clusters.config import find_cluster
            from lorafile.plan.planfile import is_plan

            if not is_plan(kwargs["spec"]):
                kwargs["state"] = find_cluster(kwargs["cluster"], kwargs["spec"]).state
        names = ("target", "exclude", "replace", "rerun_drifted", "refresh", "rehash", "cluster")
        selected = {name: kwargs.pop(name) for name in names}
        return function(*args, selected={name: value for name, value in selected.items() if value}, **kwargs)

    return run


def _terminate(_number: int, _frame: object) -> None:
    """End a command as Ctrl-C does; an apply, while it works, has a handler of its own."""
    raise KeyboardInterrupt


class _Group(click.Group):
    """Commands whose wrong usage ends with 64, so that a typo in CI is never read as a plan with changes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; every failure that the user can mend is one sentence and an exit code."""
        kwargs["standalone_mode"] = False
        # A plan keeps nearly all that it makes: to look for cycles after every 700 objects took a third of its time.
        gc.set_threshold(5_000_000, 20, 100)
        ours = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _terminate) if ours else None
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
            echo_error("Interrupted.")
            sys.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has closed the pipe
            sys.exit(0)
        finally:
            if ours:
                signal.signal(signal.SIGTERM, before)


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


def _log_to_stderr(quiet: bool) -> None:
    """Print on stderr what the state logs: for whom it waits, and how fresh what it has of a remote is."""
    import logging

    class Stderr(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            echo_error(record.getMessage())

    logger = logging.getLogger("lorafile")
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    if not logger.handlers:
        logger.addHandler(Stderr())


def _damage(state: Path | None) -> str:
    """Return what is wrong with the state, where damaged rows explain a failure."""
    from lorafile.state import State
    from lorafile.state.integrity.rows_check import describe_damage, read_rows
    from lorafile.study.study import state_directory

    directory = state_directory(state)
    try:
        damages = describe_damage(read_rows(State.read(directory)))
    except Exception as error:
        damages = [str(error)]
    return f"The state {directory} is damaged: {damages[0]}. `lora state verify` names all that is." if damages else ""


def _explain(error: Exception, name: str, state: Path | None) -> tuple[str, int]:
    """Return the sentence and the exit code of a command that failed."""
    if isinstance(error, LoraError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error.filename or 'The system'}: {error.strerror or error}", 1
    if damage := _damage(state):
        return damage, StateError.exit_code
    from lorafile.engine.data.hub import hide_tokens

    bug = hide_tokens(f"{type(error).__name__}: {error}")
    return f"This is a mistake in lorafile, not in your spec: {bug}. See it with: lora --debug {name} …", 1


def command(name: str, group: click.Group | None = None) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command whose LoraErrors are sentences; it returns its exit code."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        @click.pass_context
        def run(context: click.Context, *args: Any, **kwargs: Any) -> int:
            if "lock_timeout" in kwargs or "state" in kwargs:
                _log_to_stderr(kwargs.get("quiet", False))
            try:
                with status_line():
                    return function(*args, **kwargs) or 0
            except Exception as error:
                if context.obj or isinstance(error, (BrokenPipeError, click.ClickException)):
                    raise
                sentence, exit_code = _explain(error, name, kwargs.get("state"))
                echo_error(sentence)
                return exit_code

        return (group or main).command(name)(run)

    return decorate
