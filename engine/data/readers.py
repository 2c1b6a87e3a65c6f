"""The rows of a data file, whatever its format. Imports no torch, so that a plan can ask."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafile.errors import NodeError

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_BLANK_LINE = re.compile(r"\n(?:[ \t]*\n)+")


def read_rows(files: list[Path], sample_by: str = "auto") -> Iterator[dict[str, Any]]:
    """Yield the rows of some files of one split, in order.

    :param sample_by: what a row of a .txt file is: `line`, `paragraph` (blank lines between), `document` (the file)
    :raises NodeError: with file and line, when a row cannot be read
    """
    for file in files:
        if file.suffix == ".txt":
            yield from _text(file, sample_by)
            continue
        readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".tsv": _tabbed}
        yield from readers.get(file.suffix, _table)(file)


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(_decoded(stream, file), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise NodeError(f"{file}:{number}: not valid JSON: {error}") from error
                yield _row(row, file, number)


def _json(file: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError) or "Extra data" not in str(error):
            raise NodeError(f"{file}: not valid JSON: {error}") from error
        yield from _jsonl(file)  # JSON lines under the shorter ending, as many hub sets are
        return
    if isinstance(rows, dict):
        rows = next((value for value in rows.values() if isinstance(value, list)), None)
    if not isinstance(rows, list):
        raise NodeError(f"{file}: should hold a list of rows.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "paragraphs" not in row:
            yield _row(row, file, number)
            continue
        try:
            yield from list(_questions(row))
        except (KeyError, TypeError, AttributeError) as error:
            raise NodeError(f"{file}: article {number} is not in SQuAD's layout: {error!r}.") from error


def _questions(article: dict[str, Any]) -> Iterator[dict[str, Any]]:
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


def _tabbed(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a TSV file: published sets (GLUE) quote nothing, others as CSV does.

    A quotation mark inside a field is a character of it, unless the field is quoted from end to end. Where that does
    not give every line as many fields as the first, the file is read as CSV reads it: quoted fields may span lines.
    """
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = [line.rstrip("\r\n").split("\t") for line in _decoded(stream, file)]
    lines = [fields for fields in lines if fields != [""]]
    if not lines or any(len(fields) != len(lines[0]) for fields in lines):
        yield from _table(file)
        return
    names = [_unquoted(name) for name in lines[0]]
    for fields in lines[1:]:
        yield dict(zip(names, map(_unquoted, fields), strict=True))


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field


def _table(file: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a document may be longer than the 128 KiB that the module allows at first
    delimiter = "\t" if file.suffix == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield from csv.DictReader(_decoded(stream, file), delimiter=delimiter)
        except csv.Error as error:
            raise NodeError(f"{file}: not a readable table: {error}") from error


def _text(file: Path, sample_by: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of a plain text; a text that has blank lines in it is one of paragraphs."""
    with file.open(encoding="utf-8-sig") as stream:
        text = "".join(_decoded(stream, file)).strip("\n")
    if sample_by == "auto":
        sample_by = "paragraph" if _BLANK_LINE.search(text) else "line"
    parts = {"line": text.split("\n"), "paragraph": _BLANK_LINE.split(text), "document": [text]}[sample_by]
    yield from ({"text": part.strip("\n")} for part in parts if part.strip())


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise NodeError(f"{file}: not a readable Parquet file: {error}") from error


def _decoded(stream: Any, file: Path) -> Iterator[str]:
    try:
        yield from stream
    except UnicodeDecodeError as error:
        raise NodeError(f"{file}: is not UTF-8 text (byte {error.start}).") from error


def _row(row: Any, file: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise NodeError(f"{file}:{number}: a row should be an object with named fields, not {type(row).__name__}.")
    return row
