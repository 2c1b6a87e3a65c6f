"""The terminal that every view prints to, and what all of them print alike."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from lorafile.cli.terminal import breaks, printable
from lorafile.plan.plan import Action
from lorafile.units import and_more

FORMAT_VERSION = "1.0"  # of the JSON that commands print
_HANGING = 2  # characters by which the second line of a text is indented further
_NARROWEST = 20  # characters of text in a line, however narrow the terminal is
_UNBROKEN = 10_000  # characters of a line off a terminal
MOST = 12  # items of a list that are shown one by one
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
    """Rich's console, which obeys no control character that stands in what it shows, and cuts no word."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; on a terminal text wraps at its words, and what is indented goes on under its own beginning."""
        if self.is_terminal:
            markup = options.get("markup")
            objects = tuple(self._wrapped(item, markup) if isinstance(item, str) else item for item in objects)
            options = {"overflow": "ignore", "crop": False, **options}  # a path without spaces stays one word
        super().print(*objects, **options)

    def _wrapped(self, content: str, markup: bool | None) -> Text:
        lines: list[Text] = []
        for line in self.render_str(content, markup=markup).split("\n", allow_blank=True):
            text = line.plain
            indent = len(text) - len(text.lstrip(" "))
            starts = breaks(text, max(_NARROWEST, self.width - indent - _HANGING)) if line.cell_len > self.width else []
            first, *rest = line.divide(starts)
            lines += [first, *(Text(" " * (indent + _HANGING)) + part for part in rest)]
        for line in lines:
            line.rstrip()
        return Text("\n").join(lines)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of what is shown; the console's own control codes are pieces by themselves."""
        for piece in super().render(renderable, options):
            ours = piece.control or piece.text == "\r" or piece.text.isprintable()
            yield piece if ours else Segment(printable(piece.text), piece.style)


def console(quiet: bool = False, stderr: bool = False) -> Console:
    """Return the terminal; off a terminal lines are never broken and nothing is coloured."""
    options: dict[str, Any] = {"highlight": False, "emoji": False, "quiet": quiet, "stderr": stderr}
    out = _Terminal(**options)
    return out if out.is_terminal else _Terminal(**options, soft_wrap=True, no_color=True, width=_UNBROKEN)


def show_warnings(warnings: Iterable[str], out: Console) -> None:
    """Show what you have to know first, or last."""
    for warning in warnings:
        out.print(f"[yellow]Warning:[/] {escape(warning)}")


def show_section(title: str, lines: Sequence[str], out: Console) -> None:
    """Show plain lines under a title, if there are any.

    :param title: as markup; empty for lines that continue what stands above
    """
    if title and lines:
        out.print(f"[bold]{title}[/]")
    for line in lines:
        out.print(escape(f"  {line}"))


def show_first(lines: Sequence[str], out: Console, more: str = "", style: str | None = None) -> None:
    """Show the first of many lines, and how many more there are.

    :param lines: as markup
    :param more: what to say of the rest
    """
    for line in lines[:MOST]:
        out.print(f"  {line}", style=style)
    if len(lines) > MOST:
        out.print(f"  {and_more(len(lines), MOST, more)}", style=style)


def json_text(content: dict[str, Any]) -> str:
    """Return documented JSON: with the version of its format, and null for what is no finite number."""
    return json.dumps(finite({"format_version": FORMAT_VERSION, **content}), indent=2, allow_nan=False)


def finite(value: Any) -> Any:
    """Return a value for JSON: null for what is no finite number."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
