"""What is said of results afterwards: that they count no more, stand for others, or that their bytes were taken."""

from collections.abc import Iterable
from datetime import UTC, datetime

from lorafile.state.snapshot import explained
from lorafile.state.store import WritableState


def remove(state: WritableState, attempts: Iterable[int], reason: str) -> None:
    """Let attempts count no more, so that a plan does them again; the attempts themselves stay as they are."""
    with explained(state.directory), state.db.atomic():
        rows = [(attempt, now(), reason) for attempt in attempts]
        state.db.conn.executemany("INSERT OR IGNORE INTO removals VALUES (?, ?, ?)", rows)


def accept(state: WritableState, old: str, new: str, kind: str, reason: str) -> None:
    """Let the result of a key be used in the place of another's; what was accepted for that one before is withdrawn."""
    with explained(state.directory), state.db.atomic():
        withdraw(state, new)
        row = {"old": old, "new": new, "kind": kind, "reason": reason, "since": now()}
        state.db.table("acceptances").insert(row)


def withdraw(state: WritableState, new: str) -> int:
    """Let a key stand for itself again; return how many acceptances that ended."""
    with explained(state.directory), state.db.atomic():
        done = state.db.execute(
            "UPDATE acceptances SET withdrawn = ? WHERE new = ? AND withdrawn IS NULL", (now(), new)
        )
        return done.rowcount


def collect(state: WritableState, objects: dict[str, int]) -> None:
    """Note which objects are taken away (digest -> bytes), then take them: that they are missing is no damage."""
    with explained(state.directory):
        with state.db.atomic():
            rows = [(digest, size, now()) for digest, size in objects.items()]
            state.db.conn.executemany("INSERT OR REPLACE INTO collected VALUES (?, ?, ?)", rows)
        for digest in objects:
            state.objects.path(digest).unlink(missing_ok=True)


def now() -> str:
    """Return the time of day as the index has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
