"""What can still be read of a damaged index, and a sound one in its place."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lorafile.state.checksum import drop_sum
from lorafile.state.objects import sync_directory
from lorafile.state.read_transaction import BACKUP
from lorafile.state.tables import FIRST, SCHEMA_VERSION, SECOND, statements

Table = list[tuple[Any, ...]]

_SMALLEST_ROW = 16  # bytes


def readable(database: Path) -> dict[str, Table]:
    """Return the rows of each table that SQLite can still give back, however little that is."""
    tables = _tables()
    found: dict[str, Table] = {name: [] for name in tables}
    if not database.exists():
        return found
    with _opened(database) as connection:
        for name, (columns, has_rowid) in tables.items():
            if has_rowid:
                rows = _by_rowid(connection, name, database.stat().st_size // _SMALLEST_ROW)
            elif columns[0] == "attempt":
                rows = _by_attempt(connection, name, [row[0] for row in found["attempts"]])
            else:
                rows = _from_both_ends(connection, name)
            found[name] = [row for row in rows if len(row) == len(columns)]
    return found


def _tables() -> dict[str, tuple[list[str], bool]]:
    """Return table -> its columns, and whether its rows have numbers; `attempts` before what refers to it."""
    return {name: (columns, has_rowid) for name, (columns, _, has_rowid) in _described().items()}


def names_of_rows() -> dict[str, int]:
    """Return table -> how many of its first columns tell its rows apart."""
    return {name: count for name, (_, count, _) in _described().items()}


def _described() -> dict[str, tuple[list[str], int, bool]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements(FIRST + SECOND):
            connection.execute(statement)
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
        found = {}
        for name, sql in made:
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            count = sum(row[5] > 0 for row in columns)
            found[name] = ([row[1] for row in columns], count, not sql.endswith("WITHOUT ROWID"))
    return found


def _by_attempt(connection: sqlite3.Connection, table: str, attempts: list[Any]) -> Table:
    found: Table = []
    for attempt in attempts:
        with contextlib.suppress(sqlite3.DatabaseError):
            found += connection.execute(f"SELECT * FROM {table} WHERE attempt = ?", (attempt,)).fetchall()  # noqa: S608
    return found


@contextlib.contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    untouched = "" if database.with_name(database.name + "-wal").exists() else "&immutable=1"
    address = f"file:{quote(str(database))}?mode=ro{untouched}"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        yield connection


def _by_rowid(connection: sqlite3.Connection, table: str, bound: int) -> Table:
    """Return a table's rows; where a stretch cannot be read, its halves are tried."""
    with contextlib.suppress(sqlite3.DatabaseError):
        (highest,) = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()  # noqa: S608
        bound = min(bound, highest or 0)
    found: Table = []
    waiting = [(0, bound)]
    while waiting:
        low, high = waiting.pop()
        statement = f"SELECT * FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ?"  # noqa: S608
        try:
            found += connection.execute(statement, (low, high)).fetchall()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error) or "not a database" in str(error) or "malformed database" in str(error):
                break  # the list of tables is what is damaged
            middle = (low + high) // 2
            if low < high:
                waiting += [(middle + 1, high), (low, middle)]
    return found


def _from_both_ends(connection: sqlite3.Connection, table: str) -> Table:
    found: dict[tuple[Any, ...], None] = {}
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1 {order}, 2 {order}"):  # noqa: S608
                found[row] = None
    return list(found)


def put_in_place(directory: Path, tables: dict[str, Table]) -> Path:
    """Make a new index of some rows and put it in the place of the old one, which stays beside it under a dated name.

    Nobody but the caller may hold the state's lock.

    :return: where the old one is now
    """
    database = directory / "state.db"
    kept = directory / f"state.db.damaged-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%f}"
    workshop = Path(tempfile.mkdtemp(prefix="state.db.new-", dir=directory))
    try:
        _write(workshop / "state.db", tables)
        drop_sum(directory)
        if database.exists():
            shutil.copyfile(database, kept)
        for end in ("-wal", "-shm"):  # a log that belongs to the old one would be written over the new one
            log = database.with_name(database.name + end)
            if log.exists():
                log.replace(kept.with_name(kept.name + end))
        (workshop / "state.db").replace(database)
        sync_directory(directory)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return kept


def _write(file: Path, tables: dict[str, Table]) -> None:
    from sqlite_utils import Database

    from lorafile.state.migrations import migrations

    with contextlib.closing(sqlite3.connect(file)) as connection:
        migrations.apply(Database(connection))
        for name, rows in ((name, rows) for name, rows in tables.items() if rows):
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)  # noqa: S608
        connection.commit()
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    _on_disk(file)


def back_up(directory: Path) -> None:
    """Keep a copy of the index beside it, from which damaged rows can be read; a damaged one is not copied.

    Nobody but the caller may hold the state's lock; where there is no room for a copy there is none.
    """
    database, copy = directory / "state.db", directory / "state.db.new-backup"
    try:
        if is_database(database):
            shutil.copyfile(database, copy)
            _on_disk(copy)
            copy.replace(directory / BACKUP)
            sync_directory(directory)
    except OSError:
        copy.unlink(missing_ok=True)


def is_database(file: Path) -> bool:
    """Return whether SQLite finds nothing wrong with how an index, or a copy of one, is built."""
    if not file.is_file():
        return False
    with contextlib.suppress(sqlite3.DatabaseError), _opened(file) as connection:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    return False


def _on_disk(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
