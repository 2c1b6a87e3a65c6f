"""The rows of CSV and TSV files, and of other tables in text files. Imports no torch."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from lorafile.engine.data.files import DataFile, lines_of, open_text
from lorafile.errors import NodeError

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_END = "\ufdd0end of the file\ufdd0"  # U+FDD0 is no character, so that no text holds it
Row = dict[str, Any]


def table_rows(file: DataFile) -> Iterator[Row]:
    """Yield the rows of a table, every value a text; a field that a short line lacks is None, as pandas has it.

    :raises NodeError: with file and line, when a line has more fields than the header, or a quoted field never ends
    """
    if file.delimiter == "\t" and _has_plain_tabs(file):
        yield from _plain_tabbed(file)
        return
    csv.field_size_limit(2**31 - 1)  # a document may be longer than the 128 KiB that the module allows at first
    records = _records(file)
    first = next(records, None)
    if first is None:
        return
    names, before = header(file, *first)
    for line, fields in chain(before, records):
        yield _row(names, fields, file, line)


def _records(file: DataFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, fields) of every record that is not empty."""
    with open_text(file, newline="") as stream:
        lines = _without_nul(file, lines_of(stream, file))
        first = next(lines, None)
        if first is None:
            return
        reader = csv.reader(chain([first], lines, [_END]), delimiter=file.delimiter or _delimiter(first))
        start = 1
        try:
            for fields in reader:
                if fields == [_END]:
                    return
                if fields and fields[-1].endswith(_END):
                    raise NodeError(f"{file.path}:{start}: a quoted field starts here or below and never ends.")
                if fields:
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            raise NodeError(f"{file.path}:{reader.line_num}: not a readable table: {error}.") from error


def _without_nul(file: DataFile, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\x00" in line:
            raise NodeError(
                f"{file.path}:{number}: contains a NUL character, which tables cannot have. If the file is UTF-16, set "
                'data.encoding = "utf-16".'
            )
        yield line


def _delimiter(first: str) -> str:
    """Return what separates columns: a comma, unless the first line has none, but has semicolons or tabs."""
    outside = _QUOTED.sub("", first)
    return next((mark for mark in (",", ";", "\t") if mark in outside), ",")


def header(file: DataFile, line: int, fields: list[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of a table's columns, and the first record where that is a row and not the header.

    A column without a name is called as pandas calls it: `Unnamed: 0`.

    :raises NodeError: when two columns have one name
    """
    declared = list(file.reading.column_names)
    if declared and len(fields) == len(declared):
        return declared, [(line, fields)]
    names = [name if name.strip() else f"Unnamed: {number}" for number, name in enumerate(fields)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise NodeError(
            f'{file.path}:{line}: two columns are named "{twice[0]}". Rename one. If the file has no header and this '
            "line is a row, set data.column_names = […]."
        )
    return names, []


def _row(names: list[str], fields: list[str], file: DataFile, line: int) -> Row:
    if len(fields) > len(names):
        raise NodeError(
            f"{file.path}:{line}: has {len(fields)} fields, more than the header has columns ({len(names)}: "
            f"{', '.join(names)}). Quote fields that contain the delimiter, or set data.delimiter."
        )
    return dict(zip(names, [*fields, *[None] * (len(names) - len(fields))], strict=True))


def _has_plain_tabs(file: DataFile) -> bool:
    """Return whether every line has as many fields as the first, as published sets (GLUE) have, which quote nothing."""
    width = 0
    with open_text(file, newline="") as stream:
        for line in lines_of(stream, file):
            fields = line.rstrip("\r\n").count("\t") + 1
            if line.strip("\r\n") and fields != (width := width or fields):
                return False
    return width > 0


def _plain_tabbed(file: DataFile) -> Iterator[Row]:
    """Yield rows of which a quotation mark is a character, unless it quotes a field from end to end."""
    with open_text(file, newline="") as stream:
        numbered = enumerate(_without_nul(file, lines_of(stream, file)), 1)
        records = (
            (number, [_unquoted(part) for part in line.rstrip("\r\n").split("\t")])
            for number, line in numbered
            if line.strip("\r\n")
        )
        names, before = header(file, *next(records))
        for number, fields in chain(before, records):
            yield _row(names, fields, file, number)


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field
