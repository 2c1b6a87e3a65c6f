"""What every command shares: the group with its exit codes, and the options that several of them take."""

import atexit
import gc
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from lorafile import __version__
from lorafile.cli.completion import complete_names
from lorafile.cli.status_line import status_line
from lorafile.cli.terminal import echo, echo_error
from lorafile.errors import ArgumentError, LoraError, StateError, install_command

PATH = click.Path(path_type=Path)
spec_argument = click.argument("spec", type=PATH, default="study.toml")
state_option = click.option(
    "--state",
    type=PATH,
    metavar="DIRECTORY|URL",
    help="State: a directory or s3://BUCKET/PREFIX (also gs://, az://, file://). [default: LORA_STATE, or .lora]",
)
spec_option = click.option("--spec", type=PATH, help="The spec, if several studies have the name.")
study_option = click.option("--spec", type=PATH, default="study.toml", show_default=True, help="The spec.")
_timeout_option = click.option(
    "--lock-timeout", type=float, default=0.0, help="Seconds to wait if another command has locked the state."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
markdown_option = click.option("--markdown", is_flag=True, help="Print Markdown for a pull request.")
_SEEDS = 20  # of a stage, at most, unless --max-seeds says otherwise
rehash_option = click.option("--rehash", is_flag=True, help="Hash weights again even if their digests are cached.")
cluster_option = click.option(
    "--cluster",
    metavar="NAME",
    envvar="LORA_CLUSTER",
    help="Where to run: a [cluster.NAME] from lora.toml, ray, or slurm. [default: this machine]",
)
quiet_option = click.option("--quiet", is_flag=True, help="Print only errors.")
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
    help="How to lock a bucket. none: for storage without conditional writes; make sure that no one else writes.",
)


