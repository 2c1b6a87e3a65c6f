"""The index's write-ahead log as a file: whether SQLite takes all of it for its own, or leaves out what was recorded.

SQLite reads a log up to the first frame whose checksum is wrong, and says nothing of what follows. A kill leaves one
unfinished transaction there at most, so that more of them mean damage. The formats: sqlite.org/fileformat2.html, 4.1,
and sqlite.org/walformat.html, 2.1.
"""

import sqlite3
import struct
from pathlib import Path

from lorafile.errors import named

_HEAD, _FRAME = 32, 24
_SMALLEST, _LARGEST = 512, 65536  # bytes of a page
_MAGIC = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}  # how the checksums read their words


def prove_log(database: Path) -> None:
    """Check a log that a connection has just read.

    :raises sqlite3.DatabaseError: when recorded transactions are in it that SQLite leaves out
    """
    if left_out(database) > 1:
        raise sqlite3.DatabaseError("its log state.db-wal is damaged, and what was recorded last cannot be read")


def left_out(database: Path) -> int:
    """Return how many recorded transactions of a log SQLite leaves out; one may be what a kill did not let end."""
    try:
        log, index = (_content(database.with_name(database.name + end)) for end in ("-wal", "-shm"))
        index = index[:48]
    except FileNotFoundError:
        return 0
    if len(log) < _HEAD + _FRAME or len(index) < 48:
        return 0
    (used,) = struct.unpack_from("=I", index, 16)
    salt, size = log[16:24], struct.unpack_from(">I", log, 8)[0]
    if not _is_sound(log[:_HEAD]):
        used, salt, size = 0, log[_HEAD + 8 : _HEAD + 16], _page_size(database)
    elif salt != index[32:40]:  # its writer has begun it anew since we looked
        return 0
    ends = [
        number
        for number, at in enumerate(range(_HEAD, len(log) - _FRAME + 1, _FRAME + size), 1)
        if log[at + 8 : at + 16] == salt and log[at + 4 : at + 8] != bytes(4)
    ]
    return sum(number > used for number in ends)


def _content(file: Path) -> bytes:
    with named(file):
        return file.read_bytes()


def _is_sound(head: bytes) -> bool:
    order, first, second = _MAGIC.get(head[:4]), 0, 0
    if order is None:
        return False
    words = struct.unpack(f"{order}6I", head[:24])
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return (first, second) == struct.unpack(">2I", head[24:])


def _page_size(database: Path) -> int:
    with database.open("rb") as stream:
        found = int.from_bytes(stream.read(18)[16:], "big")
    size = _LARGEST if found == 1 else found
    return size if _SMALLEST <= size <= _LARGEST else 4096
