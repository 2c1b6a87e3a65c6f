"""What can still be read of a damaged index, and a sound index in its place.

SQLite gives up a table at its first damaged page, and has no `.recover` outside of its shell. Rows on other pages are
finished work, so they are searched for by their numbers and keys.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorafile.files.atomic import sync
from lorafile.state.index_file import connect_read_only, drop_checksum, has_log
from lorafile.state.tables import FIRST, SCHEMA_VERSION, SECOND, statements

Table = list[tuple[Any, ...]]

_SMALLEST_ROW = 16  # bytes
_NO_SUCH_TABLE = ("no such table", "not a database", "malformed database")  # the list of tables is what is damaged


@dataclass(frozen=True)
class Shape:
    """How a table is built; the first `key_columns` of its columns identify a row."""

    columns: list[str]
    key_columns: int
    has_rowid: bool


def shapes() -> dict[str, Shape]:
    """Return the shape of each table of this version's index, `attempts` before what refers to it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements(FIRST, SECOND):
            connection.execute(statement)
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
        by_name = {}
        for name, sql in tables.fetchall():
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            key_columns = sum(column[5] > 0 for column in columns)
            by_name[name] = Shape([column[1] for column in columns], key_columns, not sql.endswith("WITHOUT ROWID"))
    return by_name


def readable_rows(database: Path) -> dict[str, Table]:
    """Return the rows of each table that SQLite can still read, however few."""
    tables: dict[str, Table] = {name: [] for name in shapes()}
    if not database.exists():
        return tables
    with contextlib.closing(connect_read_only(database, not has_log(database))) as connection:
        for name, shape in shapes().items():
            if shape.has_rowid:
                rows = _by_rowid(connection, name, database.stat().st_size // _SMALLEST_ROW)
            elif shape.columns[0] == "attempt":
                rows = _by_attempt(connection, name, [row[0] for row in tables["attempts"]])
            else:
                rows = _from_both_ends(connection, name)
            tables[name] = [row for row in rows if len(row) == len(shape.columns)]
    return tables


def _by_rowid(connection: sqlite3.Connection, table: str, bound: int) -> Table:
    """Return a table's rows; where a range of row numbers cannot be read, its halves are tried."""
    with contextlib.suppress(sqlite3.DatabaseError):
        (highest,) = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()  # noqa: S608
        bound = min(bound, highest or 0)
    rows: Table = []
    ranges = [(0, bound)]
    while ranges:
        low, high = ranges.pop()
        query = f"SELECT * FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ?"  # noqa: S608
        try:
            rows += connection.execute(query, (low, high)).fetchall()
        except sqlite3.DatabaseError as error:
            if any(text in str(error) for text in _NO_SUCH_TABLE):
                break
            middle = (low + high) // 2
            if low < high:
                ranges += [(middle + 1, high), (low, middle)]
    return rows


def _by_attempt(connection: sqlite3.Connection, table: str, attempts: list[Any]) -> Table:
    rows: Table = []
    for attempt in attempts:
        with contextlib.suppress(sqlite3.DatabaseError):
            rows += connection.execute(f"SELECT * FROM {table} WHERE attempt = ?", (attempt,)).fetchall()  # noqa: S608
    return rows


def _from_both_ends(connection: sqlite3.Connection, table: str) -> Table:
    rows: dict[tuple[Any, ...], None] = {}
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1 {order}, 2 {order}"):  # noqa: S608
                rows[row] = None
    return list(rows)


def replace_index(directory: Path, tables: dict[str, Table]) -> Path:
    """Make a new index of some rows and put it in the place of the old one, which stays next to it under a dated name.

    The caller holds the state's lock.

    :return: where the old one is now
    """
    database = directory / "state.db"
    kept = directory / f"state.db.damaged-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%f}"
    workshop = Path(tempfile.mkdtemp(prefix="state.db.new-", dir=directory))
    try:
        _write(workshop / "state.db", tables)
        drop_checksum(directory)
        if database.exists():
            shutil.copyfile(database, kept)
        for end in ("-wal", "-shm"):  # a log that belongs to the old one would be written over the new one
            log = database.with_name(database.name + end)
            if log.exists():
                log.replace(kept.with_name(kept.name + end))
        (workshop / "state.db").replace(database)
        sync(directory)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return kept


def _write(file: Path, tables: dict[str, Table]) -> None:
    from sqlite_utils import Database

    from lorafile.state.migrations import migrations

    with contextlib.closing(sqlite3.connect(file)) as connection:
        migrations.apply(Database(connection))
        for name, rows in tables.items():
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)  # noqa: S608
        connection.commit()
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    sync(file)
