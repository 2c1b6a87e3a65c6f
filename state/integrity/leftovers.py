"""The files of a state's directory: objects as they lie there, unfinished runs, and what killed processes left."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorafile.state.objects import Objects

_DIGEST = re.compile("[0-9a-f]{64}")
_NAMES = ("score-*", "importing-*", "state.db.new-*", "exporting-*")  # temporary, and gone when their maker has ended


@dataclass(frozen=True)
class ObjectListing:
    """The files of an object directory.

    :ivar objects: digest -> bytes of what stands under its own name; `temporary`: what was never finished
    :ivar strange: what lorafile never puts there
    """

    objects: dict[str, int]
    temporary: list[Path]
    strange: list[Path]


def list_objects(objects: Objects) -> ObjectListing:
    """Look at every file of an object directory."""
    sizes, temporary, strange = dict[str, int](), list[Path](), list[Path]()
    root = os.fspath(objects.root)
    for file in _files(root) if objects.root.is_dir() else ():
        name = file.name
        if name.startswith(".new-"):
            temporary.append(Path(file))
        elif is_digest(name) and file.path == f"{root}/{name[:2]}/{name}" and not file.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # garbage collection took it a moment ago
                sizes[name] = file.stat(follow_symlinks=False).st_size
        else:
            strange.append(Path(file))
    return ObjectListing(sizes, sorted(temporary), sorted(strange))


def _files(directory: str) -> "Iterator[os.DirEntry[str]]":
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry


def is_digest(name: str) -> bool:
    """Return whether a text is a sha256 in small hexadecimal digits, and so safe as a name."""
    return len(name) == 64 and _DIGEST.fullmatch(name) is not None


def leftovers(directory: Path) -> list[Path]:
    """Return what a killed process left next to the objects; the caller holds the state's lock."""
    temporary = [path for name in _NAMES for path in directory.glob(name)]
    return sorted([*temporary, *(path for path in directory.glob("staging/*") if path.is_dir())])


def unfinished_runs(directory: Path) -> dict[str, Path]:
    """Return key -> the directory of a run that is not finished, or was not when its process was killed."""
    return {path.name: path for path in directory.glob("running/*") if path.is_dir()}


def remove_paths(paths: list[Path]) -> None:
    """Remove files and directories; what is gone already is no matter."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def size_of(paths: list[Path]) -> int:
    """Return the bytes of files, and of all that is in directories."""
    files = [file for path in paths for file in ([*path.rglob("*")] if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
