"""The lock entry of a data set: digests, rows, columns and classes."""

import contextlib
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from lorafile.engine.data.columns import answers_column, cluster_column, detect, label_column, read_columns
from lorafile.engine.data.example import NESTED, cluster_of, kind_of
from lorafile.engine.data.files import DataFile, Reading, data_file
from lorafile.engine.data.labels import HIDDEN, label_key
from lorafile.engine.data.layouts import (
    class_names,
    declared_class_names,
    has_configurations,
    has_datasets,
    other_configurations,
)
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.second_answer import agree, second_answer
from lorafile.engine.data.sources import data_files, find_data
from lorafile.engine.data.templates import accepted
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest, json_digest
from lorafile.files.tasks import task
from lorafile.specs.tables.data import DataTable

MAX_CLASSES = 1000  # a column of more distinct values is no label, and its values stand in no lock
_OF_SOME = (
    "class_names",
    "left_out",
    "ignored",
    "configurations",
    "layout",
    "answers",
    "unanswerable",
    "cluster",
    "counted",
    "percentiles",
    "shared_clusters",
    "second_answer",
    "disagreeing",
)


@dataclass(frozen=True)
class DataLock:
    """A data set by content: of each of its splits digest, number of rows, and mean and longest row in characters.

    :ivar counted: the columns whose characters are counted, those that a spec reads; empty: all of them
    :ivar label: the column of classes, where it has one; `labels`: split -> its distinct values, as text;
        `class_names`: value -> name, where the data name them
    :ivar cluster: the column by which rows stay together where splits are drawn; `shared_clusters`: two splits of the
        data -> how many of its values are in both
    :ivar left_out: split -> rows that `data.where` leaves out, which `rows` and all else do not count
    :ivar ignored: files next to the data that hold no rows
    :ivar configurations: those of a README.md that are not read, where its default one is
    :ivar layout: split -> its files, where a README.md says which they are
    :ivar lengths: split -> column -> mean and longest text in characters; none in a lock of before 0.18
    :ivar answers: the column of accepted answers (SQuAD's), where it has one; `unanswerable`: split -> rows without any
    :ivar kinds: split -> column -> what some of its values are that are no text (`engine.data.example.kind_of`); None
        in a lock of before, which did not look
    :ivar second_answer: the column that is read as the answer, and one that is called so and is not read; empty where
        there is none; `disagreeing`: split -> rows in which the two disagree, and rows that have both
    :ivar percentiles: split -> lengths of its rows in characters, from the shortest over each hundredth to the longest
    """

    revision: str | None
    digests: dict[str, str]
    rows: dict[str, int]
    characters: dict[str, list[int]]
    columns: list[str]
    label: str | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)
    class_names: dict[str, str] = field(default_factory=dict)
    cluster: str | None = None
    shared_clusters: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    configurations: list[str] = field(default_factory=list)
    layout: dict[str, list[Any]] = field(default_factory=dict)
    lengths: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    answers: str | None = None
    unanswerable: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, dict[str, list[str]]] | None = None
    percentiles: dict[str, list[int]] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)
    second_answer: list[str] = field(default_factory=list)
    disagreeing: dict[str, list[int]] = field(default_factory=dict)

    def text(self, row: dict[str, Any]) -> str:
        """Return what is counted of a row."""
        return " ".join(str(row.get(name, "")) for name in self.counted or row)

    def classes(self) -> list[str]:
        """Return the distinct labels of all splits, without what stands for a hidden one."""
        return sorted({value for values in self.labels.values() for value in values} - {HIDDEN, ""})

    def nested(self) -> list[str]:
        """Return the columns that hold lists or objects."""
        kinds = [own for split in (self.kinds or {}).values() for own in split.items()]
        held = {column for column, own in kinds if NESTED & {*own}}
        return [column for column in self.columns if column in held]

    def as_json(self) -> dict[str, Any]:
        """Return it as the lock file holds it: what only some data have stands there only for these."""
        return {name: value for name, value in asdict(self).items() if value or name not in _OF_SOME}


