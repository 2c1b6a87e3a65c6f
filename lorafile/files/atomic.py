"""What is written beside a spec: there whole, or as it was; what a killed process left goes with the next writer."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lorafile.errors import LoraError

_SHOWN = 40  # characters of a name that its temporary one has; a whole one could be too long
_REMEDY = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EIO: "Look after the disk",
    errno.ENOENT: "Make its directory",
}


def write_text(file: Path, text: str) -> None:
    """Write a file in UTF-8, with its line ends as they are.

    :raises LoraError: when it cannot be written; what stood there is as it was
    """
    with replace_file(file) as new:
        new.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def replace_file(file: Path) -> Iterator[Path]:
    """Let a file be written under another name beside it; on the disk, it gets its own. A link stays one.

    :raises LoraError: when it cannot be written; what stood there is as it was
    """
    with explain_write_errors(file):
        if file.exists() and not file.is_file():
            raise LoraError(f"{file} is no file. Name another.")
        target = file.resolve()
        with _temporary(target.parent, _prefix(target.name)) as new:
            if target.exists() and not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            yield new
            if target.exists():
                new.chmod(target.stat().st_mode & 0o7777)
            sync(new)
            new.replace(target)


@contextlib.contextmanager
def replace_directory(out: Path, last: tuple[str, ...]) -> Iterator[Path]:
    """Let a directory be filled beside another one, or in it where that is there, and then take its place.

    Files of other names stay. Whoever is killed while some are replaced leaves none of `last`, without which nobody
    reads the others.

    :param last: names of files that get their place after all others
    :raises LoraError: when it cannot be written; what stood there is as it was, or it says where that is
    """
    with explain_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        inside = out.is_dir()
        if out.exists() and not inside:
            raise LoraError(f"{out} is no directory. Name another.")
        with _temporary(out if inside else out.parent, _prefix(out.name), directory=True) as new:
            yield new
            for file in [path for path in new.rglob("*") if path.is_file()]:
                sync(file)
            if inside:
                _exchange(new, out, last)
            else:
                new.replace(out)


def is_empty(directory: Path) -> bool:
    """Return whether a directory holds nothing but what a killed process may have left."""
    return all(path.name.startswith(_prefix(directory.name)) for path in directory.iterdir())


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a file or directory that is to be written into a sentence."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0, "Change that, or write it elsewhere")
        other = str(error.filename or "")
        where = f"{other}: " if other and other != str(path) and ".new-" not in other else ""
        raise LoraError(
            f"{path} cannot be written: {where}{error.strerror or error}. What stood there is as it was. "
            f"{remedy}, and run the same command again."
        ) from error


def _exchange(new: Path, out: Path, last: tuple[str, ...]) -> None:
    """Put files in the place of those that stand in a directory; where one cannot be put there, all go back."""
    names = sorted((path.name for path in new.iterdir()), key=lambda name: (name in last, name))
    kept = Path(tempfile.mkdtemp(dir=out, prefix=_before(out)))
    try:
        for name in reversed(names):
            if (out / name).exists():
                (out / name).replace(kept / name)
        for name in names:
            (new / name).replace(out / name)
    except OSError:
        _restore(kept, out, names)
        raise
    for left in out.glob(f"{_before(out)}*"):
        shutil.rmtree(left, ignore_errors=True)


def _restore(kept: Path, out: Path, names: list[str]) -> None:
    try:
        for name in names:
            if (kept / name).exists():
                (kept / name).replace(out / name)
        kept.rmdir()
    except OSError as error:
        raise LoraError(
            f"{out} is not whole any more: {error.strerror or error}. What stood there and is missing is in {kept}. "
            "Look after the disk, and run the same command again."
        ) from error


def _prefix(name: str) -> str:
    return f".{name[:_SHOWN]}.new-"


def _before(directory: Path) -> str:
    return f".{directory.name[:_SHOWN]}.before-"


@contextlib.contextmanager
def _temporary(parent: Path, prefix: str, directory: bool = False) -> Iterator[Path]:
    """Make a file or directory that is gone at the end, under whatever name; those of killed processes go first.

    Who makes one holds a lock on it, which ends with its process: what is not held is nobody's.
    """
    _remove_abandoned(parent, prefix)
    while True:
        new = parent / f"{prefix}{secrets.token_hex(4)}"
        if directory:
            new.mkdir()
        else:
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        handle = os.open(new, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # where there are no locks nothing is taken for nobody's
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if new.exists():  # and was not taken for nobody's before it was held
                yield new
                return
        finally:
            os.close(handle)
            _remove(new)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove what killed processes left under such names; that it cannot be removed is no matter."""
    for left in [path for path in parent.iterdir() if path.name.startswith(prefix)]:
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(left)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make sure that the bytes of a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
