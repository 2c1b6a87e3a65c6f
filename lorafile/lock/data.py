"""The lock entry of a data set: digests, rows, columns and classes."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.engine.data.columns import answers_column, label_column
from lorafile.engine.data.example import kind_of
from lorafile.engine.data.labels import HIDDEN, label_key
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.sources import data_files, find_data
from lorafile.engine.data.templates import accepted
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest, json_digest
from lorafile.specs.tables.data import DataTable

MAX_CLASSES = 1000  # a column of more distinct values is no label, and its values stand in no lock


@dataclass(frozen=True)
class DataLock:
    """A data set by content: of each of its splits digest, number of rows, and mean and longest row in characters.

    :ivar label: the column of classes, where it has one; `labels`: split -> its distinct values, as text
    :ivar lengths: split -> column -> mean and longest text in characters; none in a lock of before 0.18
    :ivar answers: the column of accepted answers (SQuAD's), where it has one; `unanswerable`: split -> rows without any
    :ivar kinds: split -> column -> what some of its values are that are no text (`engine.data.example.kind_of`); None
        in a lock of before, which did not look
    """

    revision: str | None
    digests: dict[str, str]
    rows: dict[str, int]
    characters: dict[str, list[int]]
    columns: list[str]
    label: str | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    lengths: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    answers: str | None = None
    unanswerable: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, dict[str, list[str]]] | None = None

    def classes(self) -> list[str]:
        """Return the distinct labels of all splits, without what stands for a hidden one."""
        return sorted({value for values in self.labels.values() for value in values} - {HIDDEN, ""})


def lock_data(table: DataTable, base: Path, locked: DataLock | None = None) -> DataLock:
    """Return a data set's lock entry from its files; rows are counted again only where a digest changed."""
    source = find_data(table.path, table.revision, base)
    files = data_files(source, table.name)
    digests = {split: data_digest(parts, table.sample_by) for split, parts in files.items()}
    if locked is not None and locked.digests == digests and same_columns(table, locked) and locked.kinds is not None:
        return locked
    rows: dict[str, int] = {}
    characters: dict[str, list[int]] = {}
    columns: list[str] = []
    label: str | None = None
    answers: str | None = None
    labels: dict[str, list[str]] = {}
    texts: dict[str, dict[str, list[int]]] = {}
    unanswerable: dict[str, int] = {}
    kinds: dict[str, dict[str, list[str]]] = {}
    for split, parts in files.items():
        lengths = []
        values: set[str] = set()
        written = _Texts()
        others: dict[str, set[str]] = {}
        for row in read_rows(parts, table.sample_by):
            lengths.append(sum(len(str(value)) for value in row.values()))
            if not columns:
                columns = [str(column) for column in row]
                label = label_column(table.columns, columns)
                answers = answers_column(table.columns, columns)
            for column, value in row.items():
                if not isinstance(value, str) and (kind := kind_of(value)):
                    others.setdefault(str(column), set()).add(kind)
            if label in row and len(values) <= MAX_CLASSES:
                values.add(label_key(row[label]))
            written.add(row, answers)
        rows[split] = len(lengths)
        characters[split] = [sum(lengths) // max(len(lengths), 1), max(lengths, default=0)]
        kinds |= {split: {column: sorted(words) for column, words in sorted(others.items())}} if others else {}
        labels |= {split: sorted(values)} if label and len(values) <= MAX_CLASSES else {}
        texts[split] = {name: [total // len(lengths), longest] for name, (total, longest) in written.columns.items()}
        unanswerable |= {split: written.unanswered} if answers else {}
    if not any(rows.values()):
        raise NodeError(f"data.path: {source} is empty: it has no rows.")
    entries = (columns, label, labels, texts, answers, unanswerable, kinds)
    return DataLock(commit_of(source), digests, rows, characters, *entries)


class _Texts:
    """The texts of a split while its rows are read: column -> characters of all of them, and of the longest.

    :ivar unanswered: rows without an accepted answer
    """

    def __init__(self) -> None:
        self.columns: dict[str, tuple[int, int]] = {}
        self.unanswered = 0

    def add(self, row: dict[str, Any], answers: str | None) -> None:
        """Take in a row.

        :param answers: the column of accepted answers, where the data have one
        """
        for column, value in row.items():
            if isinstance(value, str):
                total, longest = self.columns.get(column, (0, 0))
                self.columns[column] = (total + len(value), max(longest, len(value)))
        if answers is not None:
            with contextlib.suppress(
                KeyError, TypeError, NodeError
            ):  # `prepare` says which row is not as its format needs it
                self.unanswered += not accepted(row.get(answers) or [])


def same_columns(table: DataTable, locked: DataLock) -> bool:
    """Return whether a lock entry knows the classes, and the answers, of the columns that a spec now calls so."""
    answers = locked.answers is None or locked.answers == answers_column(table.columns, locked.columns)
    return answers and locked.label == label_column(table.columns, locked.columns)


def data_digest(files: list[Path], sample_by: str = "auto") -> str:
    """Return the digest of the rows of some files: their bytes in order, and how to read them, but no name."""
    way = "" if sample_by == "auto" else f" by {sample_by}"
    return json_digest([(file.suffix + (way if file.suffix == ".txt" else ""), file_digest(file)) for file in files])


def commit_of(source: Path) -> str | None:
    """Return the commit of a hub snapshot; the cache keeps each in a directory of that name."""
    return source.name if source.parent.name == "snapshots" else None
