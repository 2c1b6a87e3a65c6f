"""Reading the index without disturbing its writer, and saying in sentences what the disk and SQLite say in codes."""

import contextlib
import errno
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from lorafile.errors import StateError
from lorafile.state.checksum import Proof
from lorafile.state.tables import SCHEMA_VERSION, SECOND, VIEWS
from lorafile.state.tables import statements as created
from lorafile.state.wal import prove_log

BACKUP = "state.db.backup"  # a copy of the index, from the last clean close
_TRIES = 20
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")  # a path has lost one of its two slashes
Read = TypeVar("Read")


class Moved(Exception):
    """The index changed under somebody who reads it without a log."""


class Moment:
    """One moment of an index, open for as many reads as its reader has; nothing is locked, no trace is left.

    With a write-ahead log it is a read transaction. Without one the file is opened as immutable, which works on
    read-only media; it stays at its moment until a writer folds a log into the file, and then says so.

    :param proven: hold a file without a log against its checksum, and look whether a log is used to its end; that of a
        large file goes on beside its reader, so that what is read counts once `settle` has been called
    """

    def __init__(self, database: Path, proven: bool = True) -> None:
        self._database, self._before = database, _signature(database)
        self._immutable = not self._before[-1]
        self._proof = Proof(database) if self._immutable and proven else None
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = _opened(database, self._immutable)
        except Exception:
            self.settle()
            raise
        if self._connection is not None and not self._immutable and proven:
            try:
                prove_log(database)
            except sqlite3.DatabaseError:
                self.close()
                raise

    def rows(self, statements: tuple[str, ...], values: tuple[Any, ...] = ()) -> list[list[Any]]:
        """Return the rows of each statement; none where the index was not made yet.

        :raises Moved: when the file is no longer as it was
        """
        if self._connection is None:
            return [[] for _ in statements]
        try:
            found = [self._connection.execute(statement, values).fetchall() for statement in statements]
        except Exception:
            self._check_still()
            raise
        self._check_still()
        return found

    def settle(self) -> None:
        """Wait until the index is proven; it may be called again.

        :raises sqlite3.DatabaseError: when it is not what it was when it was last closed; OSError: when nobody can tell
        :raises Moved: when the file is no longer as it was
        """
        try:
            if self._proof is not None:
                self._proof.settle()
        except sqlite3.DatabaseError:
            self._check_still()
            raise
        if self._connection is not None:
            self._check_still()  # what was proven is what was read

    def _check_still(self) -> None:
        """Tell a file that changed: what was wrong with it is no damage."""
        if self._immutable and _signature(self._database)[:-1] != self._before[:-1]:
            raise Moved

    def close(self) -> None:
        """Let go of it."""
        if self._connection is not None:
            self._connection.close()


def read_snapshot(
    database: Path, statements: tuple[str, ...], values: tuple[Any, ...], proven: bool = True
) -> list[list[Any]]:
    """Return the rows of each statement, all from one moment; none where the index is not made yet.

    :raises StateError: when a newer version made it
    """

    def read() -> list[list[Any]]:
        with contextlib.closing(Moment(database, proven)) as moment:
            try:
                found = moment.rows(statements, values)
            except Exception:
                moment.settle()  # says it in place of whatever a damaged index led to
                raise
            moment.settle()
            return found

    return steady(database, read)


def steady(database: Path, read: Callable[[], Read]) -> Read:
    """Return what is read of an index, read again where it changed meanwhile."""
    for attempt in range(_TRIES):
        before = _signature(database)
        try:
            return read()
        except Moved:
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
    log = database.with_name(database.name + "-wal").exists()
    return (about.st_mtime_ns, about.st_size, about.st_ino, log)


def _opened(database: Path, immutable: bool) -> sqlite3.Connection | None:
    """Return a connection that stays at one moment; None where the index is not made yet."""
    if not database.exists():
        _check_new(database)
        return None
    mode = "mode=ro&immutable=1" if immutable else "mode=ro"
    address = f"file:{quote(str(database))}?{mode}"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("BEGIN")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StateError(
                f"The state {database.parent} was written by a newer lorafile (schema {version}; this one knows up to "
                f"{SCHEMA_VERSION}). Nothing was changed. Update with: pip install --upgrade lorafile"
            )
        connection.execute("SELECT count(*) FROM sqlite_master")
        if version == 0:  # its writer was stopped before it had made the tables
            _check_new(database)
            connection.close()
            return None
        if version < SCHEMA_VERSION:
            connection.execute("PRAGMA temp_store=MEMORY")
            for statement in created(SECOND + VIEWS, temporary=True):  # beside the tables, which stay as they are
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def check_directory(directory: Path) -> None:
    """Refuse what cannot be a state.

    :raises StateError: when it is a URL, or when it is there, and no directory with an index that is a file
    """
    if url := _URL.match(str(directory)):
        raise StateError(
            f"The state {url[1]}://{url[2]} is a URL, and a state is a directory on this machine. Name one with "
            "--state or LORA_STATE."
        )
    if directory.exists() and not directory.is_dir():
        raise StateError(f"{directory} is not a directory, so it cannot be a state. Name another with --state.")
    index = directory / "state.db"
    if index.exists() and not index.is_file():  # a device or a pipe would be read without end
        raise StateError(f"{index} is no file, so {directory} cannot be a state. Name another with --state.")


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
def explained(directory: Path, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn what the disk and SQLite say into sentences; not what the caller looks at itself."""
    try:
        yield
    except but:
        raise
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            raise StateError(_full(directory)) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise StateError(_unwritable(directory, f"state.db: {error}")) from error
        if "disk I/O error" in str(error):
            raise failing(directory, f"{directory / 'state.db'}: {error}") from error
        raise StateError(
            f"The index {directory / 'state.db'} cannot be read: {error}. Nothing was changed. "
            "`lora state verify --repair` saves every row that can be read; or restore it from a copy."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateError(_full(directory)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StateError(_unwritable(directory, error.strerror or str(error))) from error
        if error.errno == errno.EIO:
            named = f"{error.filename}: " if error.filename else ""
            raise failing(directory, named + (error.strerror or str(error))) from error
        raise


def _full(directory: Path) -> str:
    return (
        f"The disk of the state {directory} is full. Everything that had finished is kept; free some space and run the "
        "same command again."
    )


def _unwritable(directory: Path, why: str) -> str:
    return f"The state {directory} cannot be written: {why}. Change that, or name another with --state or LORA_STATE."


def failing(directory: Path, why: str) -> StateError:
    """Return what is said of a disk that does not read or write: no reason to make anything again."""
    return StateError(
        f"The disk of the state {directory} fails: {why}. Everything that had finished is kept; look after the disk, "
        "then run `lora state verify` and the same command again."
    )
