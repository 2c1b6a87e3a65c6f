"""`lora show`: a configuration, a run or one node, from its settings to its loss curve, live while it trains."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorafile.command import command, json_option, state_option
from lorafile.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from lorafile.history import History
    from lorafile.showing import ShownConfiguration
    from lorafile.state import State

    Node = tuple[History, dict[str, float], list[dict[str, Any]]]  # with its scores, and its first predictions

_LOOK_SECONDS = 1.0


@command("show")
@click.argument("name")
@state_option
@click.option("--spec", type=click.Path(path_type=Path), help="The study that is meant; its verdicts are shown, too.")
@click.option("--predictions", type=click.IntRange(0), default=0, help="Show so many predictions of a run.")
@click.option("--follow", is_flag=True, help="Show the loss of a run that trains now, until it ends.")
@json_option
def show(name: str, state: Path | None, spec: Path | None, predictions: int, follow: bool, as_json: bool) -> int:
    """Show a configuration, a run, or any node by its address or the beginning of its key.

    A configuration: its seeds, mean ± standard deviation, costs and settings; with --spec its verdicts. A run: its
    settings, attempts, scores, predictions, and the loss as a line.

    \b
    Example: lora show rank/r=16/seed=42 --predictions 3
    """
    from lorafile import showing, views, views_history, views_runs
    from lorafile.state import State
    from lorafile.study import Study, state_directory

    study = Study.load(spec, state) if spec else None
    directory, out = study.state if study else state_directory(state), views.console()

    def look(stored: State) -> "ShownConfiguration | Node":
        return showing.configuration(stored, name, study) or _node(stored, name, predictions)

    about = State.at_one_moment(directory, look)
    if isinstance(about, showing.ShownConfiguration):
        if as_json:
            say(views_runs.configuration_json(about))
        else:
            views_runs.show_configuration(about, out)
        return 0
    if follow and not as_json and about[0].standing == "running":
        key = _follow(about[0], directory, out).key
        about = State.at_one_moment(directory, lambda stored: _node(stored, key, predictions))
    found, scores, some = about
    if as_json:
        say(views_history.history_json(found, scores, some))
    else:
        views_history.show_history(found, out)
        views_runs.show_results(scores, some, out)
    return 0


def _node(state: "State", name: str, predictions: int) -> "Node":
    """Return what is known of a node, and of what came of it where it is a run."""
    from lorafile import showing
    from lorafile.history import history

    found = history(state, name)
    scores = showing.scores(state, found.address) if found.kind == "train" else {}
    return found, scores, showing.predictions(state, found.address, predictions) if predictions else []


def _follow(found: "History", directory: Path, out: "Console") -> "History":
    """Show the curve while the run trains: one line that changes on a terminal, a line each second elsewhere."""
    from lorafile.history import history
    from lorafile.state import State
    from lorafile.views_history import curve_line

    while found.standing == "running":
        if found.curve:
            out.print(curve_line(found), end="\r" if out.is_terminal else "\n", markup=False)
        time.sleep(_LOOK_SECONDS)
        found = history(State.read(directory), found.key)
    if out.is_terminal:
        out.print()
    return found
