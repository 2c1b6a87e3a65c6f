"""`lora show`: a configuration, a run or one node, from its settings to its loss curve, live while it trains."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorafile.cli.command import command, json_option, spec_option, state_option
from lorafile.cli.completion import complete_names
from lorafile.cli.terminal import echo

if TYPE_CHECKING:
    from rich.console import Console

    from lorafile.study.run_summary import ShownConfiguration, ShownNode

_POLL_SECONDS = 1.0


@command("show")
@click.argument("name", shell_complete=complete_names)
@state_option
@spec_option
@click.option("--predictions", type=click.IntRange(0), default=0, help="Number of predictions to show.")
@click.option("--follow", is_flag=True, help="Follow the loss of a run in progress until it ends.")
@json_option
def show(name: str, state: Path | None, spec: Path | None, predictions: int, follow: bool, as_json: bool) -> None:
    """Show a configuration, a run, or any node.

    NAME is a name, an address, or a key prefix. For a configuration, shows its seeds, mean ± standard deviation, costs
    and settings, and with --spec its verdicts. For a run, shows settings, attempts, scores, predictions, and the loss
    curve. If several studies have the name, pass --spec or the key.

    \b
    Example: lora show rank/r=16/seed=42 --predictions 3
    """
    from lorafile.cli.views.console import console, show_section
    from lorafile.cli.views.show import (
        configuration_json,
        history_json,
        show_configuration,
        show_history,
        show_results,
    )
    from lorafile.plan.names import declared, names_in, names_of
    from lorafile.state import State
    from lorafile.state.names import find_node
    from lorafile.study import run_summary
    from lorafile.study.study import spec_and_state

    (study_spec, directory), out = spec_and_state(spec, state), console()

    def read(stored: State) -> "ShownConfiguration | ShownNode":
        plan = declared(study_spec, stored) if study_spec else None
        names = names_in(plan, stored) if plan else names_of(stored)
        shown = run_summary.configuration(stored, names, name, plan)
        return shown or run_summary.node(stored, names, find_node(names, name), predictions)

    shown = State.snapshot(directory, read)
    if isinstance(shown, run_summary.ShownConfiguration):
        if as_json:
            echo(configuration_json(shown))
        else:
            show_configuration(shown, out)
        return
    if follow and not as_json and shown.history.standing == "running":
        _follow(shown, directory, out)
        followed = shown.named
        shown = State.snapshot(
            directory, lambda stored: run_summary.node(stored, names_of(stored, study_spec), followed, predictions)
        )
    if as_json:
        echo(history_json(shown.history, shown.scores, shown.predictions, shown.log))
    else:
        show_history(shown.history, out)
        show_section("End of its log", shown.log, out)
        show_results(shown.scores, shown.predictions, out)


def _follow(shown: "ShownNode", directory: Path, out: "Console") -> None:
    """Show the curve while the run trains: one line that changes on a terminal, a line each second elsewhere."""
    from lorafile.cli.views.show import curve_line
    from lorafile.state import State
    from lorafile.state.node_details import history

    run, width = shown.history, out.width if out.is_terminal else None
    while run.standing == "running":
        if run.curve:
            out.print(curve_line(run, width), end="\r" if out.is_terminal else "\n", markup=False)
        time.sleep(_POLL_SECONDS)
        run = history(State.read(directory), shown.named)
    if out.is_terminal:
        out.print()
