"""The index as a file: a checksum from its last clean close, by which a bit that turned anywhere in it is noticed."""

import contextlib
import os
import sqlite3
import stat
import threading
import zlib
from pathlib import Path

from lorafile.errors import named
from lorafile.state.objects import sync_directory

SUM = "state.db.sum"
_CHUNK = 1 << 23
_proven: set[tuple[str, int, int]] = set()  # files that were read whole by this process, as they were then


def write_sum(directory: Path) -> None:
    """Note the checksum of an index that nobody has open; without room for it there is none, and nothing is checked."""
    new = directory / "state.db.new-sum"
    with contextlib.suppress(OSError):
        with new.open("w", encoding="ascii") as stream:
            stream.write(_sum(directory / "state.db"))
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(directory / SUM)
        sync_directory(directory)


def drop_sum(directory: Path) -> None:
    """Forget the checksum, before anything changes in the index."""
    if (directory / SUM).exists():
        (directory / SUM).unlink()
        sync_directory(directory)


def prove(database: Path) -> None:
    """Hold an index that nobody writes against its checksum, where there is one; once for a process and a file.

    :raises sqlite3.DatabaseError: when it is not as it was
    :raises OSError: when one of the two cannot be read; then nothing is known of it
    """
    try:
        wanted, about = _noted(database), database.stat()
    except FileNotFoundError:
        return
    signature = (str(database.absolute()), about.st_mtime_ns, about.st_size)
    if signature not in _proven:
        if _sum(database).encode("ascii") != wanted:
            raise sqlite3.DatabaseError("it is not what it was when it was last closed")
        _proven.add(signature)


class Proof:
    """An index held against its checksum beside its reader, who counts on nothing of it before `settle`."""

    def __init__(self, database: Path) -> None:
        self._database, self._wrong = database, list[Exception]()
        self._thread = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there may be no more threads here
            self._run()

    def _run(self) -> None:
        try:
            prove(self._database)
        except Exception as error:  # raised where somebody waits for it
            self._wrong.append(error)

    def settle(self) -> None:
        """Wait for the end of it; raises what `prove` does."""
        if self._thread.ident is not None:
            self._thread.join()
        for error in self._wrong:
            raise error


def is_as_closed(copy: Path) -> bool:
    """Return whether a copy of an index that lies beside it is what the index was when it was last closed.

    :raises OSError: when one of the two cannot be read; then nothing is known of it
    """
    try:
        return copy.is_file() and _sum(copy).encode("ascii") == _noted(copy)
    except FileNotFoundError:
        return False


def is_surely_as_closed(copy: Path) -> bool:
    """Return whether a copy can be read, and is what the index was when it was last closed."""
    try:
        return is_as_closed(copy)
    except OSError:
        return False


def _noted(database: Path) -> bytes:
    """Return the checksum that lies beside an index; what is no file, and may have no end, holds none.

    It is looked at once: a writer may put it there, or take it away, at any time.
    """
    noted = database.with_name(SUM)
    with named(noted):
        return noted.read_bytes() if stat.S_ISREG(noted.stat().st_mode) else b""


def _sum(database: Path) -> str:
    found = 0
    with named(database), database.open("rb") as stream:
        while content := stream.read(_CHUNK):
            found = zlib.crc32(content, found)
    return f"crc32 {found:08x}\n"