def lock_data(table: DataTable, base: Path, locked: DataLock | None = None) -> DataLock:
    """Return a data set's lock entry from its files; rows are counted again only where a digest changed."""
    source = find_data(table.path, table.revision, base)
    ignored: list[str] = []
    files, layout = _files(source, table, locked, ignored)
    digests = {split: data_digest(parts, table.sample_by) for split, parts in files.items()}
    if locked is not None and (locked.digests, locked.layout) == (digests, layout) and _is_complete(table, locked):
        return locked
    columns = _columns(files, table.sample_by)
    counted = read_by(table, columns)
    label = label_column(table.columns, columns)
    answers = answers_column(table.columns, columns)
    cluster = cluster_column(table.cluster, table.format, table.columns, columns)
    second = _second_answer(table, columns)
    counts = {split: _count(parts, table, counted, label, answers, cluster, second) for split, parts in files.items()}
    left_out = {split: count.left_out for split, count in counts.items() if count.left_out}
    if not any(count.rows for count in counts.values()):
        why = " has no rows left after data.where" if left_out else " is empty: it has no rows"
        raise NodeError(f"data.path: {source}{why}.")
    return DataLock(
        revision=commit_of(source),
        digests=digests,
        rows={split: count.rows for split, count in counts.items()},
        characters={split: [count.characters // max(count.rows, 1), count.longest] for split, count in counts.items()},
        columns=columns,
        label=label,
        labels={split: sorted(c.labels) for split, c in counts.items() if label and len(c.labels) <= MAX_CLASSES},
        class_names=_class_names(source, table, files, label) if label in columns else {},
        cluster=cluster,
        shared_clusters=_shared(counts),
        left_out=left_out,
        ignored=sorted(ignored),
        configurations=other_configurations(source) if layout and table.name is None else [],
        layout=layout,
        lengths={split: count.lengths() for split, count in counts.items()},
        answers=answers,
        unanswerable={split: count.unanswered for split, count in counts.items()} if answers else {},
        kinds={s: {name: sorted(c.kinds[name]) for name in sorted(c.kinds)} for s, c in counts.items() if c.kinds},
        percentiles={split: count.percentiles() for split, count in counts.items() if count.rows},
        counted=counted,
        second_answer=list(second),
        disagreeing={split: [count.disagree, count.compared] for split, count in counts.items() if count.compared},
    )


def read_by(table: DataTable, columns: list[str]) -> list[str]:
    """Return the columns that a spec reads of a data set; nothing where that is all of them, or unknown."""
    form = _format(table, columns)
    if form is None:
        return []
    template = table.template.prompt + table.template.completion if table.template else ""
    read = read_columns(form, template, table.columns, columns)
    return [] if len(read) == len(columns) else read


def _format(table: DataTable, columns: list[str]) -> str | None:
    """Return the format of a data set, empty for a template alone; None where its columns fit none."""
    form: str = table.format if not table.template or table.format != "auto" else ""
    try:
        return detect([*columns, *table.columns], table.path) if form == "auto" else form
    except NodeError:  # the spec's mistake, which is reported where the data are read
        return None


def _second_answer(table: DataTable, columns: list[str]) -> tuple[str, str] | tuple[()]:
    form = None if table.template else _format(table, columns)
    return (form and second_answer(form, table.columns, columns)) or ()


@dataclass
class _Count:
    """What is counted of a split: rows, those that `data.where` leaves out, characters, and labels.

    :ivar counted: the columns whose characters are counted; empty: all
    :ivar texts: column -> characters of all its texts, and of the longest; `kinds`: what its values are that are none
    :ivar unanswered: rows without an accepted answer
    :ivar compared: rows with an answer in each of the columns of `second`; `disagree`: those that are not the same
    """

    counted: list[str] = field(default_factory=list)
    rows: int = 0
    left_out: int = 0
    characters: int = 0
    longest: int = 0
    sizes: "array[int]" = field(default_factory=lambda: array("L"))
    labels: set[str] = field(default_factory=set)
    texts: dict[str, tuple[int, int]] = field(default_factory=dict)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    unanswered: int = 0
    clusters: set[int] = field(default_factory=set)
    second: tuple[str, str] | tuple[()] = ()
    compared: int = 0
    disagree: int = 0

    def add(self, row: dict[str, Any], label: str | None, answers: str | None, cluster: str | None) -> None:
        """Take in a row.

        :param answers: the column of accepted answers, where the data have one
        :param cluster: the column by which rows belong together
        """
        if cluster is not None:
            self.clusters.add(hash(cluster_of(row, cluster, self.rows)))
        characters = sum(len(str(row.get(name, ""))) for name in self.counted or row)
        self.rows += 1
        self.characters += characters
        self.longest = max(self.longest, characters)
        self.sizes.append(characters)
        if label in row and len(self.labels) <= MAX_CLASSES:
            self.labels.add(label_key(row[label]))
        for column, value in row.items():
            if isinstance(value, str):
                total, longest = self.texts.get(column, (0, 0))
                self.texts[column] = (total + len(value), max(longest, len(value)))
            elif kind := kind_of(value):
                self.kinds.setdefault(str(column), set()).add(kind)
        if self.second and (same := agree(*(row.get(column) for column in self.second))) is not None:
            self.compared += 1
            self.disagree += not same
        if answers is not None:  # `prepare` says which row is not as its format needs it
            with contextlib.suppress(KeyError, TypeError, NodeError):
                self.unanswered += not accepted(row.get(answers) or [])

    def percentiles(self) -> list[int]:
        """Return the length of the shortest row, of that over each hundredth of the rows, and of the longest."""
        ordered = sorted(self.sizes)
        return [ordered[(len(ordered) - 1) * hundredth // 100] for hundredth in range(101)]

    def lengths(self) -> dict[str, list[int]]:
        """Return column -> mean and longest text, in characters."""
        return {name: [total // self.rows, longest] for name, (total, longest) in self.texts.items()}


def _shared(counts: dict[str, _Count]) -> dict[str, int]:
    """Return how many clusters each two splits share, of those that share any."""
    order = sorted(counts, key=lambda split: (split != "train", split != "validation", split))
    shared = {f"{a}, {b}": len(counts[a].clusters & counts[b].clusters) for a, b in combinations(order, 2)}
    return {names: count for names, count in shared.items() if count}


def _count(
    files: list[DataFile],
    table: DataTable,
    counted: list[str],
    label: str | None,
    answers: str | None,
    cluster: str | None,
    second: tuple[str, str] | tuple[()],
) -> _Count:
    """Count the rows of a split, one at a time."""
    count, left_out = _Count(counted, second=second), Counter[str]()
    with task(f"Reading the data {table.path}", unit="rows") as reading:
        for row in read_rows(files, table.sample_by, left_out):
            count.add(row, label, answers, cluster)
            reading.done = count.rows
    count.left_out = left_out["where"]
    return count


def _columns(files: dict[str, list[DataFile]], sample_by: str) -> list[str]:
    """Return the columns of the train split, or else of the first that has rows."""
    for split in sorted(files, key=lambda name: name != "train"):
        row = next(read_rows(files[split], sample_by), None)
        if row is not None:
            return [str(column) for column in row]
    return []


def _class_names(source: Path, table: DataTable, files: dict[str, list[DataFile]], label: str | None) -> dict[str, str]:
    """Return what the data themselves call the classes of a column: value -> name."""
    stored = (class_names(part, str(label)) for parts in files.values() for part in parts)
    return next(filter(None, stored), {}) or declared_class_names(source, table.name, str(label))


def split_files(source: Path, table: DataTable, locked: DataLock | None = None) -> dict[str, list[DataFile]]:
    """Return split -> its files.

    :param locked: what it knows of a layout that `datasets` reads is taken from it
    """
    if locked is not None and locked.layout:
        return _of_layout(source, locked.layout)
    return _files(source, table, locked, [])[0]


def _of_layout(source: Path, layout: dict[str, list[Any]]) -> dict[str, list[DataFile]]:
    """Return split -> its files, as a lock holds them.

    :raises NodeError: when one is not there
    """
    files = {split: [data_file(part, source) for part in parts] for split, parts in layout.items()}
    missing = next((part.path for parts in files.values() for part in parts if not part.path.exists()), None)
    if missing is not None:
        raise NodeError(f"data.path: {missing} is in the lock but missing. If this is intended, run: lora lock")
    return files


def _files(
    source: Path, table: DataTable, locked: DataLock | None, ignored: list[str]
) -> tuple[dict[str, list[DataFile]], dict[str, list[Any]]]:
    """Return split -> its files; and the same as a lock holds it, where a README.md says which they are."""
    reading = reading_of(table)
    if not source.is_dir() or not has_configurations(source):
        return data_files(source, table.name, reading, ignored), {}
    if locked is not None and locked.layout and not has_datasets():
        return _of_layout(source, locked.layout), locked.layout
    source = source.absolute()  # as the library has it
    files = data_files(source, table.name, reading, ignored)
    inside = all(part.path.is_relative_to(source) for parts in files.values() for part in parts)
    shown = {split: [part.as_json(source) for part in parts] for split, parts in files.items()} if inside else {}
    return files, shown


def reading_of(table: DataTable) -> Reading:
    """Return how a spec says that files are read."""
    return Reading(
        encoding=table.encoding,
        delimiter=table.delimiter,
        column_names=tuple(table.column_names),
        field=table.field,
        where=table.where,
        tables=table.format not in ("auto", "text", "guanaco"),
    )


def same_columns(table: DataTable, locked: DataLock) -> bool:
    """Return whether a lock entry knows the classes, and the answers, of the columns that a spec now calls so."""
    answers = locked.answers is None or locked.answers == answers_column(table.columns, locked.columns)
    clusters = table.cluster is None or (table.cluster or None) == locked.cluster
    return answers and clusters and locked.label == label_column(table.columns, locked.columns)


def _is_complete(table: DataTable, locked: DataLock) -> bool:
    """Return whether a lock entry of the same files has all that a new one would have."""
    counted = locked.counted == read_by(table, locked.columns)
    counted = counted and locked.second_answer == list(_second_answer(table, locked.columns))
    return counted and same_columns(table, locked) and locked.kinds is not None


def data_digest(files: Sequence[Path | DataFile], sample_by: str = "auto") -> str:
    """Return the digest of the rows of some files: their bytes in order, and how to read them, but no name."""
    parts = []
    for file in map(data_file, files):
        plain_text = file.format == ".txt" and not file.delimiter
        way = f" by {sample_by}" if sample_by != "auto" and plain_text else ""
        settings = file.way()
        way += f" {json.dumps(settings, sort_keys=True)}" if settings else ""
        parts += [((file.suffix or file.path.suffix) + way, file_digest(content)) for content in file.contents()]
    return json_digest(parts)


def commit_of(source: Path) -> str | None:
    """Return the commit of a hub snapshot; the cache keeps each in a directory of that name."""
    return source.name if source.parent.name == "snapshots" else None
