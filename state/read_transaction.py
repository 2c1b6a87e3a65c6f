"""Reading the index at one moment without disturbing its writer."""

import contextlib
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lorafile.errors import StateError
from lorafile.state.index_file import BACKUP, ChecksumThread, check_checksum, check_log, connect_read_only, has_log
from lorafile.state.tables import SCHEMA_VERSION, SECOND, VIEWS, statements

_TRIES = 20
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")  # a path has lost one of its two slashes
Read = TypeVar("Read")
ReadRows = Callable[[sqlite3.Cursor], list[Any]]
all_rows: ReadRows = sqlite3.Cursor.fetchall


class IndexChanged(Exception):
    """The index changed while it was read without a write-ahead log."""


class ReadTransaction:
    """The index as it was at one moment, for as many queries as its reader has; it takes no lock and leaves no trace.

    With a write-ahead log it is a transaction of SQLite. Without one the file is opened as immutable, which works on
    read-only media; it stays at its moment until a writer folds a log into the file, which raises IndexChanged.

    :ivar is_immutable: whether it has no log, so that what is read of the file elsewhere is of the same moment

    :param proven: compare a file without a log with its checksum, and look whether a log is used to its end; reading
        the file goes on in a thread, so that what was queried counts once `settle` has been called
    """

    def __init__(self, database: Path, proven: bool = True) -> None:
        self._database, self._before = database, _signature(database)
        self.is_immutable = not self._before[-1]
        self._checksum = ChecksumThread(database) if self.is_immutable and proven else None
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = _connect(database, self.is_immutable)
        except Exception:
            self.settle()
            raise
        if self._connection is not None and not self.is_immutable and proven:
            try:
                check_log(database)
            except sqlite3.DatabaseError:
                self.close()
                raise

    def query(
        self, queries: tuple[str, ...], values: tuple[Any, ...] = (), read: ReadRows = all_rows
    ) -> list[list[Any]]:
        """Return the rows of each query; none where the index was not made yet.

        :param read: what takes them from a cursor
        :raises IndexChanged: when the file is no longer as it was
        """
        if self._connection is None:
            return [[] for _ in queries]
        try:
            rows = [read(self._connection.execute(query, values)) for query in queries]
        except Exception:
            self._check_unchanged()
            raise
        self._check_unchanged()
        return rows

    def settle(self) -> None:
        """Wait until the index is proven; it may be called again.

        :raises sqlite3.DatabaseError: when it has changed since it was last closed
        :raises OSError: when it cannot be read
        :raises IndexChanged: when the file is no longer as it was
        """
        try:
            if self._checksum is not None:
                self._checksum.result()
        except sqlite3.DatabaseError:
            self._check_unchanged()
            raise
        if self._connection is not None:
            self._check_unchanged()  # what was proven is what was read

    def _check_unchanged(self) -> None:
        if self.is_immutable and _signature(self._database)[:-1] != self._before[:-1]:
            raise IndexChanged  # what was wrong with it is no damage

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def read_index(
    database: Path,
    queries: tuple[str, ...],
    values: tuple[Any, ...] = (),
    proven: bool = True,
    take: ReadRows = all_rows,
) -> list[list[Any]]:
    """Return the rows of each query, all from one moment; none where the index is not made yet.

    :raises StateError: when a newer version made it
    """

    def read() -> list[list[Any]]:
        with contextlib.closing(ReadTransaction(database, proven)) as transaction:
            try:
                rows = transaction.query(queries, values, take)
            except Exception:
                transaction.settle()  # its error goes before whatever a damaged index led to
                raise
            transaction.settle()
            return rows

    return retry_if_changed(database, read)


def retry_if_changed(database: Path, read: Callable[[], Read]) -> Read:
    """Return what is read of an index, read again where it changed meanwhile."""
    for attempt in range(_TRIES):
        before = _signature(database)
        try:
            return read()
        except IndexChanged:
            pass
        except sqlite3.DatabaseError:
            if attempt == _TRIES - 1 or _signature(database) == before:
                raise
        time.sleep(0.02)
    raise StateError(f"The index {database} changes faster than it can be read. Try again.")


def _signature(database: Path) -> tuple[Any, ...]:
    """Return what tells that an index was changed: time, size and number of the file, and whether it has a log."""
    try:
        about = database.stat()
    except FileNotFoundError:
        return (False,)
    return (about.st_mtime_ns, about.st_size, about.st_ino, has_log(database))


def _connect(database: Path, immutable: bool) -> sqlite3.Connection | None:
    """Return a connection that stays at one moment; None where the index is not made yet."""
    if not database.exists():
        _check_not_lost(database)
        return None
    connection = connect_read_only(database, immutable)
    try:
        connection.execute("BEGIN")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            if not has_log(database):
                check_checksum(database)  # a damaged header may say anything
            raise StateError(
                f"The state {database.parent} was written by a newer lorafile (schema {version}; this one reads up to "
                f"{SCHEMA_VERSION}). Nothing was changed. Update with: pip install --upgrade lorafile"
            )
        connection.execute("SELECT count(*) FROM sqlite_master")
        if version == 0:  # its writer was stopped before it had made the tables
            _check_not_lost(database)
            connection.close()
            return None
        if version < SCHEMA_VERSION:
            connection.execute("PRAGMA temp_store=MEMORY")
            for statement in statements(SECOND, VIEWS, temporary=True):  # the tables stay as they are
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_not_lost(database: Path) -> None:
    """Tell an index that is not made yet from one that was lost: nothing is stored before its tables are there."""
    if database.with_name(BACKUP).exists() or any(database.with_name("objects").glob("*")):
        raise sqlite3.DatabaseError("its tables are missing, but the objects exist")


def check_directory(directory: Path) -> None:
    """Refuse what cannot be a state.

    :raises StateError: when it is a URL, or when it is there, and no directory with an index that is a file
    """
    if url := _URL.match(str(directory)):
        raise StateError(
            f"The state {url[1]}://{url[2]} is a URL, but a directory is needed here. Use the one that "
            "lorafile.state.remote.connect returns for the URL."
        )
    if directory.exists() and not directory.is_dir():
        raise StateError(f"{directory} is not a directory, so it cannot be a state. Pass another with --state.")
    index = directory / "state.db"
    if index.exists() and not index.is_file():  # a device or a pipe would be read without end
        raise StateError(f"{index} is not a file, so {directory} cannot be a state. Pass another with --state.")
