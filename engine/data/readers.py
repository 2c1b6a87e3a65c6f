"""The rows of a data file, whatever its format. Imports no torch, so that a plan can ask."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from lorafile.engine.data.files import DataFile, data_file, lines_of, open_text, unknown_suffix
from lorafile.engine.data.layouts import rows_by_datasets
from lorafile.engine.data.tables import table_rows
from lorafile.errors import NodeError
from lorafile.specs.row_filter import fulfils, parse_where
from lorafile.units import column_list, header_hint

_BLANK_LINE = re.compile(r"\n(?:[ \t]*\n)+")
_ALONE = ("text", "messages", "conversations")  # columns that can be the only one of a data set
_MOST_ABOUT = 2**26  # bytes; no larger file is about data
Row = dict[str, Any]


def read_rows(
    files: Iterable[Path | DataFile], sample_by: str = "auto", left_out: Counter[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of some files of one split, in order.

    :param sample_by: what a row of a .txt file is: `line`, `paragraph` (blank lines between), `document` (the file)
    :param left_out: counts the rows that `data.where` leaves out, under `where`
    :raises NodeError: with file and line, when a row cannot be read
    """
    for file in map(data_file, files):
        rows = _rows(file, sample_by)
        yield from rows if file.reading.where is None else _filtered(rows, file, left_out)


def _rows(file: DataFile, sample_by: str) -> Iterator[Row]:
    if file.reading.builder or file.path.is_dir() or file.format == ".arrow":
        return rows_by_datasets(file)
    if not file.suffix:
        raise NodeError(unknown_suffix(file.path))
    if file.format == ".txt" and not file.delimiter:
        return _text(file, sample_by)
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    return readers.get(file.format, table_rows)(file)


def _filtered(rows: Iterator[Row], file: DataFile, left_out: Counter[str] | None) -> Iterator[Row]:
    """Yield the rows that fulfil `data.where`.

    :raises NodeError: when no row has its column, or a row's value cannot be compared
    """
    comparisons = parse_where(file.reading.where)
    missing = {column for column, _, _ in comparisons}
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        missing -= row.keys()
        names |= dict.fromkeys(map(str, row)) if missing else {}
        try:
            fits = fulfils(row, comparisons)
        except ValueError as error:
            raise NodeError(f"data.where: {file.path}: row {number}: {error}.") from error
        if fits:
            yield row
        elif left_out is not None:
            left_out["where"] += 1
    if missing and names:
        columns = f"{column_list(names)}.{header_hint(names)}"
        raise NodeError(f'data.where: {file.path} has no column "{min(missing)}"; its columns are: {columns}')


def _jsonl(file: DataFile) -> Iterator[Row]:
    with open_text(file) as stream:
        for number, line in enumerate(lines_of(stream, file), 1):
            if line.strip():
                try:
                    row = json.loads(line.rstrip("\r\n"))
                except (ValueError, RecursionError) as error:
                    place = f"{file.path}:{number}:{getattr(error, 'colno', 1)}"
                    remedy = "Every line should hold one whole JSON object."
                    raise NodeError(f"{place}: not valid JSON: {getattr(error, 'msg', error)}. {remedy}") from error
                yield _row(row, file, number)


def _json(file: DataFile) -> Iterator[Row]:
    content = _content(file)
    if content is None:
        yield from _jsonl(file)
        return
    for number, row in enumerate(_list_of(content, file), 1):
        if not isinstance(row, dict) or "paragraphs" not in row:
            yield _row(row, file, number)
            continue
        try:
            yield from list(_questions(row))
        except (KeyError, TypeError, AttributeError) as error:
            raise NodeError(f"{file.path}: article {number} is not in SQuAD's layout: {error!r}.") from error


def _content(file: DataFile) -> Any:
    """Return what a JSON file holds; None for one of JSON lines under the shorter ending, as many hub sets are."""
    with open_text(file) as stream:
        text = "".join(lines_of(stream, file))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" not in str(error):
            raise NodeError(f"{file.path}: not valid JSON: {error}") from error
        return None


def json_lists(file: DataFile) -> list[str] | None:
    """Return the names of the lists of objects in a JSON file's object; None where it holds rows in another way."""
    stamp = file.path.stat()
    return _json_lists(file.path, file.reading.encoding, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=256)
def _json_lists(path: Path, encoding: str | None, _changed: int, _size: int) -> list[str] | None:
    file = data_file({"path": path, "encoding": encoding})
    with open_text(file) as stream:
        first = next((line for line in lines_of(stream, file) if line.strip()), "")
    if first.lstrip().startswith("["):
        return None
    content = _content(file)
    if not isinstance(content, dict) or _is_row(first):
        return None
    return None if columns_of(content) else [name for name, value in content.items() if _is_list_of_objects(value)]


