"""The lock entry of a data set: digests, rows, columns and classes."""

from dataclasses import dataclass, field
from pathlib import Path

from lorafile.engine.data.columns import label_column
from lorafile.engine.data.example import kind_of
from lorafile.engine.data.labels import HIDDEN, label_key
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.sources import data_files, find_data
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest, json_digest
from lorafile.specs.tables.data import DataTable

MAX_CLASSES = 1000  # a column of more distinct values is no label, and its values stand in no lock


@dataclass(frozen=True)
class DataLock:
    """A data set by content: of each of its splits digest, number of rows, and mean and longest row in characters.

    :ivar label: the column of classes, where it has one; `labels`: split -> its distinct values, as text
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
    kinds: dict[str, dict[str, list[str]]] | None = None

    def classes(self) -> list[str]:
        """Return the distinct labels of all splits, without what stands for a hidden one."""
        return sorted({value for values in self.labels.values() for value in values} - {HIDDEN, ""})


def lock_data(table: DataTable, base: Path, locked: DataLock | None = None) -> DataLock:
    """Return a data set's lock entry from its files; rows are counted again only where a digest changed."""
    source = find_data(table.path, table.revision, base)
    files = data_files(source, table.name)
    digests = {split: data_digest(parts, table.sample_by) for split, parts in files.items()}
    if (
        locked is not None
        and locked.digests == digests
        and same_label_column(table, locked)
        and locked.kinds is not None
    ):
        return locked
    rows: dict[str, int] = {}
    characters: dict[str, list[int]] = {}
    columns: list[str] = []
    label: str | None = None
    labels: dict[str, list[str]] = {}
    kinds: dict[str, dict[str, list[str]]] = {}
    for split, parts in files.items():
        lengths = []
        values: set[str] = set()
        others: dict[str, set[str]] = {}
        for row in read_rows(parts, table.sample_by):
            lengths.append(sum(len(str(value)) for value in row.values()))
            if not columns:
                columns = [str(column) for column in row]
                label = label_column(table.columns, columns)
            for column, value in row.items():
                if not isinstance(value, str) and (kind := kind_of(value)):
                    others.setdefault(str(column), set()).add(kind)
            if label in row and len(values) <= MAX_CLASSES:
                values.add(label_key(row[label]))
        rows[split] = len(lengths)
        characters[split] = [sum(lengths) // max(len(lengths), 1), max(lengths, default=0)]
        kinds |= {split: {column: sorted(words) for column, words in sorted(others.items())}} if others else {}
        labels |= {split: sorted(values)} if label and len(values) <= MAX_CLASSES else {}
    if not any(rows.values()):
        raise NodeError(f"data.path: {source} is empty: it has no rows.")
    return DataLock(commit_of(source), digests, rows, characters, columns, label, labels, kinds)


def same_label_column(table: DataTable, locked: DataLock) -> bool:
    """Return whether a lock entry knows the classes of the column that a spec now calls the label."""
    return locked.label == label_column(table.columns, locked.columns)


def data_digest(files: list[Path], sample_by: str = "auto") -> str:
    """Return the digest of the rows of some files: their bytes in order, and how to read them, but no name."""
    way = "" if sample_by == "auto" else f" by {sample_by}"
    return json_digest([(file.suffix + (way if file.suffix == ".txt" else ""), file_digest(file)) for file in files])


def commit_of(source: Path) -> str | None:
    """Return the commit of a hub snapshot; the cache keeps each in a directory of that name."""
    return source.name if source.parent.name == "snapshots" else None
