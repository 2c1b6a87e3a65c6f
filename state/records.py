"""What the store holds, and what is derived from it: the seal over an attempt, the steps of its curve."""

import gzip
import json
import math
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lorafile.errors import named
from lorafile.files.digests import text_digest

NOTHING: dict[str, Any] = {}  # what an attempt holds is never changed
CURVE = "curve.jsonl.gz"
EQUAL_DATA = "prepared to the same bytes"
EQUAL_SETTINGS = "but for settings that cannot matter, the same"
COLUMNS = (
    *("key", "kind", "outcome", "message", "started", "seconds", "device"),
    *("figures", "reads", "study", "address"),
)
_JSON, _BATCH = ("figures", "reads", "forecast", "settings"), 500  # columns; rows
_LONGEST_LINE, _MOST_BYTES, _MOST_STEPS = 1 << 16, 1 << 30, 1 << 40
_NO_CURVE = (
    *(FileNotFoundError, gzip.BadGzipFile, EOFError, zlib.error),
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
)
_STEP = ("epoch", "loss", "learning_rate", "grad_norm")


class Attempt(NamedTuple):
    """One try at a node and its outcome; a tuple, because a plan reads tens of thousands."""

    key: str
    kind: str
    outcome: str
    message: str = ""
    started: str = ""
    seconds: float = 0.0
    device: str = ""
    environment: dict[str, Any] = NOTHING
    figures: dict[str, Any] = NOTHING
    reads: dict[str, dict[str, str]] = NOTHING  # role -> file name -> digest
    study: str = ""
    address: str = ""
    outputs: dict[str, str] = NOTHING  # file name -> digest
    bytes: int = 0
    forecast: dict[str, Any] = NOTHING  # what the plan had estimated for it

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: diverged is a result, too."""
        return self.outcome in ("done", "diverged")


@dataclass(frozen=True)
class Node:
    """What a key is made of."""

    key: str
    kind: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True)
class Acceptance:
    """Two keys that were declared equivalent: where a study has `new`, the result of `old` is used."""

    old: str
    new: str
    kind: str
    reason: str
    since: str

    @property
    def is_equal(self) -> bool:
        """Whether it needed no declaration: the two left the same bytes, or differ in what cannot matter."""
        return self.reason in (EQUAL_DATA, EQUAL_SETTINGS)


def seal(values: list[Any], outputs: list[tuple[str, str, int]]) -> str:
    """Return the digest over an attempt as it is stored.

    :param values: those of `COLUMNS`, JSON as its text, then the environment's digest
    :param outputs: name, digest and bytes of each file
    """
    content = json.dumps([*values, sorted([name, digest, size] for name, digest, size in outputs)])
    return text_digest(content)


def seal_of(connection: sqlite3.Connection, attempt: int) -> str:
    """Return the seal that an attempt of the index should have."""
    columns = ", ".join(COLUMNS)
    row = connection.execute(f"SELECT {columns}, environment FROM attempts WHERE id = ?", (attempt,)).fetchone()  # noqa: S608
    outputs = connection.execute("SELECT name, digest, bytes FROM outputs WHERE attempt = ?", (attempt,)).fetchall()
    return seal(list(row), outputs)


def curve_steps(file: Path) -> list[tuple[int, float | None, float | None, float | None, float | None]]:
    """Return (step, epoch, loss, learning rate, norm of the gradient) of a stored curve; nothing of a damaged one.

    What is no finite number is None, as SQLite has it.

    :raises OSError: when the disk does not give it back
    """
    try:
        rows = [json.loads(line) for line in _lines(file)]
        steps = {int(row["step"]): tuple(_number(row.get(name)) for name in _STEP) for row in rows}
    except _NO_CURVE:
        return []
    if any(not 0 <= step < _MOST_STEPS for step in steps):
        return []
    return [(step, *values) for step, values in steps.items()]  # type: ignore[misc]


def read_columns(cursor: sqlite3.Cursor) -> list[list[Sequence[Any]]]:
    """Return the columns of all rows in batches, JSON parsed; a batch and its texts fit into a processor's cache."""
    parsed = [at for at, (name, *_) in enumerate(cursor.description) if name in _JSON]
    batches: list[list[Sequence[Any]]] = []
    while rows := cursor.fetchmany(_BATCH):
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for at in parsed:
            columns[at] = parse_objects(columns[at])
        batches.append(columns)
    return batches


def parse_objects(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return JSON objects; parsed as one text, tens of thousands share their names and take half the time."""
    from pydantic_core import from_json

    text = f"[{','.join(texts)}]"
    try:
        objects: list[dict[str, Any]] = from_json(text, cache_strings="keys")
    except ValueError:  # half of a surrogate pair, from a file's name, is JSON to json alone
        objects = json.loads(text)
    return objects


def _lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a packed file.

    :raises ValueError: when it unpacks to far more than any curve has
    """
    total = 0
    with named(file), gzip.open(file, "rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            total += len(line)
            if total > _MOST_BYTES:
                raise ValueError("no curve is that long")
            yield line


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