def holds_rows(file: DataFile) -> bool:
    """Return whether a file can hold rows; of JSON files some hold results, settings, or a list of names."""
    if file.format != ".json" or file.path.stat().st_size > _MOST_ABOUT:
        return True
    with open_text(file) as stream:
        beginning = "".join(islice(lines_of(stream, file), 2)).lstrip()
    if beginning.startswith("["):
        return re.match(r"\[\s*(\{|$)", beginning) is not None
    lines = beginning.splitlines()
    if file.reading.field is not None or (len(lines) > 1 and all(map(_is_row, lines))):
        return True
    stamp = file.path.stat()
    return _object_holds_rows(file.path, file.reading.encoding, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=256)
def _object_holds_rows(path: Path, encoding: str | None, _changed: int, _size: int) -> bool:
    content = _content(data_file({"path": path, "encoding": encoding}))
    if not isinstance(content, dict):
        return True
    return columns_of(content) is not None or any(map(_is_list_of_objects, content.values()))


def _is_row(line: str) -> bool:
    """Return whether a line is an object by itself, of a file of JSON lines."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and not columns_of(row) and not any(map(_is_list_of_objects, row.values()))


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def columns_of(content: dict[str, Any]) -> dict[str, list[Any]] | None:
    """Return the columns of a table that is written column by column, or None.

    Each is a list, all equally long, or an object of `"0"`, `"1"`, … as pandas writes it.
    """
    values = list(content.values())
    if all(isinstance(value, dict) and [*value] == [str(n) for n in range(len(value))] for value in values):
        values = [list(value.values()) for value in values]
    if not values or not all(isinstance(value, list) and value for value in values):
        return None
    if any(map(_is_list_of_objects, values)) or len({len(value) for value in values}) > 1:
        return None
    if len(values) == 1 and next(iter(content)) not in _ALONE:
        return None
    return dict(zip(content, values, strict=True))


def _list_of(content: Any, file: DataFile) -> list[Any]:
    """Return the rows in what a JSON file holds.

    :raises NodeError: when there are none, or several lists of them
    """
    name = file.reading.field
    if name is not None:
        if not isinstance(content, dict) or name not in content:
            names = f"it has: {', '.join(content)}" if isinstance(content, dict) else "it is a list of rows"
            raise NodeError(f'data.field: {file.path} has no "{name}"; {names}.')
        content = content[name]
    if isinstance(content, dict):
        columns = columns_of(content)
        if columns:
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        lists = [key for key, value in content.items() if _is_list_of_objects(value)]
        if len(lists) > 1:
            raise NodeError(several_lists(file.path, lists))
        if lists and lists[0] in _ALONE:
            return [content]  # a single row, and not a list of its messages
        content = content[lists[0]] if lists else next((v for v in content.values() if isinstance(v, list)), None)
    if not isinstance(content, list):
        raise NodeError(f"{file.path}: must contain a list of rows.")
    return content


def several_lists(path: Path, names: list[str]) -> str:
    """Say that a JSON file holds several lists, and the spec does not say which are the rows."""
    return (
        f"{path}: contains several lists of rows ({', '.join(names)}) that are not all named like splits. Set "
        f'the one to read: data.field = "{names[0]}".'
    )


def _questions(article: dict[str, Any]) -> Iterator[Row]:
    """Yield the questions of an article in SQuAD's published layout, as rows of the hub's layout."""
    for paragraph in article["paragraphs"]:
        for question in paragraph["qas"]:
            answers = question.get("answers", [])
            yield {
                "id": question.get("id"),
                "title": article.get("title"),
                "context": paragraph["context"],
                "question": question["question"],
                "answers": {
                    "text": [answer["text"] for answer in answers],
                    "answer_start": [answer["answer_start"] for answer in answers],
                },
            }


def _text(file: DataFile, sample_by: str) -> Iterator[Row]:
    """Yield the documents of a plain text; a text that has blank lines in it is one of paragraphs."""
    with open_text(file) as stream:
        text = "".join(lines_of(stream, file)).strip("\n")
    if sample_by == "auto":
        sample_by = "paragraph" if _BLANK_LINE.search(text) else "line"
    parts = {"line": text.split("\n"), "paragraph": _BLANK_LINE.split(text), "document": [text]}[sample_by]
    yield from ({"text": part.strip("\n")} for part in parts if part.strip())


def _parquet(file: DataFile) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file.path).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise NodeError(f"{file.path}: not a readable Parquet file: {error}") from error


def _row(row: Any, file: DataFile, number: int) -> Row:
    if not isinstance(row, dict):
        kind = type(row).__name__
        raise NodeError(f"{file.path}:{number}: a row should be an object with named fields, not {kind}.")
    return row
