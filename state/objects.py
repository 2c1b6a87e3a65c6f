"""Immutable bytes under their sha256: `objects/ab/<digest>`."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lorafile.errors import StateError
from lorafile.files.atomic import sync
from lorafile.files.digests import file_digest
from lorafile.files.jsonl import read_lines
from lorafile.state.errors import reading_object

_CHUNK = 1 << 20
_proven: set[tuple[str, int, int]] = set()  # objects that were read whole by this process, as they were then


class Origin(Protocol):
    """Where objects are that are not here yet: a state's remote."""

    def has(self, digest: str) -> bool:
        """Return whether an object is there; nothing is asked of a server."""

    def download(self, digest: str, target: Path) -> None:
        """Write an object's bytes to a path here.

        :raises StateError: when they cannot be had
        """


origins: dict[Path, Origin] = {}  # object directory -> where what it lacks may be


@dataclass(frozen=True)
class Objects:
    """The object directory of one state; where the state has a remote, objects come here when they are first read."""

    root: Path

    def path(self, digest: str) -> Path:
        """Return where an object stands, or would stand."""
        return self.root / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Return whether an object is here, or in the state's remote."""
        return self.is_here(digest) or self.is_remote(digest)

    def is_here(self, digest: str) -> bool:
        """Return whether an object stands in this directory."""
        return self.path(digest).is_file()

    def is_remote(self, digest: str) -> bool:
        """Return whether the state's remote has an object."""
        origin = origins.get(self.root.absolute()) if origins else None
        return origin is not None and origin.has(digest)

    def fetch(self, digest: str) -> Path:
        """Return where an object stands, or would stand; one that only the state's remote has is brought here first.

        :raises StateError: when it cannot be had, or its bytes are not the ones that were stored
        """
        target = self.path(digest)
        if self.is_here(digest) or not self.is_remote(digest):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
        os.close(handle)
        try:
            origins[self.root.absolute()].download(digest, Path(name))
            if file_digest(Path(name)) != digest:
                raise StateError(
                    f"The object {digest[:12]}… is damaged in the state's remote. Nothing was imported from it."
                )
            sync(Path(name))
            self.adopt(Path(name), digest)
        finally:
            Path(name).unlink(missing_ok=True)
        return target

    def read(self, digest: str) -> bytes:
        """Return an object's bytes.

        :raises StateError: when it is missing or cannot be read, or when its bytes are not the ones that were stored
        """
        try:
            with reading_object(self.path(digest)):
                content = self.fetch(digest).read_bytes()
        except FileNotFoundError as error:
            raise self._missing(digest) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise self._damaged(digest)
        return content

    def proven(self, digest: str) -> Path:
        """Return where an object stands, once its bytes are the ones that were stored; read once for a process.

        :raises StateError: when it is missing or cannot be read, or when they are not
        """
        path = self.fetch(digest)
        try:
            with reading_object(path):
                about = path.stat()
                signature = (str(path.absolute()), about.st_mtime_ns, about.st_size)
                if signature not in _proven and file_digest(path) != digest:
                    raise self._damaged(digest)
        except FileNotFoundError as error:
            raise self._missing(digest) from error
        _proven.add(signature)
        return path

    def rows(self, digest: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of an object of compressed JSON lines.

        :raises StateError: when it was removed in the meantime, is damaged, or cannot be read
        """
        with reading_object(self.path(digest)):
            rows = list(read_lines(self.proven(digest)))
        yield from rows

    def _missing(self, digest: str) -> StateError:
        return StateError(
            f"The object {digest[:12]}… is missing from {self.root}. The next `lora apply` that needs it recreates it."
        )

    def _damaged(self, digest: str) -> StateError:
        return StateError(
            f"The object {self.path(digest)} is damaged: it differs from what was stored. "
            "`lora state verify` shows what it belongs to; with --repair, the next `lora apply` recreates it."
        )

    def put(self, file: Path) -> tuple[str, int]:
        """Store a file's bytes and return their digest and length; the file itself stays.

        The bytes are on the disk, under a temporary name in the same directory, before they get their own name.
        """
        digest = file_digest(file)
        target = self.path(digest)
        size = file.stat().st_size
        if self.is_here(digest) and target.stat().st_size == size:
            return digest, size
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as new, file.open("rb") as old:
                shutil.copyfileobj(old, new, _CHUNK)
            sync(Path(name))
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
        sync(target.parent)
        return digest, size

    def adopt(self, file: Path, digest: str) -> None:
        """Take a file over whose bytes are proven and on the disk, from the same file system."""
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
        sync(target.parent)
