"""`lora state verify` and `gc`: whether everything is as it was stored, and what can go."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorafile.cli.command import command, json_option, quiet_option, state_option
from lorafile.cli.state import lock_option, state_group, yes_option
from lorafile.cli.terminal import say

if TYPE_CHECKING:
    from rich.console import Console


@command("verify", state_group)
@click.option("--repair", is_flag=True, help="Mend what can be mended, and let the next apply make the rest again.")
@state_option
@lock_option
@json_option
@quiet_option
def verify(repair: bool, state: Path | None, lock_timeout: float, as_json: bool, quiet: bool) -> int:
    """Check every object against its digest and every row of the index; ends with 4 where something is damaged.

    With --repair damaged files are taken away, and what they belonged to is made again by the next apply: a score from
    its predictions, without a GPU. Of a damaged index every sound row is saved into a new one; the old one is kept.

    \b
    Example: lora state verify --repair
    """
    from lorafile.cli.views import plan
    from lorafile.cli.views import state_verify as views_state_care
    from lorafile.state.integrity import verify as state_verify
    from lorafile.state.integrity.repair import repair as mend
    from lorafile.study.study import state_directory

    out = plan.console(quiet or as_json)
    with _bar(out) as tell:
        if not repair:
            found = state_verify.verify(state_directory(state), tell)
            done = None
        else:
            done = mend(state_directory(state), lock_timeout, tell)
            found = done.found
    if as_json:
        say(views_state_care.verified_json(found, done))
    else:
        views_state_care.show_verified(found, out)
        if done is not None:
            views_state_care.show_repaired(done, out)
    return 0 if found.sound or (done is not None and not found.unreadable) else 4


@command("gc", state_group)
@click.argument("specs", nargs=-1, type=click.Path(path_type=Path))
@state_option
@yes_option
@lock_option
@json_option
def gc(specs: tuple[Path, ...], state: Path | None, yes: bool, lock_timeout: float, as_json: bool) -> int:
    """Show which files no study in SPECS declares, and what they take; with --yes they go.

    Without SPECS: what no study declared when it was last applied. What was done, and its figures, stay on record.

    \b
    Example: lora state gc study.toml other/study.toml --yes
    """
    from lorafile.cli.views import plan
    from lorafile.cli.views import state_verify as views_state_care
    from lorafile.state import State
    from lorafile.state.gc import garbage, needed_keys, sweep
    from lorafile.study.study import Study, state_directory

    studies = [Study.load(spec, state) for spec in specs]
    directory = state_directory(state)

    def declared() -> set[str]:
        return {key for study in studies for key in study.plan().graph.nodes}

    keys = declared if studies else None
    if yes:
        found = sweep(directory, keys, lock_timeout)
    else:
        found = State.snapshot(directory, lambda stored: garbage(stored, needed_keys(stored, keys)))
    if as_json:
        say(views_state_care.garbage_json(found, yes))
    else:
        views_state_care.show_garbage(found, yes, plan.console())
    return 0


@contextlib.contextmanager
def _bar(out: "Console") -> Iterator[Callable[[int, int], None] | None]:
    """Show how far a long look has come, on a terminal."""
    if not out.is_terminal or out.quiet:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("checking"), *columns, console=out, transient=True) as progress:
        task = progress.add_task("checking", total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)
