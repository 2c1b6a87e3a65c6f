"""What the disk and SQLite say in codes, as a StateError that says what to do."""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from lorafile.errors import StateError


@contextlib.contextmanager
def translate_errors(directory: Path) -> Iterator[None]:
    """Turn errors of the disk and of SQLite into a StateError; other errors pass.

    :raises StateError: its cause is the error that was translated
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            raise StateError(_full(directory)) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise StateError(_unwritable(directory, f"state.db: {error}")) from error
        if "disk I/O error" in str(error):
            raise disk_failure(directory, f"{directory / 'state.db'}: {error}") from error
        raise StateError(
            f"The index {directory / 'state.db'} cannot be read: {error}. Nothing was changed. "
            "`lora state verify --repair` saves every readable row. Alternatively, restore the index from a copy."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateError(_full(directory)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StateError(_unwritable(directory, error.strerror or str(error))) from error
        if error.errno == errno.EIO:
            file = f"{error.filename}: " if error.filename else ""
            raise disk_failure(directory, file + (error.strerror or str(error))) from error
        raise


@contextlib.contextmanager
def check_rows(directory: Path) -> Iterator[None]:
    """Turn errors in the contents of rows, which only damage explains, into a StateError."""
    try:
        yield
    except (KeyError, ValueError, TypeError) as error:
        raise StateError(
            f"The index {directory / 'state.db'} has damaged rows ({type(error).__name__}). Nothing was changed. "
            "`lora state verify --repair` lists them and saves all others."
        ) from error


@contextlib.contextmanager
def reading_object(path: Path) -> Iterator[None]:
    """Turn read errors into a StateError that names the object; FileNotFoundError is left to the caller.

    :raises StateError: it is no reason to make anything again, for the bytes may be there
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateError(
            f"The object {path} cannot be read: {error.strerror or error}. Nothing is recreated for it. Check "
            "the disk, then run `lora state verify` and the same command again."
        ) from error


def disk_failure(directory: Path, why: str) -> StateError:
    """Return the error of a disk that does not read or write, which is no reason to make anything again."""
    return StateError(
        f"The disk of the state {directory} is failing: {why}. All finished results are kept. Check the disk, "
        "then run `lora state verify` and the same command again."
    )


def _full(directory: Path) -> str:
    return (
        f"The disk of the state {directory} is full. All finished results are kept. Free some space and run the "
        "same command again."
    )


def _unwritable(directory: Path, why: str) -> str:
    return (
        f"The state {directory} cannot be written: {why}. Fix this, or pass another state with --state or LORA_STATE."
    )
