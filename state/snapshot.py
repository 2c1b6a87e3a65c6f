"""Reading the index without disturbing its writer, and saying in sentences what the disk and SQLite say in codes."""

import contextlib
import errno
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lorafile.errors import StateError
from lorafile.state.checksum import prove
from lorafile.state.tables import SCHEMA_VERSION, SECOND, VIEWS
from lorafile.state.tables import statements as created

BACKUP = "state.db.backup"  # a copy of the index, from the last clean close
_TRIES = 20


def read_snapshot(
    database: Path, statements: tuple[str, ...], values: tuple[Any, ...], proven: bool = True
) -> list[list[Any]]:
    """Return the rows of each statement, all from one moment; none where the index is not made yet.

    Where there is no write-ahead log the file is opened as immutable, which leaves no trace and works on read-only
    media, but does not see a writer that begins meanwhile: if the file has changed under the reading, it is read again.

    :param proven: hold it against its checksum first
    :raises StateError: when a newer version made it
    """
    for attempt in range(_TRIES):
        immutable = not database.with_name(database.name + "-wal").exists()
        before = _signature(database)
        try:
            if immutable and proven:
                prove(database)
            rows = _read(database, statements, values, immutable)
        except sqlite3.DatabaseError:
            if attempt == _TRIES - 1 or _signature(database) == before:
                raise
        else:
            if not immutable or _signature(database) == before:
                return rows
        time.sleep(0.02)
    raise StateError(f"The index {database} changes faster than it can be read. Try again.")


def _signature(database: Path) -> tuple[Any, ...]:
    try:
        about = database.stat()
    except FileNotFoundError:
        return ()
    return (about.st_mtime_ns, about.st_size, database.with_name(database.name + "-wal").exists())


def _read(database: Path, statements: tuple[str, ...], values: tuple[Any, ...], immutable: bool) -> list[list[Any]]:
    if not database.exists():
        _check_new(database)
        return [[] for _ in statements]
    mode = "mode=ro&immutable=1" if immutable else "mode=ro"
    address = f"file:{quote(str(database))}?{mode}"
    with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StateError(
                f"The state {database.parent} was written by a newer lorafile (schema {version}; this one knows up to "
                f"{SCHEMA_VERSION}). Nothing was changed. Update with: pip install --upgrade lorafile"
            )
        if version == 0:  # its writer was stopped before it had made the tables
            connection.execute("SELECT count(*) FROM sqlite_master")
            _check_new(database)
            return [[] for _ in statements]
        if version < SCHEMA_VERSION:
            connection.execute("PRAGMA temp_store=MEMORY")
            for statement in created(SECOND + VIEWS, temporary=True):  # beside the tables, which stay as they are
                connection.execute(statement)
        return [connection.execute(statement, values).fetchall() for statement in statements]


def _check_new(database: Path) -> None:
    """Tell an index that is not made yet from one that was lost: nothing is stored before its tables are there."""
    if database.with_name(BACKUP).exists() or any(database.with_name("objects").glob("*")):
        raise sqlite3.DatabaseError("its tables are gone, and the objects are there")


@contextlib.contextmanager
def sound(directory: Path) -> Iterator[None]:
    """Tell rows that are not what they should be."""
    try:
        yield
    except (KeyError, ValueError, TypeError) as error:
        raise StateError(
            f"The index {directory / 'state.db'} has damaged rows ({type(error).__name__}). Nothing was changed. "
            "`lora state verify --repair` names them, and saves every other."
        ) from error


@contextlib.contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Turn what the disk and SQLite say into sentences."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            raise StateError(_full(directory)) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise StateError(_unwritable(directory, str(error))) from error
        raise StateError(
            f"The index {directory / 'state.db'} cannot be read: {error}. Nothing was changed. "
            "`lora state verify --repair` saves every row that can be read; or restore it from a copy."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateError(_full(directory)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StateError(_unwritable(directory, error.strerror or str(error))) from error
        raise


def _full(directory: Path) -> str:
    return (
        f"The disk of the state {directory} is full. Everything that had finished is kept; free some space and run the "
        "same command again."
    )


def _unwritable(directory: Path, why: str) -> str:
    return f"The state {directory} cannot be written: {why}. Change that, or name another with --state or LORA_STATE."
