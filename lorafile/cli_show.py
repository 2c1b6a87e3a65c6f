"""`lora show`: one node, from its settings to its loss curve, while it trains and afterwards."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorafile.command import command, json_option, state_option

if TYPE_CHECKING:
    from rich.console import Console

    from lorafile.history import History
    from lorafile.state import State

_LOOK_SECONDS = 1.0


@command("show")
@click.argument("node")
@state_option
@click.option("--follow", is_flag=True, help="Show the loss of a run that trains now, until it ends.")
@json_option
def show(node: str, state: Path | None, follow: bool, as_json: bool) -> int:
    """Show a node by its address, its run's, or the beginning of its key: settings, attempts, figures, loss curve.

    \b
    Example: lora show rank/r=16/seed=42
    """
    from lorafile import views, views_history
    from lorafile.history import history
    from lorafile.state import State
    from lorafile.study import state_directory

    stored = State.read(state_directory(state))
    found = history(stored, node)
    out = views.console()
    if follow and not as_json:
        found = _follow(found, stored, out)
    if as_json:
        click.echo(views_history.history_json(found))
    else:
        views_history.show_history(found, out)
    return 0


def _follow(found: "History", state: "State", out: "Console") -> "History":
    """Show the curve while the run trains: one line that changes on a terminal, a line each second elsewhere."""
    from lorafile.history import history
    from lorafile.views_history import curve_line

    while found.standing == "running":
        if found.curve:
            out.print(curve_line(found), end="\r" if out.is_terminal else "\n", markup=False)
        time.sleep(_LOOK_SECONDS)
        found = history(state, found.key)
    if out.is_terminal:
        out.print()
    return found
