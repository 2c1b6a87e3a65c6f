"""Atomic writing of files and directories; the next writer removes what a killed process left."""

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
    errno.EIO: "Check the disk",
    errno.ENOENT: "Create its directory",
}


def write_text(file: Path, text: str) -> None:
    """Write a file in UTF-8, with its line ends as they are.

    :raises LoraError: when it cannot be written; what stood there is as it was
    """
    with replace_file(file) as new:
        new.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def replace_file(file: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `file` once it is on disk. A symbolic link stays one.

    :raises LoraError: when it cannot be written; what stood there is as it was
    """
    with explain_write_errors(file):
        if file.exists() and not file.is_file():
            raise LoraError(f"{file} is not a regular file. Pass another path.")
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
    """Yield a temporary directory whose files replace those of `out`, or which becomes `out` where that is absent.

    Files of other names stay. A process that is killed while some are replaced leaves none of `last`, without which the
    others are not read.

    :param last: names of files that get their place after all others
    :raises LoraError: when it cannot be written; what stood there is as it was, or it says where that is
    """
    with explain_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        inside = out.is_dir()
        if out.exists() and not inside:
            raise LoraError(f"{out} is not a directory. Pass another path.")
        with _temporary(out if inside else out.parent, _prefix(out.name), directory=True) as new:
            yield new
            for file in [path for path in new.rglob("*") if path.is_file()]:
                sync(file)
            if inside:
                _exchange(new, out, last)
            else:
                new.replace(out)


def is_empty(directory: Path) -> bool:
    """Return whether a directory is empty, apart from what a killed process may have left."""
    return all(path.name.startswith(_prefix(directory.name)) for path in directory.iterdir())


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing a file or directory into a LoraError with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0, "Fix this or write elsewhere")
        name = str(error.filename or "")
        file = f"{name}: " if name and name != str(path) and ".new-" not in name else ""
        raise LoraError(
            f"{path} cannot be written: {file}{error.strerror or error}. The existing file is unchanged. "
            f"{remedy}, and run the same command again."
        ) from error


def make_directory(directory: Path) -> None:
    """Make a directory, and those that it lies in.

    :raises LoraError: when it cannot be made
    """
    with explain_write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)


def ignore_in_git(directory: Path) -> None:
    """Keep git from a directory that was just made; one that holds something is left as it is.

    :raises LoraError: when it cannot be written
    """
    if next(directory.iterdir(), None) is None:
        write_text(directory / ".gitignore", "# Written by lora. Remove this file to add the directory to git.\n*\n")


def _exchange(new: Path, out: Path, last: tuple[str, ...]) -> None:
    """Move new files into a directory in place of the old ones; undo all of it when one cannot be moved."""
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
            f"{out} is no longer complete: {error.strerror or error}. Missing files were moved to {kept}. "
            "Check the disk, and run the same command again."
        ) from error


def _prefix(name: str) -> str:
    return f".{name[:_SHOWN]}.new-"


def _before(directory: Path) -> str:
    return f".{directory.name[:_SHOWN]}.before-"


@contextlib.contextmanager
def _temporary(parent: Path, prefix: str, directory: bool = False) -> Iterator[Path]:
    """Make a temporary file or directory that is removed at the end; those of killed processes are removed first.

    Its maker holds a lock on it, which ends with the process: one without a lock is abandoned.
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
            with contextlib.suppress(OSError):  # where there are no locks nothing counts as abandoned
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if new.exists():  # and was not removed as abandoned before it was locked
                yield new
                return
        finally:
            os.close(handle)
            _remove(new)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove what killed processes left under this prefix, as far as that is possible."""
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
