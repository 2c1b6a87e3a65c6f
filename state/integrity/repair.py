"""`lora state verify --repair`: damage goes, and what it belonged to is made again; nothing sound is lost."""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.errors import StateError
from lorafile.files.digests import file_digest
from lorafile.files.jsonl import write_lines
from lorafile.state import Objects, State, ledger
from lorafile.state.errors import translate_errors
from lorafile.state.index_file import BACKUP, is_surely_as_closed
from lorafile.state.integrity.leftovers import leftovers, lying, take_away
from lorafile.state.integrity.rows_check import Rows, rows_of, table, unsound
from lorafile.state.integrity.salvage import Table, readable_rows, replace_index, shapes
from lorafile.state.integrity.verify import Damage, Verified, verify
from lorafile.state.lock import writer_lock
from lorafile.state.rows import CURVE, curve_steps

_STEP = ("step", "epoch", "loss", "learning_rate", "grad_norm")


@dataclass
class Repaired:
    """What a repair has done.

    :ivar index: where the damaged index is now, if there was one, when a new one was made; `saved`: rows of the new
        one; `lost`: what could not be saved
    :ivar derived: objects that were made again from what else is stored; `retried`: results that are to be made again
    :ivar removed: how many damaged files were taken away
    """

    found: Verified
    index: Path | None = None
    saved: int = 0
    lost: list[str] = field(default_factory=list)
    derived: int = 0
    retried: list[str] = field(default_factory=list)
    removed: int = 0


def repair(directory: Path, lock_timeout: float = 0.0, tell: Callable[[int, int], None] | None = None) -> Repaired:
    """Look at everything under the state's lock, and mend what is damaged.

    :raises StateError: when another process holds the state, or a newer version made it
    """
    found = verify(directory, tell)
    done = Repaired(found)
    if found.index:
        with translate_errors(directory), writer_lock(directory, lock_timeout):
            _new_index(directory, done)
        found = verify(directory, tell)
    with State.write(directory, lock_timeout) as state:
        for damage in found.objects:
            if not _derived(state, damage, done):
                _let_go(state, damage, done)
        take_away([*lying(state.objects).temporary, *leftovers(directory)])
    return done


def _new_index(directory: Path, done: Repaired) -> None:
    """Put every sound row of the index, or else of its copy, into a new one."""
    tables, copy = readable_rows(directory / "state.db"), readable_rows(directory / BACKUP)
    if is_surely_as_closed(directory / BACKUP):
        tables = copy
    united = _united(tables, copy, set(), set(), set())
    united = _united(tables, copy, *unsound(_rows(united)))
    rows = _rows(united)
    nodes, environments, attempts = unsound(rows)
    good: dict[str, Callable[[Any], bool]] = {
        "environments": lambda row: row[0] not in environments,
        "nodes": lambda row: row[0] not in nodes,
        "attempts": lambda row: row[0] not in attempts,
        "acceptances": lambda row: row[1] in rows.nodes and row[1] not in nodes,
        "collected": lambda row: isinstance(row[0], str),
        "declarations": lambda row: all(isinstance(value, str) for value in row),
    }

    def of_attempt(row: Any) -> bool:
        return row[0] in rows.attempts and row[0] not in attempts

    good["forecasts"] = lambda row: of_attempt(row) and table(row[1])
    kept = {name: list(filter(good.get(name, of_attempt), found)) for name, found in united.items()}
    kept["steps"] = _steps(kept, Objects(directory / "objects"))
    done.lost = [f"attempt {at} ({rows.attempts[at].address}): {why}" for at, why in sorted(attempts.items())]
    done.index, done.saved = replace_index(directory, kept), sum(map(len, kept.values()))


def _steps(kept: dict[str, Table], objects: Objects) -> Table:
    """Return the steps of every curve, from its object where that is sound: no seal is over their rows."""
    found: dict[int, Table] = {}
    for row in kept["steps"]:
        found.setdefault(row[0], []).append(row)
    for attempt, name, digest, _ in kept["outputs"]:
        if name == CURVE:
            with contextlib.suppress(StateError):
                found[attempt] = [(attempt, *step) for step in curve_steps(objects.proven(digest))]
    return [row for rows in found.values() for row in rows]


def _united(
    tables: dict[str, Table],
    copy: dict[str, Table],
    nodes: Collection[str],
    environments: Collection[str],
    attempts: Collection[int],
) -> dict[str, Table]:
    """Return the rows of an index, and where it has none, or has damaged ones that are named, those of its copy."""
    damaged: dict[str, Collection[Any]] = {"nodes": nodes, "environments": environments}
    found = {}
    for name, shape in shapes().items():
        if name == "declarations" and tables[name]:
            found[name] = tables[name]  # the copy may have what is declared no more
            continue
        bad = damaged.get(name, () if name in ("acceptances", "collected", "declarations") else attempts)
        known = {row[0] for row in copy[name if name in damaged else "attempts"]}
        rows = {row[: shape.key_columns]: row for row in copy[name]}
        rows |= {row[: shape.key_columns]: row for row in tables[name] if row[0] not in bad or row[0] not in known}
        found[name] = list(rows.values())
    return found


def _rows(tables: dict[str, Table]) -> Rows:
    names = ("nodes", "environments", "attempts", "outputs", "seals", "removals", "collected", "forecasts")
    return rows_of(*(tables[name] for name in names))


def _derived(state: State, damage: Damage, done: Repaired) -> bool:
    """Make a curve again from its rows in the index, where that gives its very bytes."""
    target = state.objects.path(damage.digest)
    made = target.with_name(f".new-{target.name}")
    for attempt in damage.attempts:
        rows = state.rows("SELECT step, epoch, loss, learning_rate, grad_norm FROM steps WHERE attempt = ?", attempt)
        named = state.rows(
            "SELECT 1 FROM outputs WHERE attempt = ? AND name = ? AND digest = ?", attempt, CURVE, damage.digest
        )
        for epoch in (int, float) if rows and named else ():  # the index has no whole numbers of epochs
            target.parent.mkdir(parents=True, exist_ok=True)
            write_lines(made, [dict(zip(_STEP, row, strict=True)) | {"epoch": epoch(row[1] or 0)} for row in rows])
            if file_digest(made) == damage.digest:
                made.replace(target)
                done.derived += 1
                return True
        made.unlink(missing_ok=True)
    return False


def _let_go(state: Any, damage: Damage, done: Repaired) -> None:
    """Let the results that a damaged object belongs to be made again, and take its bytes away."""
    if damage.attempts:
        ledger.remove(state, damage.attempts, damage.told)
        marks = ", ".join("?" * len(damage.attempts))
        done.retried += [
            row[0]
            for row in state.rows(f"SELECT address FROM attempts WHERE id IN ({marks})", *damage.attempts)  # noqa: S608
        ]
    path = state.objects.path(damage.digest)
    if path.exists():
        path.unlink()
        done.removed += 1
