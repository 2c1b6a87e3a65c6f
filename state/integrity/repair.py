"""`lora state verify --repair`: damage goes, and what it belonged to is made again; nothing sound is lost."""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.errors import StateError
from lorafile.files.digests import file_digest
from lorafile.files.jsonl import write_lines
from lorafile.state import Objects, State, WritableState, ledger
from lorafile.state.errors import translate_errors
from lorafile.state.index_file import BACKUP, is_surely_as_closed
from lorafile.state.integrity.leftovers import leftovers, list_objects, remove_paths
from lorafile.state.integrity.rows_check import IndexRows, damaged_rows, is_json_object
from lorafile.state.integrity.salvage import Table, readable_rows, replace_index, shapes
from lorafile.state.integrity.verify import Problem, Verification, verify
from lorafile.state.lock import writer_lock
from lorafile.state.records import CURVE, curve_steps

_STEP = ("step", "epoch", "loss", "learning_rate", "grad_norm")
Damage = tuple[Collection[str], Collection[str], Collection[int]]  # keys of nodes, digests of environments, attempts


@dataclass
class RepairReport:
    """What a repair has done.

    :ivar index: where the damaged index is now, if there was one, when a new one was made; `saved`: rows of the new
        one; `lost`: what could not be saved
    :ivar derived: objects that were made again from what else is stored; `retried`: results that are to be made again
    :ivar removed: how many damaged files were taken away
    """

    verification: Verification
    index: Path | None = None
    saved: int = 0
    lost: list[str] = field(default_factory=list)
    derived: int = 0
    retried: list[str] = field(default_factory=list)
    removed: int = 0


def repair(directory: Path, lock_timeout: float = 0.0, tell: Callable[[int, int], None] | None = None) -> RepairReport:
    """Look at everything under the state's lock, and mend what is damaged.

    :raises StateError: when another process holds the state, or a newer version made it
    """
    verification = verify(directory, tell)
    report = RepairReport(verification)
    if verification.index:
        with translate_errors(directory), writer_lock(directory, lock_timeout):
            _make_index(directory, report)
        verification = verify(directory, tell)
    with State.write(directory, lock_timeout) as state:
        for problem in verification.objects:
            if not _restore_curve(state, problem, report):
                _discard(state, problem, report)
        remove_paths([*list_objects(state.objects).temporary, *leftovers(directory)])
    return report


def _make_index(directory: Path, report: RepairReport) -> None:
    """Put every sound row of the index, or else of its copy, into a new one."""
    tables, copy = readable_rows(directory / "state.db"), readable_rows(directory / BACKUP)
    if is_surely_as_closed(directory / BACKUP):
        tables = copy
    merged = _merge(tables, copy, damaged_rows(IndexRows.of_tables(_merge(tables, copy))))
    rows = IndexRows.of_tables(merged)
    nodes, environments, attempts = damaged_rows(rows)

    def of_attempt(row: Any) -> bool:
        return row[0] in rows.attempts and row[0] not in attempts

    is_sound: dict[str, Callable[[Any], bool]] = {
        "environments": lambda row: row[0] not in environments,
        "nodes": lambda row: row[0] not in nodes,
        "attempts": lambda row: row[0] not in attempts,
        "acceptances": lambda row: row[1] in rows.nodes and row[1] not in nodes,
        "collected": lambda row: isinstance(row[0], str),
        "declarations": lambda row: all(isinstance(value, str) for value in row),
        "forecasts": lambda row: of_attempt(row) and is_json_object(row[1]),
    }
    kept = {name: list(filter(is_sound.get(name, of_attempt), table)) for name, table in merged.items()}
    kept["steps"] = _steps(kept, Objects(directory / "objects"))
    report.lost = [f"attempt {at} ({rows.attempts[at].address}): {why}" for at, why in sorted(attempts.items())]
    report.index, report.saved = replace_index(directory, kept), sum(map(len, kept.values()))


def _steps(kept: dict[str, Table], objects: Objects) -> Table:
    """Return the steps of every curve, from its object where that is sound: no seal is over their rows."""
    steps: dict[int, Table] = {}
    for row in kept["steps"]:
        steps.setdefault(row[0], []).append(row)
    for attempt, name, digest, _ in kept["outputs"]:
        if name == CURVE:
            with contextlib.suppress(StateError):
                steps[attempt] = [(attempt, *step) for step in curve_steps(objects.proven(digest))]
    return [row for rows in steps.values() for row in rows]


def _merge(tables: dict[str, Table], copy: dict[str, Table], damage: Damage = ((), (), ())) -> dict[str, Table]:
    """Return the rows of an index; where it has none, or damaged ones, those of its copy."""
    nodes, environments, attempts = damage
    damaged: dict[str, Collection[Any]] = {"nodes": nodes, "environments": environments}
    damaged |= dict.fromkeys(("acceptances", "collected", "declarations"), ())
    merged = {}
    for name, shape in shapes().items():
        if name == "declarations" and tables[name]:
            merged[name] = tables[name]  # the copy may have what is declared no more
            continue
        bad, count = damaged.get(name, attempts), shape.key_columns
        in_copy = {row[0] for row in copy[name if name in ("nodes", "environments") else "attempts"]}
        rows = {row[:count]: row for row in copy[name]}
        rows |= {row[:count]: row for row in tables[name] if row[0] not in bad or row[0] not in in_copy}
        merged[name] = list(rows.values())
    return merged


def _restore_curve(state: State, problem: Problem, report: RepairReport) -> bool:
    """Make a curve again from its rows in the index, where that gives its very bytes."""
    target = state.objects.path(problem.digest)
    made = target.with_name(f".new-{target.name}")
    is_curve = "SELECT 1 FROM outputs WHERE attempt = ? AND name = ? AND digest = ?"
    for attempt in problem.attempts:
        rows = state.rows("SELECT step, epoch, loss, learning_rate, grad_norm FROM steps WHERE attempt = ?", attempt)
        if not rows or not state.rows(is_curve, attempt, CURVE, problem.digest):
            continue
        for epoch in (int, float):  # the index has no whole numbers of epochs
            target.parent.mkdir(parents=True, exist_ok=True)
            write_lines(made, [dict(zip(_STEP, row, strict=True)) | {"epoch": epoch(row[1] or 0)} for row in rows])
            if file_digest(made) == problem.digest:
                made.replace(target)
                report.derived += 1
                return True
        made.unlink(missing_ok=True)
    return False


def _discard(state: WritableState, problem: Problem, report: RepairReport) -> None:
    """Let the results that a damaged object belongs to be made again, and take its bytes away."""
    if problem.attempts:
        ledger.remove(state, problem.attempts, problem.told)
        marks = ", ".join("?" * len(problem.attempts))
        query = f"SELECT address FROM attempts WHERE id IN ({marks})"  # noqa: S608
        report.retried += [address for (address,) in state.rows(query, *problem.attempts)]
    path = state.objects.path(problem.digest)
    if path.exists():
        path.unlink()
        report.removed += 1
