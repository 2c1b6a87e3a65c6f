"""How an older index becomes a newer one."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from sqlite_utils.migrations import Migrations

from lorafile.state.records import curve_steps, seal_of
from lorafile.state.tables import FIRST, SECOND, VIEWS, statements

if TYPE_CHECKING:
    from sqlite_utils import Database

migrations = Migrations("lorafile")


@migrations()
def first(db: "Database") -> None:
    """Create the tables."""
    for statement in statements(FIRST):
        db.execute(statement)


@migrations()
def second(db: "Database") -> None:
    """Add what says that a result counts no more, or for another, seals, and curves, read from their objects."""
    for statement in statements(SECOND, VIEWS):
        db.execute(statement)
    for (attempt,) in db.execute("SELECT id FROM attempts").fetchall():
        db.execute("INSERT INTO seals VALUES (?, ?)", (attempt, seal_of(db.conn, attempt)))
    database = next(row[2] for row in db.execute("PRAGMA database_list").fetchall() if row[1] == "main")
    objects = Path(database).parent / "objects"
    for attempt, digest in db.execute("SELECT attempt, digest FROM outputs WHERE name = 'curve.jsonl.gz'").fetchall():
        rows = []
        with contextlib.suppress(OSError):  # `lora state verify` names what the disk does not give back
            rows = curve_steps(objects / digest[:2] / digest)
        db.conn.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", [(attempt, *row) for row in rows])
