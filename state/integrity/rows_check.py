"""The rows of an index, and what each of them should be: keys, digests and seals are computed again."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from lorafile.state import State
from lorafile.state.keys import canonical_texts, key_of, section_digest
from lorafile.state.records import COLUMNS, seal

File = tuple[str, str, int]  # name, digest and bytes of a file of an attempt
_OUTCOMES = ("done", "diverged", "out-of-memory", "failed", "interrupted")
_WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_READ = {
    "nodes": "key, kind, version, settings, inputs",
    "environments": "digest, settings",
    "attempts": "*",
    "outputs": "attempt, name, digest, bytes",
    "seals": "attempt, digest",
    "removals": "attempt",
    "collected": "digest",
    "forecasts": "attempt, forecast",
}


@dataclass(frozen=True)
class AttemptRow:
    """An attempt as it is stored, JSON as its text, in the order of the table's columns."""

    id: int
    key: str
    kind: str
    outcome: str
    message: str
    started: str
    seconds: float
    device: str
    environment: str
    figures: str
    reads: str
    study: str
    address: str

    @property
    def values(self) -> list[Any]:
        """What its seal is over."""
        return [*(getattr(self, name) for name in COLUMNS), self.environment]


@dataclass
class IndexRows:
    """The rows of an index that make up results.

    :ivar nodes: key -> (kind, version, settings, inputs), the last two as JSON texts
    :ivar environments: digest -> JSON; `outputs`: (attempt, name) -> (digest, bytes); `seals`: attempt -> digest
    :ivar removals: attempts that count no more; `collected`: digests that were taken; `forecasts`: attempt -> JSON
    """

    nodes: dict[str, tuple[str, int, str, str]] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=dict)
    attempts: dict[int, AttemptRow] = field(default_factory=dict)
    outputs: dict[tuple[int, str], tuple[str, int]] = field(default_factory=dict)
    seals: dict[int, str] = field(default_factory=dict)
    removals: set[int] = field(default_factory=set)
    collected: set[str] = field(default_factory=set)
    forecasts: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of_tables(cls, tables: dict[str, list[Any]]) -> "IndexRows":
        """Return rows as SQLite gives them by what identifies them.

        :param tables: name of a table -> its rows
        """
        return cls(
            {key: (kind, version, settings, inputs) for key, kind, version, settings, inputs in tables["nodes"]},
            dict(tables["environments"]),
            {row[0]: AttemptRow(*row) for row in tables["attempts"]},
            {(attempt, name): (digest, size) for attempt, name, digest, size in tables["outputs"]},
            dict(tables["seals"]),
            {row[0] for row in tables["removals"]},
            {row[0] for row in tables["collected"]},
            dict(tables["forecasts"]),
        )

    def files(self) -> dict[int, list[File]]:
        """Return attempt -> its files."""
        files: dict[int, list[File]] = {}
        for (attempt, name), (digest, size) in self.outputs.items():
            files.setdefault(attempt, []).append((name, digest, size))
        return files

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.nodes) + len(self.environments) + len(self.attempts) + len(self.outputs)


def read_rows(state: State) -> IndexRows:
    """Return the rows that make up results.

    :raises StateError: where SQLite cannot read them
    """
    tables = state.query(*(f"SELECT {columns} FROM {table}" for table, columns in _READ.items()))  # noqa: S608
    return IndexRows.of_tables(dict(zip(_READ, tables, strict=True)))


def describe_damage(rows: IndexRows) -> list[str]:
    """Return a sentence for each row that is not what it should be."""
    nodes, environments, attempts = damaged_rows(rows)
    sentences = [f"the row of the node {str(key)[:12]}… is damaged: {why}" for key, why in nodes.items()]
    sentences += [f"the row of the environment {str(digest)[:12]}… is damaged" for digest in environments]
    sentences += [f"the row of attempt {number} is damaged: {why}" for number, why in attempts.items()]
    sentences += [
        f"the forecast of attempt {number} is damaged"
        for number, text in rows.forecasts.items()
        if not is_json_object(text)
    ]
    missing = {attempt for attempt, _ in rows.outputs} - rows.attempts.keys()
    sentences += [
        f"files of attempt {number} are listed, but the attempt is missing" for number in sorted(missing, key=str)
    ]
    return sentences


def is_json_object(text: Any) -> bool:
    """Return whether a value is the text of a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except _WRONG:
        return False


def damaged_rows(rows: IndexRows) -> tuple[dict[str, str], set[str], dict[int, str]]:
    """Return damaged nodes with the reason, damaged environments, and damaged attempts with the reason."""
    sections: dict[str, str] = {}
    nodes = {key: why for key, row in rows.nodes.items() if (why := _node_damage(key, row, sections))}
    environments = {digest for digest, text in rows.environments.items() if _sha256(text) != digest}
    files, attempts = rows.files(), {}
    for number, row in rows.attempts.items():
        if why := _attempt_damage(row, files.get(number, []), rows, nodes, environments):
            attempts[number] = why
    return nodes, environments, attempts


def _node_damage(key: str, row: tuple[str, int, str, str], sections: dict[str, str]) -> str:
    """Return what is wrong with a node.

    :param sections: settings as they are stored -> their digests, as they stand in a key: many nodes share them
    """
    kind, version, settings, inputs = row
    try:
        if settings not in sections:
            digests = {name: section_digest(section) for name, section in json.loads(settings).items()}
            sections[settings] = canonical_texts(digests)
        is_right = key_of(kind, version, sections[settings], json.loads(inputs)) == key
        return "" if is_right else "its key does not match its settings and inputs"
    except _WRONG as error:
        return f"its settings cannot be read ({type(error).__name__})"


def _attempt_damage(
    row: AttemptRow, files: list[File], rows: IndexRows, nodes: dict[str, str], environments: set[str]
) -> str:
    """Return what is wrong with an attempt, given damaged nodes and environments."""
    if row.key not in rows.nodes or row.key in nodes:
        return "its node is missing or damaged"
    if row.environment not in rows.environments or row.environment in environments:
        return "its environment is missing or damaged"
    if row.kind != rows.nodes[row.key][0] or row.outcome not in _OUTCOMES:
        return "its kind or its outcome is invalid"
    try:
        if not is_json_object(row.figures) or not is_json_object(row.reads):
            return "its metrics are invalid"
        if not rows.seals:  # an index of version 1, which had none
            return ""
        is_right = rows.seals.get(row.id) == seal(row.values, files)
        return "" if is_right else "its seal does not match its values and files"
    except _WRONG as error:
        return f"it cannot be read ({type(error).__name__})"


def _sha256(text: Any) -> str:
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()
