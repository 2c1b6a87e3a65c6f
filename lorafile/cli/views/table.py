"""Tables that fit a terminal: nothing is cut inside a word, a number or a date.

What is the same in every row moves into one line above the table. Where there is no room for all columns, those that
can be read elsewhere go first, text wraps at its words, and names are shortened in the middle.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from lorafile.cli.terminal import breaks

_GAP = 2  # characters between columns
_NAME = 24  # characters that a name is given before columns are left out for it
_DOTS = "…"
_PARTS, _WORDS = re.compile(r"[/,]"), re.compile(r"[/,=+:]")  # where a name may be cut: better there, or there


@dataclass(frozen=True)
class Column:
    """One column.

    :ivar kind: `name` is shortened in the middle, `text` wraps at its words, a `value` is shown whole
    :ivar omit: where there is no room, columns go in this order; 0 stays
    :ivar styles: the first word of a cell -> its style
    """

    title: str
    kind: str = "value"
    right: bool = False
    omit: int = 0
    styles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedTable:
    """A table as a terminal has room for it.

    :ivar widths: of the columns, in characters
    :ivar same: what all rows have in common: a line that stands above
    :ivar omitted: the titles for which there was no room
    """

    columns: tuple[Column, ...]
    rows: list[list[str]]
    widths: tuple[int, ...]
    same: str = ""
    omitted: tuple[str, ...] = ()


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> FittedTable:
    """Return the table for a terminal of so many characters; for None it takes what it needs."""
    common = {n: value for n in range(1, len(columns)) if (value := _common(n, rows))}
    kept = [n for n, column in enumerate(columns) if n not in common and (not column.omit or any(r[n] for r in rows))]
    cells = {n: [row[n] for row in rows] for n in kept}
    omitted: list[int] = []
    while True:
        widths = _widths([columns[n] for n in kept], [cells[n] for n in kept], width)
        shown = {n: _shown(columns[n], cells[n], size) for n, size in zip(kept, widths, strict=True)}
        roomy = width is None or sum(widths) + _GAP * (len(kept) - 1) <= width
        droppable = [n for n in kept if columns[n].omit]
        if not droppable or (roomy and all(shown.values())):
            break
        omitted.append(min(droppable, key=lambda n: columns[n].omit))
        kept.remove(omitted[-1])
    texts = [shown[n] or [_folded(name, size) for name in cells[n]] for n, size in zip(kept, widths, strict=True)]
    return FittedTable(
        tuple(columns[n] for n in kept),
        [list(row) for row in zip(*texts, strict=True)],
        tuple(widths),
        ", ".join(f"{columns[n].title} {value}" for n, value in common.items()),
        tuple(columns[n].title for n in sorted(omitted)),
    )


def _shown(column: Column, cells: list[str], width: int) -> list[str]:
    """Return the cells of a column; of names that would be alike once they are shortened, nothing."""
    if column.kind != "name":
        return cells
    for separators in (_PARTS, _WORDS):
        short = [shorten(name, width, separators) for name in cells]
        if len(set(short)) == len(set(cells)):
            return short
    return []


def _common(number: int, rows: Sequence[Sequence[str]]) -> str:
    """Return the value of a column that every row has, or every row that has any."""
    values = {row[number] for row in rows} - {""}
    return next(iter(values)) if len(rows) > 1 and len(values) == 1 else ""


def _widths(columns: list[Column], cells: list[list[str]], width: int | None) -> list[int]:
    """Give each column what it needs at least; of what is left names take first, then text."""
    titles = [cell_len(column.title) for column in columns]
    whole = [max(map(cell_len, [*column.title.split(), *texts])) for column, texts in zip(columns, cells, strict=True)]
    if width is None:
        return list(map(max, whole, titles))
    widths = [_least(column, texts, most) for column, texts, most in zip(columns, cells, whole, strict=True)]
    left = width - sum(widths) - _GAP * (len(columns) - 1)
    wanted = list(map(max, whole, titles))
    for kind in ("name", "text", "value"):
        for _ in range(left):  # a character at a time, to the narrowest that wants more
            narrow = [n for n, column in enumerate(columns) if column.kind == kind and widths[n] < wanted[n]]
            if not narrow:
                break
            widths[min(narrow, key=lambda n: widths[n])] += 1
            left -= 1
    return widths


def _least(column: Column, cells: list[str], whole: int) -> int:
    if column.kind == "name":
        return min(whole, _NAME)
    if column.kind == "text":
        return max(cell_len(word) for text in [column.title, *cells] for word in [*text.split(), ""])
    return whole


def shorten(name: str, width: int, separators: re.Pattern[str] = _PARTS) -> str:
    """Return a name with its middle left out: whole parts where it has some, `rate/…,learning_rate=0.001`."""
    if cell_len(name) <= width:
        return name
    room = width - 1
    for pattern in dict.fromkeys((separators, _WORDS)):
        cuts = [match.start() for match in pattern.finditer(name)]
        pairs = [(head + 1, tail) for head in cuts for tail in cuts if head < tail]
        pairs = [(head, tail) for head, tail in pairs if head + len(name) - tail <= room]
        if pairs:
            head, tail = max(pairs, key=lambda pair: (pair[0] - pair[1], -abs(pair[0] + pair[1] - len(name))))
            return name[:head] + _DOTS + name[tail:]
    return name[: (room + 1) // 2] + _DOTS + name[len(name) - room // 2 :]


def _folded(name: str, width: int) -> str:
    lines = [""]
    for part in re.findall(rf"[^/,=+:]*(?:{_WORDS.pattern}|$)", name):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def show_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], out: Console, indent: int = 0, complete: bool = True
) -> None:
    """Show a table: above it what all rows have in common, below it what there was no room for.

    :param complete: whether these are all rows that there are
    """
    table = fit(columns, rows, out.width - indent if out.is_terminal else None)
    margin = " " * indent
    show_same(table, out, margin, complete)
    if table.columns and rows:
        body = [margin + line for line in lines(table, _markup)]
        out.print("\n".join(body), soft_wrap=True)
    show_omitted(table, out, margin)


def show_same(table: FittedTable, out: Console, margin: str = "", complete: bool = True) -> None:
    """Show what stands above a table."""
    if table.same:
        out.print(f"{margin}[dim]In {'every row' if complete else 'these rows'}:[/] {escape(table.same)}")


def show_omitted(table: FittedTable, out: Console, margin: str = "") -> None:
    """Show what stands below a table."""
    if table.omitted:
        out.print(f"{margin}[dim]A wider terminal also shows: {escape(', '.join(table.omitted))}[/]")


def _markup(text: str, style: str) -> str:
    return f"[{style}]{escape(text)}[/]" if style else escape(text)


def lines(table: FittedTable, styled: Callable[[str, str], str]) -> Iterator[str]:
    """Yield the lines of a table, its heading first.

    :param styled: (text, style) -> that text in that style
    """
    titles = [_wrapped(column.title, width) for column, width in zip(table.columns, table.widths, strict=True)]
    height = max(map(len, titles))
    heading = [[""] * (height - len(lines)) + lines for lines in titles]
    yield from _row(heading, table, ["bold"] * len(titles), styled)
    for row in table.rows:
        cells = [_wrapped(cell, width) for cell, width in zip(row, table.widths, strict=True)]
        pairs = zip(table.columns, row, strict=True)
        styles = [column.styles.get(cell.partition(":")[0], "") for column, cell in pairs]
        yield from _row(cells, table, styles, styled)


def _row(
    cells: list[list[str]], table: FittedTable, styles: list[str], styled: Callable[[str, str], str]
) -> Iterator[str]:
    """Yield the lines of one row, each cell of which may have several."""
    for number in range(max(map(len, cells))):
        line = []
        for lines, column, width, style in zip(cells, table.columns, table.widths, styles, strict=True):
            text = lines[number] if number < len(lines) else ""
            space = " " * (width - cell_len(text))
            line.append(space + styled(text, style) if column.right else styled(text, style) + space)
        yield (" " * _GAP).join(line).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    if cell_len(text) <= width and "\n" not in text:
        return [text]
    whole = text.split("\n")
    starts = [[0, *breaks(line, width), len(line)] for line in whole]
    return [line[a:b].rstrip() for line, at in zip(whole, starts, strict=True) for a, b in pairwise(at)]
