"""What is said of trackers: one line for each that got something, one warning for each that did not get everything."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from lorafile.apply.tracking.reporter import Tracked


def show_sending(runs: int, out: Console) -> None:
    """Say that something is sent although nothing is to be done."""
    out.print(f"Sending {_runs(runs)} that a tracker does not have; Ctrl-C leaves the rest to the next apply.")


def show_tracking(tracked: "Sequence[Tracked]", state: Path, out: Console) -> None:
    """Say what each tracker got, and why it did not get the rest."""
    for one in tracked:
        if one.sent:
            out.print(escape(f"Sent to {one.tracker} ({one.where}): {_runs(one.sent)}."))
        if one.left:
            why = f"tracking: {one.tracker} did not get {_runs(one.left)}: {one.problem.rstrip('.')}"
            log = state / "tracking" / f"{one.tracker}.log"
            remedy = f"The results are in the state, and the next apply sends them. What {one.tracker} said: {log}"
            out.print(f"[yellow]Warning:[/] {escape(f'{why}. {remedy}')}")


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
