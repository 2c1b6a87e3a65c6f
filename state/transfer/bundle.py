"""Bundles: a state's rows and objects as one tar file, written the same way each time and read with distrust."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lorafile.errors import StateError
from lorafile.state.errors import reading_object

ABOUT, INDEX, OBJECTS = "lorafile-bundle.json", "index.jsonl", "objects/"
FORMAT_VERSION = "1.0"
_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_LARGEST_ABOUT, _LARGEST_LINE, _LARGEST_INDEX = 1 << 16, 1 << 25, 1 << 32
# What JSON and its contents can be wrong with; a nesting that is too deep among them.
WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class Line:
    """A row of a bundle's index: the table that it is of, and its values."""

    table: str
    values: Any


def write_bundle(
    out: BinaryIO, lines: Iterable[Line], objects: Iterable[tuple[str, Path]], about: dict[str, Any]
) -> int:
    """Write a bundle; equal rows and objects give equal bytes. Returns how many bytes of objects there were.

    :param objects: digest -> file, in the order of their digests; each is proven while it is copied
    :raises StateError: when an object is not what its digest says
    """
    text = "".join(json.dumps([line.table, line.values], sort_keys=True) + "\n" for line in lines).encode()
    head = {"format": "lorafile-bundle", "format_version": FORMAT_VERSION, **about}
    head["index"] = hashlib.sha256(text).hexdigest()
    total = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in ((ABOUT, json.dumps(head, sort_keys=True).encode()), (INDEX, text)):
            tar.addfile(_member(name, len(content)), io.BytesIO(content))
        for digest, file in objects:
            with reading_object(file):
                size, stream = file.stat().st_size, file.open("rb")
            with stream:
                proven = _Proven(stream, file)
                tar.addfile(_member(OBJECTS + digest, size), proven)
            if proven.digest != digest:
                raise StateError(f"The object {file} is damaged. `lora state verify` lists all damage.")
            total += size
    return total


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    return member


class _Proven:
    """A stream that knows the digest of what was read from it."""

    def __init__(self, stream: BinaryIO, file: Path) -> None:
        self._stream, self._file, self._hash = stream, file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        with reading_object(self._file):
            content = self._stream.read(size)
        self._hash.update(content)
        return content

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Member:
    """A file in a bundle: its name as it is written there, which never becomes a path, and its bytes."""

    name: str
    size: int
    stream: BinaryIO

    def read(self, most: int) -> bytes:
        """Return all bytes.

        :raises ValueError: when there are more than expected, or fewer than it says
        """
        content = self.stream.read(self.size) if self.size <= most else b""
        if len(content) != self.size:
            raise ValueError(f"{self.name} is truncated or too large")
        return content

    def copy(self, write: Callable[[bytes], object]) -> str:
        """Pass all bytes on and return their digest.

        :raises ValueError: when there are fewer than it says
        """
        left, digest = self.size, hashlib.sha256()
        while left:
            content = self.stream.read(min(left, _CHUNK))
            if not content:
                raise ValueError(f"{self.name} is cut short")
            digest.update(content)
            write(content)
            left -= len(content)
        return digest.hexdigest()


def members(stream: BinaryIO) -> Iterator[Member]:
    """Yield a bundle's files one after another; each has to be read before the next.

    Only what `write_bundle` writes is taken: plain files, with no extension of the format that could rename, link or
    resize them, so that nothing of a tar file that is not meant for us is ever interpreted.

    :raises ValueError: at anything else
    """
    while True:
        header = stream.read(_BLOCK)
        if not header.strip(b"\0"):
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except tarfile.HeaderError as error:
            raise ValueError(f"it is not a tar file, or is truncated: {error}") from error
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.linkname or member.size < 0:
            raise ValueError(f'"{member.name[:80]}" is not a regular file')
        start = stream.tell()
        yield Member(member.name, member.size, stream)
        if stream.tell() != start + member.size:
            raise ValueError(f"{member.name[:80]} was not read to its end")
        stream.read(-member.size % _BLOCK)


def read_bundle_index(files: Iterator[Member]) -> tuple[dict[str, Any], Iterator[Line]]:
    """Return what a bundle says of itself, and the rows of its index.

    :raises ValueError, …: see WRONG: when it is no bundle, or its index is not the one that was written
    """
    about = next(files, None)
    if about is None or about.name != ABOUT:
        raise ValueError("it is not a bundle from lora state export")
    head = json.loads(about.read(_LARGEST_ABOUT))
    if head["format"] != "lorafile-bundle" or str(head["format_version"]).partition(".")[0] != "1":
        raise ValueError(f"its format {head['format_version']} is not supported; update lorafile")
    index = next(files, None)
    if index is None or index.name != INDEX or index.size > _LARGEST_INDEX:
        raise ValueError("it has no index")
    content = io.BytesIO()
    if index.copy(content.write) != head["index"]:
        raise ValueError("its index is damaged")
    content.seek(0)
    return head, _lines(content)


def _lines(content: io.BytesIO) -> Iterator[Line]:
    while line := content.readline(_LARGEST_LINE):
        if not line.endswith(b"\n"):
            raise ValueError("a row of its index is too long")
        table, values = json.loads(line)
        yield Line(str(table), values)
