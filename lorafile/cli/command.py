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
from lorafile.cli.terminal import echo_error
from lorafile.errors import LoraError, StateError

spec_argument = click.argument("spec", type=click.Path(path_type=Path), default="study.toml")
state_option = click.option(
    "--state", type=click.Path(path_type=Path), help="The state's directory. [default: LORA_STATE, or .lora]"
)
spec_option = click.option(
    "--spec", type=click.Path(path_type=Path), help="The study that is meant, where several have the name."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
markdown_option = click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
_SEEDS = 20  # of a stage, at most, unless somebody says otherwise
quiet_option = click.option("--quiet", is_flag=True, help="Print errors alone.")
atexit.register(gc.freeze)  # what is left goes with the process: nobody need look for cycles in it first
_kept: list[Any] = []


def keep_until_exit(made: Any) -> None:
    """Keep what a command made until its process ends: to free a plan piece by piece takes 6 % of a large one's time.

    It is kept in a cycle, which `gc.freeze` keeps from being taken apart when the interpreter ends.
    """
    _kept[:] = [_kept, made]


def resolve_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--resolve` and `--max-seeds`; it gets `resolve`, the most seeds, or None without the flag."""

    @click.option("--resolve", "wanted", is_flag=True, help="Plan a stage of seeds that decides what is open.")
    @click.option("--max-seeds", "most", type=click.IntRange(1, 1000), help="Most seeds of that stage. [default: 20]")
    @wraps(function)
    def run(*args: Any, wanted: bool, most: int | None, **kwargs: Any) -> Any:
        if most is not None and not wanted:
            raise click.UsageError("--max-seeds is read by --resolve, which is not given.")
        return function(*args, resolve=(most or _SEEDS) if wanted else None, **kwargs)

    return run


def price_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--price`; it gets `hourly`, what an hour of one device costs, or None."""

    @click.option("--price", "text", metavar="PRICE", help="What an hour of one GPU costs, as in 2.50/h.")
    @wraps(function)
    def run(*args: Any, text: str | None, **kwargs: Any) -> Any:
        from lorafile.plan.cost import price

        return function(*args, hourly=None if text is None else price(text), **kwargs)

    return run


def budget_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take `--price`, `--max-hours` and `--max-cost`; it gets `hourly`, and `budget` or None."""

    @price_option
    @click.option("--max-hours", type=click.FloatRange(0, min_open=True), help="End before so many hours have passed.")
    @click.option("--max-cost", type=click.FloatRange(0, min_open=True), help="End before so much is paid, by --price.")
    @wraps(function)
    def run(*args: Any, hourly: float | None, max_hours: float | None, max_cost: float | None, **kwargs: Any) -> Any:
        from lorafile.apply.budget import Budget

        return function(*args, hourly=hourly, budget=Budget.of(max_hours, max_cost, hourly), **kwargs)

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
    @wraps(function)
    def run(
        *args: Any,
        target: tuple[str, ...],
        exclude: tuple[str, ...],
        replace: tuple[str, ...],
        rerun_drifted: bool,
        refresh: bool,
        **kwargs: Any,
    ) -> Any:
        selected: dict[str, Any] = {"target": target, "exclude": exclude, "replace": replace}
        selected |= {"rerun_drifted": rerun_drifted, "refresh": refresh}
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
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read us has seen enough
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


def _tell_who_is_waited_for(quiet: bool) -> None:
    """Let what the state logs while it waits for its lock stand on stderr."""
    import logging

    class Stderr(logging.Handler):
        """Lines as the command's other ones are."""

        def emit(self, record: logging.LogRecord) -> None:
            echo_error(record.getMessage())

    logger = logging.getLogger("lorafile")
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    if not logger.handlers:
        logger.addHandler(Stderr())


def _damage(named: Path | None) -> str:
    """Return what is wrong with the state, where rows that are not as they were written explain a failure."""
    from lorafile.state import State
    from lorafile.state.integrity.rows_check import describe_damage, read_rows
    from lorafile.study.study import state_directory

    directory = state_directory(named)
    try:
        found = describe_damage(read_rows(State.read(directory)))
    except Exception as error:
        found = [str(error)]
    return f"The state {directory} is damaged: {found[0]}. `lora state verify` names all that is." if found else ""


def command(name: str, group: click.Group | None = None) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command whose LoraErrors are sentences; it returns its exit code."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        @click.pass_context
        def run(context: click.Context, *args: Any, **kwargs: Any) -> int:
            if "lock_timeout" in kwargs:
                _tell_who_is_waited_for(kwargs.get("quiet", False))
            try:
                return function(*args, **kwargs) or 0
            except LoraError as error:
                if context.obj:
                    raise
                echo_error(str(error))
                return error.exit_code
            except (BrokenPipeError, click.ClickException):
                raise
            except OSError as error:
                if context.obj:
                    raise
                echo_error(f"{error.filename or 'The system'}: {error.strerror or error}")
                return 1
            except Exception as error:
                if context.obj:
                    raise
                if damage := _damage(kwargs.get("state")):
                    echo_error(damage)
                    return StateError.exit_code
                from lorafile.engine.data.hub import hide_tokens

                told = hide_tokens(f"{type(error).__name__}: {error}")
                echo_error(
                    f"This is a mistake in lorafile, not in your spec: {told}. See it with: lora --debug {name} …"
                )
                return 1

        return (group or main).command(name)(run)

    return decorate
