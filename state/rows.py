"""Rows that are made from others, the seal over an attempt and the steps of its curve, and JSON in rows."""

import gzip
import hashlib
import json
import math
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafile.errors import named

CURVE = "curve.jsonl.gz"
COLUMNS = (
    *("key", "kind", "outcome", "message", "started", "seconds", "device"),
    *("figures", "reads", "study", "address"),
)
_LONGEST_LINE, _MOST_BYTES, _MOST_STEPS = 1 << 16, 1 << 30, 1 << 40
_NO_CURVE = (
    *(FileNotFoundError, gzip.BadGzipFile, EOFError, zlib.error),
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
)
_STEP = ("epoch", "loss", "learning_rate", "grad_norm")


def seal(values: list[Any], outputs: list[tuple[str, str, int]]) -> str:
    """Return the digest over an attempt as it is stored.

    :param values: those of `COLUMNS`, JSON as its text, then the environment's digest
    :param outputs: name, digest and bytes of each file
    """
    content = json.dumps([*values, sorted([name, digest, size] for name, digest, size in outputs)])
    return hashlib.sha256(content.encode()).hexdigest()


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
        found = {int(row["step"]): tuple(_number(row.get(name)) for name in _STEP) for row in rows}
    except _NO_CURVE:
        return []
    if any(not 0 <= step < _MOST_STEPS for step in found):
        return []
    return [(step, *values) for step, values in found.items()]  # type: ignore[misc]


def parsed(texts: list[str]) -> list[dict[str, Any]]:
    """Return JSON objects; parsed as one text, tens of thousands share their names and take half the time."""
    from pydantic_core import from_json

    text = f"[{','.join(texts)}]"
    try:
        found: list[dict[str, Any]] = from_json(text, cache_strings="keys")
    except ValueError:  # half of a surrogate pair, from a file's name, is JSON to json alone
        found = json.loads(text)
    return found


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
