"""What is kept in the user's cache directory: digests of large files that have not changed, and what takes long."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.files.atomic import write_text
from lorafile.files.digests import file_digest, text_digest
from lorafile.files.jsonl import read_json

LARGE = 1 << 24  # bytes: reading less takes no longer than looking it up
_SETTLED = 2_000_000_000  # nanoseconds: of a file that changed a moment ago, a clock may not tell the next change


def cache_directory(name: str) -> Path:
    """Return a directory in the user's cache: `XDG_CACHE_HOME`, or `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "lorafile" / name


def config_directory() -> Path:
    """Return the directory of what a user sets for all studies: in `XDG_CONFIG_HOME`, or `~/.config`."""
    root = os.environ.get("XDG_CONFIG_HOME")
    return (Path(root) if root else Path.home() / ".config") / "lorafile"


def cached_digest(file: Path, rehash: bool = False, on_read: Callable[[int], None] | None = None) -> str:
    """Return the digest of a file's bytes, which are read only where path, size, times or inode are other ones.

    :param rehash: read it in any case
    :param on_read: called with the number of bytes of each read
    """
    path = file.resolve()
    if path.stat().st_size < LARGE:
        return file_digest(path, on_read)
    kept = cache_directory("digests") / f"{text_digest(str(path))}.json"
    before = _identity(path)
    if not rehash and (digest := _kept(kept, before)) is not None:
        if on_read is not None:
            on_read(path.stat().st_size)
        return digest
    digest = file_digest(path, on_read)
    about = path.stat()
    if _identity(path) == before and time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > _SETTLED:
        _write(kept, {"identity": before, "digest": digest})
    return digest


def cached_digest_of(content: str, make: Callable[[], str]) -> str:
    """Return a digest that follows from content with a digest of its own, made once.

    :param content: the digest of the content, and what is made of it
    """
    digest = kept_json("digests", content)
    if not isinstance(digest, str) or len(digest) != 64:
        digest = make()
        keep_json("digests", content, digest)
    return digest


def kept_json(directory: str, about: str) -> Any:
    """Return what is kept in a directory of the cache about something; None where nothing is, or it is damaged."""
    try:
        content = read_json(_kept_file(directory, about))
    except (OSError, ValueError):
        return None
    return content.get("kept") if isinstance(content, dict) else None


def keep_json(directory: str, about: str, value: Any) -> None:
    """Keep a value about something; where the cache cannot be written it is made again each time."""
    _write(_kept_file(directory, about), {"kept": value})


def _kept_file(directory: str, about: str) -> Path:
    return cache_directory(directory) / f"{text_digest(about)}.json"


def _identity(path: Path) -> list[str | int]:
    about = path.stat()
    return [str(path), about.st_size, about.st_mtime_ns, about.st_ino, about.st_ctime_ns, about.st_dev]


def _kept(kept: Path, identity: list[str | int]) -> str | None:
    """Return the digest that is kept of a file as it is now; what is damaged is computed again."""
    try:
        content = read_json(kept)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("identity") != identity:
        return None
    digest = content.get("digest")
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(content))
    except (OSError, LoraError):
        return