def lock_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--lock-timeout`; it gets `lock_timeout`, in seconds. `--state-lock` holds for its process."""
    return _timeout_option(_lock_mode_option(function))


def resolve_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--resolve` and `--max-seeds`; it gets `resolve`, the most seeds, or None without the flag."""

    @click.option("--resolve", is_flag=True, help="Plan the extra seeds that would settle inconclusive comparisons.")
    @click.option(
        "--max-seeds", "most", type=click.IntRange(1, 1000), help="Maximum number of seeds for --resolve. [default: 20]"
    )
    @wraps(function)
    def run(*args: Any, resolve: bool, most: int | None, **kwargs: Any) -> Any:
        if most is not None and not resolve:
            raise click.UsageError("--max-seeds requires --resolve.")
        return function(*args, resolve=(most or _SEEDS) if resolve else None, **kwargs)

    return run


def price_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--price`; it gets `hourly`, what an hour of one device costs, or None."""

    @click.option(
        "--price",
        "text",
        metavar="PRICE",
        help="Price of one GPU: 2.50/h, '$2.50/h', '2.50 EUR/h'.",
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
    @click.option(
        "--max-hours", type=click.FloatRange(0, min_open=True), help="Stop before this many hours have passed."
    )
    @click.option(
        "--max-cost", type=click.FloatRange(0, min_open=True), help="Stop before this much is spent, at --price."
    )
    @wraps(function)
    def run(*args: Any, max_hours: float | None, max_cost: float | None, **kwargs: Any) -> Any:
        return function(*args, limits=(max_hours, max_cost), **kwargs)

    return run


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take what selects a part of a study; it gets `selected`, the arguments of `Study.plan`."""

    def option(name: str, words: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return click.option(name, multiple=True, metavar="PATTERN", help=words, shell_complete=complete_names)

    @option("--target", "Only these configurations or nodes ('rank/*') and their dependencies. Repeatable.")
    @option("--exclude", "All except these configurations or nodes and their dependents. Repeatable.")
    @option("--replace", "Rerun these configurations or nodes, even if finished. Repeatable.")
    @click.option("--rerun-drifted", is_flag=True, help="Rerun results from another environment (versions, device).")
    @click.option("--refresh", is_flag=True, help="Resolve models and data again, including on the hub.")
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


# The sections of `lora --help`, with their commands.
_SECTIONS = {
    "Study": ("init", "validate", "lock", "plan", "apply", "diff", "graph"),
    "Results": ("report", "show", "chat", "export"),
    "Models and data": ("data", "fetch", "evaluate", "import", "trainer"),
    "State and clusters": ("state", "clusters"),
    "Set-up": ("methods", "schema", "completion"),
}
# The page of the documentation for a command, or for a group of commands.
_PAGES = {
    "init": "docs/spec-reference.md",
    "validate": "docs/spec-reference.md",
    "methods": "docs/coverage.md",
    "schema": "docs/spec-reference.md",
    "plan": "docs/forecast.md",
    "diff": "docs/review.md",
    "report": "docs/reporting.md",
    "data": "docs/data.md",
    "state": "docs/state.md",
    "clusters": "docs/clusters.md",
    "trainer": "docs/trainers.md",
}


def _page(name: str) -> str:
    return f"Documentation: {_PAGES.get(name, 'docs/commands.md')}"


class _Group(click.Group):
    """Commands in sections; wrong usage ends with 64, so that a typo in CI is never read as a plan with changes."""

    group_class = type  # groups of groups are made alike

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; without any, print the help to stdout and end with 0."""
        return super().parse_args(context, args or ["--help"])

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries of the commands, whole, by section."""
        names = self.list_commands(context)
        sections = _SECTIONS if self is context.find_root().command else {"Commands": tuple(names)}
        column = max(map(len, names)) + 2
        for title, members in sections.items():
            commands = [(name, self.commands[name]) for name in members]
            with formatter.section(title):
                rows = [(name.ljust(column - 2), command.get_short_help_str(200)) for name, command in commands]
                formatter.write_dl(rows)

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


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            torch = f"torch {version('torch')}"
        except PackageNotFoundError:
            torch = f"no torch; to train: {install_command()}"
        echo(f"lora {__version__} (Python {platform.python_version()}, {torch})")
        context.exit()


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(cls=_Group, context_settings=_CONTEXT, epilog=_page(""))
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show versions and exit."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Terraform for LoRA studies: plan, train what is missing, report.

    Declare adapters in a TOML spec, see what would be trained, train only that, and get a report with verdicts.

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


# Arguments of functions whose options are called otherwise.
_OPTIONS = {"difference": "detect", "splits": "split"}


def _damage(state: Path | None) -> str:
    """Return what is wrong with the state, where damaged rows explain a failure."""
    from lorafile.state import State
    from lorafile.state.integrity.rows_check import describe_damage, read_rows
    from lorafile.study.study import state_directory

    directory = state_directory(state)
    try:
        damages = describe_damage(read_rows(State.read(directory)))
    except StateError as error:
        return str(error)
    except Exception as error:
        damages = [str(error)]
    return f"The state {directory} is damaged: {damages[0]}. `lora state verify` lists all damage." if damages else ""


def _explain(error: Exception, name: str, state: Path | None) -> tuple[str, int]:
    """Return the sentence and the exit code of a command that failed."""
    if isinstance(error, ArgumentError):
        option = _OPTIONS.get(error.argument, error.argument).replace("_", "-")
        return f"--{option}: {error.reason}", error.exit_code
    if isinstance(error, LoraError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error.filename or 'The system'}: {error.strerror or error}", 1
    if damage := _damage(state):
        return damage, StateError.exit_code
    from lorafile.engine.data.hub import hide_tokens

    bug = hide_tokens(f"{type(error).__name__}: {error}")
    return f"This is a bug in lorafile, not in your spec: {bug}. For a traceback, run: lora --debug {name} …", 1


def group(name: str) -> Callable[[Callable[..., None]], click.Group]:
    """Make a group of commands."""
    return main.group(name, epilog=_page(name))


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

        return (group or main).command(name, epilog=_page((group and group.name) or name))(run)

    return decorate
