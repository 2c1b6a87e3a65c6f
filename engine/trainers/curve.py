"""The curve that a program writes: a JSON line for each optimizer step, read while it grows."""

import json
import math
from pathlib import Path
from typing import Any

_NAMES = ("step", "steps", "loss", "learning_rate", "epoch", "grad_norm", "tokens")
_LONGEST = 1 << 16  # bytes of a line


class ProgramCurve:
    """The rows of a program's curve, each step once: a run that goes on from a checkpoint takes steps again.

    :ivar wrong: why a line was no row, of the first such line
    :ivar resumed_from: the steps from which it went on
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []
        self.wrong = ""
        self.resumed_from: list[int] = []
        self._offset = 0
        self._lines = 0

    def read(self) -> bool:
        """Read what was added; return whether earlier rows were dropped because their steps were taken again."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self._offset)
                content = stream.read()
        except FileNotFoundError:
            return False
        whole = content.rpartition(b"\n")[0]
        if not whole:
            return False
        self._offset += len(whole) + 1
        again = False
        for line in whole.split(b"\n"):
            self._lines += 1
            row = self._row(line)
            if row is not None:
                again |= self._add(row)
        return again

    def _add(self, row: dict[str, Any]) -> bool:
        taken = [at for at, earlier in enumerate(self.rows) if earlier["step"] >= row["step"]] if self.rows else []
        if taken:
            self.resumed_from.append(row["step"] - 1)
            del self.rows[taken[0] :]
        self.rows.append(row)
        return bool(taken)

    def _row(self, line: bytes) -> dict[str, Any] | None:
        """Return a line as a row; None, and why, where it is none."""
        try:
            row = json.loads(line) if len(line) <= _LONGEST else None
        except ValueError:
            row = None
        if not isinstance(row, dict):
            why = "is not a JSON object"
        elif not isinstance(row.get("step"), int) or isinstance(row["step"], bool) or row["step"] < 1:
            why = "has no step, counted from 1"
        elif missing := [name for name in ("loss", "learning_rate") if not _is_number(row.get(name))]:
            why = f"has no {missing[0]}"
        else:
            return {name: row[name] for name in _NAMES if _is_number(row.get(name))}
        self.wrong = self.wrong or f"line {self._lines} of its curve {why}"
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(rows: list[dict[str, Any]]) -> bool:
    """Return whether every loss is a number."""
    return all(math.isfinite(row["loss"]) for row in rows)
