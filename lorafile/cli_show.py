"""`lora show`: a configuration, a run or one node, from its settings to its loss curve, live while it trains."""

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
    from lorafile.history import history
    from lorafile.state import State
    from lorafile.study import Study, state_directory

    study = Study.load(spec, state) if spec else None
    stored = State.read(study.state if study else state_directory(state))
    out = views.console()
    about = showing.configuration(stored, name, study)
    if about is not None:
        if as_json:
            click.echo(views_runs.configuration_json(about))
        else:
            views_runs.show_configuration(about, out)
        return 0
    found = history(stored, name)
    if follow and not as_json:
        found = _follow(found, stored, out)
    scores = showing.scores(stored, found.address) if found.kind == "train" else {}
    some = showing.predictions(stored, found.address, predictions) if predictions else []
    if as_json:
        click.echo(views_history.history_json(found, scores, some))
    else:
        views_history.show_history(found, out)
        views_runs.show_results(scores, some, out)
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
