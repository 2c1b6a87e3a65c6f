"""What is said of results afterwards: that they count no more, stand for others, or that their bytes were taken."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lorafile.state.errors import translate_errors
from lorafile.state.rows import COLUMNS, CURVE, curve_steps
from lorafile.state.store import WritableState


@dataclass(frozen=True)
class Arrival:
    """An attempt from elsewhere.

    :ivar values: those of `COLUMNS`, JSON as its text; `outputs`: name, digest and bytes of each file
    """

    values: tuple[Any, ...]
    environment: str
    outputs: list[tuple[str, str, int]]
    seal: str
    forecast: str | None = None


@dataclass
class Arrivals:
    """Rows from elsewhere, sound, whose objects are here as far as they came: `restored` is what was missing before."""

    nodes: list[tuple[str, str, int, str, str]] = field(default_factory=list)
    environments: list[tuple[str, str]] = field(default_factory=list)
    attempts: list[Arrival] = field(default_factory=list)
    declarations: list[tuple[str, str, str, str]] = field(default_factory=list)
    acceptances: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)


def remove(state: WritableState, attempts: Iterable[int], reason: str) -> None:
    """Let attempts count no more, so that a plan does them again; the attempts themselves stay as they are."""
    with translate_errors(state.directory), state.db.atomic():
        rows = [(attempt, now(), reason) for attempt in attempts]
        state.db.conn.executemany("INSERT OR IGNORE INTO removals VALUES (?, ?, ?)", rows)


def accept(state: WritableState, old: str, new: str, kind: str, reason: str) -> None:
    """Let the result of a key be used in the place of another's; what was accepted for that one before is withdrawn."""
    with translate_errors(state.directory), state.db.atomic():
        withdraw(state, new)
        row = {"old": old, "new": new, "kind": kind, "reason": reason, "since": now()}
        state.db.table("acceptances").insert(row)


def withdraw(state: WritableState, new: str) -> int:
    """Let a key stand for itself again; return how many acceptances that ended."""
    with translate_errors(state.directory), state.db.atomic():
        done = state.db.execute(
            "UPDATE acceptances SET withdrawn = ? WHERE new = ? AND withdrawn IS NULL", (now(), new)
        )
        return done.rowcount


def collect(state: WritableState, objects: dict[str, int]) -> None:
    """Note which objects are taken away (digest -> bytes), then take them: that they are missing is no damage."""
    with translate_errors(state.directory):
        with state.db.atomic():
            rows = [(digest, size, now()) for digest, size in objects.items()]
            state.db.conn.executemany("INSERT OR REPLACE INTO collected VALUES (?, ?, ?)", rows)
        for digest in objects:
            state.objects.path(digest).unlink(missing_ok=True)


def merge(state: WritableState, arrivals: Arrivals) -> list[str]:
    """Record what came from elsewhere, all of it or nothing; return the studies that are new here.

    What a study that is known here declares stays as it is, and so does what is accepted in the place of a key.
    """
    with translate_errors(state.directory), state.db.atomic():
        run = state.db.conn.executemany
        run("INSERT OR IGNORE INTO environments VALUES (?, ?)", arrivals.environments)
        run("INSERT OR IGNORE INTO nodes VALUES (?, ?, ?, ?, ?)", arrivals.nodes)
        for arrival in arrivals.attempts:
            _record(state, arrival)
        run("DELETE FROM collected WHERE digest = ?", [(digest,) for digest in arrivals.restored])
        known = {study for (study,) in state.db.execute("SELECT DISTINCT study FROM declarations")}
        new = [row for row in arrivals.declarations if row[0] not in known]
        run("INSERT OR IGNORE INTO declarations VALUES (?, ?, ?, ?)", new)
        run(
            "INSERT INTO acceptances (old, new, kind, reason, since) SELECT ?, ?, ?, ?, ? WHERE ? IN "
            "(SELECT key FROM results) AND ? NOT IN (SELECT new FROM acceptances WHERE withdrawn IS NULL)",
            [(*one, one[0], one[1]) for one in arrivals.acceptances],
        )
        return sorted({row[0] for row in new})


def _record(state: WritableState, arrival: Arrival) -> None:
    marks = ", ".join("?" * (len(COLUMNS) + 1))
    run = state.db.conn.executemany
    done = state.db.conn.execute(
        f"INSERT INTO attempts ({', '.join(COLUMNS)}, environment) VALUES ({marks})",  # noqa: S608
        (*arrival.values, arrival.environment),
    )
    number = done.lastrowid
    run("INSERT INTO outputs VALUES (?, ?, ?, ?)", [(number, *output) for output in arrival.outputs])
    state.db.conn.execute("INSERT INTO seals VALUES (?, ?)", (number, arrival.seal))
    if arrival.forecast is not None:
        state.db.conn.execute("INSERT INTO forecasts VALUES (?, ?)", (number, arrival.forecast))
    for name, digest, size in arrival.outputs:
        if state.objects.has(digest):
            state.db.conn.execute("DELETE FROM collected WHERE digest = ?", (digest,))
            steps = curve_steps(state.objects.path(digest)) if name == CURVE else []
            run("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", [(number, *step) for step in steps])
        else:  # it was never brought here
            state.db.conn.execute("INSERT OR IGNORE INTO collected VALUES (?, ?, ?)", (digest, size, now()))


def now() -> str:
    """Return the time of day as the index has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
