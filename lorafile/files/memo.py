"""What follows from a text alone and took long to make: kept in the user's cache directory, made again elsewhere."""

import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from pydantic import VERSION

from lorafile.errors import LoraError
from lorafile.files.atomic import replace_file
from lorafile.files.digests import text_digest
from lorafile.files.user_cache import cache_directory

_LONG = 0.2  # seconds; what is made faster is made again
_MOST = 8  # results that are kept of a kind: the newest
_CODE = ("lorafile", "lorafile.engine", "lorafile.specs", "lorafile.state")  # wherever each of them lies
_READ = (".py", ".toml", ".json")
_DIGEST = hashlib.sha256().digest_size
_BEGAN = time.time_ns()  # when this process had read its code, or was about to
Made = TypeVar("Made")


def remembered(kind: str, source: str, make: Callable[[], Made], lasts: Callable[[], bool] = lambda: True) -> Made:
    """Return what is made of a text: what the same code made of it before, or else what is made now.

    :param kind: what is made; a directory of the cache
    :param source: everything that it follows from, but for this package's code
    :param lasts: whether what was made follows from the text alone; asked afterwards
    """
    file = cache_directory(kind) / f"{text_digest(source)}.pickle"
    content = _content(file)
    if content is not None:
        made: Made = pickle.loads(content)  # noqa: S301  (this user's own file, whole, and written by this code)
        return made
    began = time.perf_counter()
    made = make()
    if time.perf_counter() - began > _LONG and lasts():
        _keep(file, pickle.dumps(made, pickle.HIGHEST_PROTOCOL))
    return made


def _content(file: Path) -> memoryview | None:
    """Return what is kept in a file; None where it is another user's, damaged, or made by other code."""
    try:
        with file.open("rb") as stream:
            if os.name == "posix" and os.fstat(stream.fileno()).st_uid != os.getuid():
                return None
            whole = memoryview(stream.read())
    except OSError:
        return None
    stamp, digest, content = whole[:_DIGEST], whole[_DIGEST : 2 * _DIGEST], whole[2 * _DIGEST :]
    return content if bytes(stamp) == _stamp() and bytes(digest) == hashlib.sha256(content).digest() else None


def _keep(file: Path, content: bytes) -> None:
    stamp = _stamp()
    if stamp is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file) as new:
            new.write_bytes(b"".join([stamp, hashlib.sha256(content).digest(), content]))
        oldest_first = sorted(file.parent.iterdir(), key=lambda kept: kept.stat().st_mtime_ns)
        for kept in oldest_first[:-_MOST]:
            kept.unlink(missing_ok=True)
    except (OSError, LoraError):  # then it is made again each time
        return


@cache
def _stamp() -> bytes | None:
    """Return a digest of this package's files by size and time, and of what else decides how a result is stored.

    None where a file changed since this process began: then it is unknown which code runs here.
    """
    about, newest = [sys.version, VERSION], 0
    for package in _CODE:
        for directory, _, names in os.walk(import_module(package).__path__[0]):
            for name in sorted(names):
                if name.endswith(_READ):
                    stat = Path(directory, name).stat()
                    about.append(f"{directory}/{name} {stat.st_size} {stat.st_mtime_ns}")
                    newest = max(newest, stat.st_mtime_ns)
    if newest > _BEGAN:
        return None
    return hashlib.sha256("\n".join(sorted(about)).encode()).digest()
