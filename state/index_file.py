"""The index as a file: its checksum, its write-ahead log, and its copy from the last clean close.

SQLite checks none of its pages, and of a log it reads only what comes before the first frame with a wrong checksum, in
silence. So a checksum of the whole file is kept next to it, and a log is searched for transactions that SQLite ignores.
"""

import contextlib
import shutil
import sqlite3
import stat
import struct
import threading
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from lorafile.errors import named
from lorafile.files.atomic import sync

CHECKSUM, BACKUP = "state.db.sum", "state.db.backup"
_CHUNK = 1 << 23
_proven: set[tuple[str, int, int]] = set()  # files that were read whole by this process, as they were then
# The formats of a log and of its index: sqlite.org/fileformat2.html, 4.1, and sqlite.org/walformat.html, 2.1
_LOG_HEADER, _FRAME_HEADER, _INDEX_HEADER = 32, 24, 48  # bytes
_BYTE_ORDERS = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}  # of the words that a log's checksums are over
_DEFAULT_PAGE_SIZE, _SMALLEST_PAGE, _LARGEST_PAGE = 4096, 512, 65536


class _Connection(sqlite3.Connection):
    """A connection to an index; the files that were read meanwhile are closed after it (see `_reading`)."""

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute one statement.

        :raises sqlite3.DatabaseError: also where SQLite's own message quotes damaged text, which Python cannot decode
        """
        try:
            return super().execute(*arguments)
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError("malformed database schema") from error

    def close(self) -> None:
        super().close()
        with _guard:
            _connections.discard(self)
            _close_read()


_guard = threading.Lock()
_connections: weakref.WeakSet[_Connection] = weakref.WeakSet()  # the open ones of this process
_read: list[BinaryIO] = []  # files to close when none is open


def connect(database: Path | str, **options: Any) -> sqlite3.Connection:
    """Return a connection to an index; every one of this process is made here."""
    connection = sqlite3.connect(database, factory=_Connection, **options)
    with _guard:
        _connections.add(connection)
    return connection


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[BinaryIO]:
    """Open a file that SQLite may hold locks on, and close it when this process has no connection to an index.

    When a process closes a file, it loses all the locks that it has on it (POSIX): a writer elsewhere would then take
    away the log that a connection of this process is still reading.
    """
    with named(file):
        stream = file.open("rb")
        try:
            yield stream
        finally:
            with _guard:
                _read.append(stream)
                _close_read()


def _close_read() -> None:
    while _read and not _connections:
        _read.pop().close()


def connect_read_only(database: Path, immutable: bool) -> sqlite3.Connection:
    """Return a connection that writes nothing.

    :param immutable: for a file without a log that no process writes: it needs no lock and leaves no files next to it
    """
    mode = "mode=ro&immutable=1" if immutable else "mode=ro"
    return connect(f"file:{quote(str(database))}?{mode}", uri=True, isolation_level=None)


def has_log(database: Path) -> bool:
    """Return whether an index has a write-ahead log: it is in use, or was not closed cleanly."""
    return database.with_name(database.name + "-wal").exists()


def write_checksum(directory: Path) -> None:
    """Store the checksum of an index that no process has open; without room for it nothing is checked."""
    new = directory / "state.db.new-sum"
    with contextlib.suppress(OSError):
        new.write_text(_checksum(directory / "state.db"), encoding="ascii")
        sync(new)
        new.replace(directory / CHECKSUM)
        sync(directory)


def drop_checksum(directory: Path) -> None:
    """Remove the checksum, before anything changes in the index."""
    if (directory / CHECKSUM).exists():
        (directory / CHECKSUM).unlink()
        sync(directory)


def check_checksum(database: Path) -> None:
    """Compare an index that no process writes with its checksum, where it has one; once for a process and a file.

    :raises sqlite3.DatabaseError: when it is not as it was
    :raises OSError: when one of the two cannot be read; then nothing is known of it
    """
    try:
        expected, about = _stored_checksum(database), database.stat()
    except FileNotFoundError:
        return
    signature = (str(database.absolute()), about.st_mtime_ns, about.st_size)
    if signature not in _proven:
        if _checksum(database).encode("ascii") != expected:
            raise sqlite3.DatabaseError("it has changed since it was last closed")
        _proven.add(signature)


class ChecksumThread:
    """The comparison of an index with its checksum, in a thread of its own; its reader waits for it with `result`."""

    def __init__(self, database: Path) -> None:
        self._database, self._errors = database, list[Exception]()
        self._thread = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there may be no more threads here
            self._run()

    def _run(self) -> None:
        try:
            check_checksum(self._database)
        except Exception as error:  # raised by `result`
            self._errors.append(error)

    def result(self) -> None:
        """Wait until the comparison ends; raises what `check_checksum` does."""
        if self._thread.ident is not None:
            self._thread.join()
        for error in self._errors:
            raise error


def is_as_closed(copy: Path) -> bool:
    """Return whether a copy of an index that lies next to it is what the index was when it was last closed.

    :raises OSError: when one of the two cannot be read
    """
    try:
        return copy.is_file() and _checksum(copy).encode("ascii") == _stored_checksum(copy)
    except FileNotFoundError:
        return False


def is_surely_as_closed(copy: Path) -> bool:
    """Return whether a copy can be read, and is what the index was when it was last closed."""
    try:
        return is_as_closed(copy)
    except OSError:
        return False


def _stored_checksum(database: Path) -> bytes:
    """Return the checksum that lies next to an index; what is no file, and may have no end, holds none.

    It is looked at once: a writer may put it there, or take it away, at any time.
    """
    file = database.with_name(CHECKSUM)
    with named(file):
        return file.read_bytes() if stat.S_ISREG(file.stat().st_mode) else b""


def _checksum(database: Path) -> str:
    checksum = 0
    with _reading(database) as stream:
        while content := stream.read(_CHUNK):
            checksum = zlib.crc32(content, checksum)
    return f"crc32 {checksum:08x}\n"


def back_up(directory: Path) -> None:
    """Keep a copy of the index next to it, from which damaged rows can be read; a damaged one is not copied.

    A copy of the file, not of SQLite's backup API, which changes the header: the copy has the index's checksum.
    The caller holds the state's lock; where there is no room for a copy there is none.
    """
    database, copy = directory / "state.db", directory / "state.db.new-backup"
    try:
        if is_database(database):
            shutil.copyfile(database, copy)
            sync(copy)
            copy.replace(directory / BACKUP)
            sync(directory)
    except OSError:
        copy.unlink(missing_ok=True)


def is_database(file: Path) -> bool:
    """Return whether SQLite finds nothing wrong with the structure of an index, or of a copy of one."""
    if not file.is_file():
        return False
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(connect_read_only(file, not has_log(file))) as connection,
    ):
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    return False


def check_log(database: Path) -> None:
    """Check a log that a connection has just read.

    :raises sqlite3.DatabaseError: when recorded transactions are in it that SQLite ignores
    """
    if ignored_transactions(database) > 1:
        raise sqlite3.DatabaseError("its log state.db-wal is damaged, so the latest records cannot be read")


def ignored_transactions(database: Path) -> int:
    """Return how many transactions of a log SQLite ignores; one may be what a kill did not let end, more are damage.

    Those are the last frames of transactions that have the salt of the log and come after the last frame that SQLite
    uses, which it notes in the log's index (state.db-shm).
    """
    try:
        log, index = (_content(database.with_name(database.name + end)) for end in ("-wal", "-shm"))
    except FileNotFoundError:
        return 0
    if len(log) < _LOG_HEADER + _FRAME_HEADER or len(index) < _INDEX_HEADER:
        return 0
    (last_used,) = struct.unpack_from("=I", index, 16)
    salt, page_size = log[16:24], struct.unpack_from(">I", log, 8)[0]
    if not _is_header_intact(log[:_LOG_HEADER]):  # then SQLite uses nothing of it
        last_used, salt, page_size = 0, log[_LOG_HEADER + 8 : _LOG_HEADER + 16], _page_size(database)
    elif salt != index[32:40]:  # its writer has started it again since we looked
        return 0
    starts = range(_LOG_HEADER, len(log) - _FRAME_HEADER + 1, _FRAME_HEADER + page_size)
    return sum(
        number > last_used and log[start + 8 : start + 16] == salt and log[start + 4 : start + 8] != bytes(4)
        for number, start in enumerate(starts, 1)
    )


def _content(file: Path) -> bytes:
    with _reading(file) as stream:
        return stream.read()


def _is_header_intact(header: bytes) -> bool:
    order, first, second = _BYTE_ORDERS.get(header[:4]), 0, 0
    if order is None:
        return False
    words = struct.unpack(f"{order}6I", header[:24])
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return (first, second) == struct.unpack(">2I", header[24:])


def _page_size(database: Path) -> int:
    with _reading(database) as stream:
        size = int.from_bytes(stream.read(18)[16:], "big")
    size = _LARGEST_PAGE if size == 1 else size
    return size if _SMALLEST_PAGE <= size <= _LARGEST_PAGE else _DEFAULT_PAGE_SIZE
