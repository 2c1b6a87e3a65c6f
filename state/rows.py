"""Rows that are made from others: the seal over an attempt, and the steps of its curve."""

import gzip
import hashlib
import json
import math
import sqlite3
import zlib
from pathlib import Path
from typing import Any

CURVE = "curve.jsonl.gz"
COLUMNS = (
    *("key", "kind", "outcome", "message", "started", "seconds", "device"),
    *("figures", "reads", "study", "address"),
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
    """
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        found = {int(row["step"]): tuple(_number(row.get(name)) for name in _STEP) for row in rows}
    except (OSError, EOFError, ValueError, zlib.error, KeyError, TypeError, AttributeError):
        return []
    return [(step, *values) for step, values in found.items()]  # type: ignore[misc]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
