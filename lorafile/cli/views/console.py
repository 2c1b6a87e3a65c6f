"""The terminal that every view prints to, and what all of them print alike."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from lorafile.cli.terminal import printable
from lorafile.plan.plan import Action

FORMAT_VERSION = "1.0"  # of the JSON that commands print
SYMBOLS = {
    Action.RUN: "+",
    Action.REUSE: "=",
    Action.RETRY: "~",
    Action.DRIFT: "!",
    Action.BLOCKED: "x",
    Action.UNDECLARED: "-",
}
COLOURS = {
    Action.RUN: "green",
    Action.RETRY: "yellow",
    Action.DRIFT: "magenta",
    Action.BLOCKED: "red",
    Action.UNDECLARED: "dim",
}


class _Terminal(Console):
    """Rich's console, which obeys no control character that stands in what it shows."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of what is shown; the console's own control codes are pieces by themselves."""
        for piece in super().render(renderable, options):
            ours = piece.control or piece.text == "\r" or piece.text.isprintable()
            yield piece if ours else Segment(printable(piece.text), piece.style)


def console(quiet: bool = False, stderr: bool = False) -> Console:
    """Return the terminal; off a terminal lines are never broken and nothing is coloured."""
    out = _Terminal(quiet=quiet, stderr=stderr, highlight=False, emoji=False, soft_wrap=True)
    return (
        out
        if out.is_terminal
        else _Terminal(
            quiet=quiet, stderr=stderr, highlight=False, emoji=False, no_color=True, width=200, soft_wrap=True
        )
    )


def show_warnings(warnings: Iterable[str], out: Console) -> None:
    """Show what a reader has to know first, or last."""
    for warning in warnings:
        out.print(f"[yellow]Warning:[/] {escape(warning)}")
