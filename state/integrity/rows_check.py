"""The rows of an index, and what each of them should be: keys, digests and seals are computed again."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from lorafile.state import State
from lorafile.state.keys import canonical_texts, key_of, section_digest
from lorafile.state.rows import COLUMNS, seal

_OUTCOMES = ("done", "diverged", "out-of-memory", "failed", "interrupted")
_WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


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
class Rows:
    """The rows of an index.

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

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.nodes) + len(self.environments) + len(self.attempts) + len(self.outputs)


def read_rows(state: State) -> Rows:
    """Return the rows that make up results.

    :raises StateError: where SQLite cannot read them
    """
    found = state.query(
        "SELECT key, kind, version, settings, inputs FROM nodes",
        "SELECT digest, settings FROM environments",
        "SELECT * FROM attempts",
        "SELECT attempt, name, digest, bytes FROM outputs",
        "SELECT attempt, digest FROM seals",
        "SELECT attempt, since, reason FROM removals",
        "SELECT digest FROM collected",
        "SELECT attempt, forecast FROM forecasts",
    )
    return rows_of(*found)


def rows_of(
    nodes: list[Any],
    environments: list[Any],
    attempts: list[Any],
    outputs: list[Any],
    seals: list[Any],
    removals: list[Any],
    collected: list[Any],
    forecasts: list[Any],
) -> Rows:
    """Return rows as SQLite gives them by what they are called."""
    return Rows(
        {key: (kind, version, settings, inputs) for key, kind, version, settings, inputs in nodes},
        dict(environments),
        {row[0]: AttemptRow(*row) for row in attempts},
        {(attempt, name): (digest, size) for attempt, name, digest, size in outputs},
        dict(seals),
        {row[0] for row in removals},
        {row[0] for row in collected},
        dict(forecasts),
    )


def damaged_rows(rows: Rows) -> list[str]:
    """Return a sentence for each row that is not what it should be."""
    nodes, environments, attempts = unsound(rows)
    told = [f"the row of the node {key[:12]}… is damaged: {why}" for key, why in nodes.items()]
    told += [f"the row of the environment {str(digest)[:12]}… is damaged" for digest in environments]
    told += [f"the row of attempt {number} is damaged: {why}" for number, why in attempts.items()]
    told += [
        f"the forecast of attempt {number} is damaged" for number, text in rows.forecasts.items() if not table(text)
    ]
    lost = {attempt for attempt, _ in rows.outputs} - rows.attempts.keys()
    return [*told, *(f"files of attempt {number} are named, which is not there" for number in sorted(lost))]


def table(text: Any) -> bool:
    """Return whether a text is a table of JSON."""
    try:
        return isinstance(json.loads(text), dict)
    except _WRONG:
        return False


def unsound(rows: Rows) -> tuple[dict[str, str], set[str], dict[int, str]]:
    """Return damaged nodes with the reason, damaged environments, and damaged attempts with the reason."""
    digests = _Digests()
    nodes = {key: why for key, row in rows.nodes.items() if (why := _node(key, row, digests))}
    environments = {digest for digest, text in rows.environments.items() if _sha(text) != digest}
    files: dict[int, list[tuple[str, str, int]]] = {}
    for (attempt, name), (digest, size) in rows.outputs.items():
        files.setdefault(attempt, []).append((name, digest, size))
    attempts = {}
    for number, row in rows.attempts.items():
        why = _attempt(row, files.get(number, []), rows, nodes, environments)
        if why:
            attempts[number] = why
    return nodes, environments, attempts


class _Digests:
    """Digests of sections, each computed once: all seeds of a configuration share them."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._settings: dict[str, dict[str, str]] = {}  # whole texts, which many predictions share

    def of(self, settings: str) -> dict[str, str]:
        """Return section -> digest of a node's settings as they are stored."""
        if settings not in self._settings:
            self._settings[settings] = {name: self._one(value) for name, value in json.loads(settings).items()}
        return self._settings[settings]

    def _one(self, section: Any) -> str:
        text = json.dumps(section, sort_keys=True)
        if text not in self._known:
            self._known[text] = section_digest(section)
        return self._known[text]


def _node(key: str, row: tuple[str, int, str, str], digests: _Digests) -> str:
    kind, version, settings, inputs = row
    try:
        right = key_of(kind, version, canonical_texts(digests.of(settings)), json.loads(inputs))
        return "" if right == key else "its key is not that of its settings and inputs"
    except _WRONG as error:
        return f"its settings cannot be read ({type(error).__name__})"


def _attempt(
    row: AttemptRow,
    files: list[tuple[str, str, int]],
    rows: Rows,
    nodes: dict[str, str],
    environments: set[str],
) -> str:
    if row.key not in rows.nodes or row.key in nodes:
        return "what it is an attempt at is not there, or damaged"
    if row.environment not in rows.environments or row.environment in environments:
        return "its environment is not there, or damaged"
    if row.kind != rows.nodes[row.key][0] or row.outcome not in _OUTCOMES:
        return "its kind or its outcome is none"
    try:
        if not table(row.figures) or not table(row.reads):
            return "its figures are none"
        known = rows.seals.get(row.id)
        if not rows.seals:  # an index of version 1, which had none
            return ""
        return "" if known == seal(row.values, files) else "its seal is not that of its values and files"
    except _WRONG as error:
        return f"it cannot be read ({type(error).__name__})"


def _sha(text: Any) -> str:
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()
