"""One writer at a time: an operating-system lock, which a dead process cannot keep."""

import contextlib
import errno
import fcntl
import getpass
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lorafile.errors import StateError
from lorafile.units import utc_now

_POLL_SECONDS = 0.2
_TRIES_TO_READ = 20
_LONGEST_COMMAND = 100  # characters that are shown
_log = logging.getLogger(__name__)


class InUse(StateError):
    """Another process writes."""


@contextlib.contextmanager
def writer_lock(directory: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold the state's lock; wait for it up to a number of seconds, and say at once, as a log record, for whom.

    :raises StateError: when another process holds it, with who and since when
    """
    with (directory / "lock").open("a+", encoding="utf-8") as handle:
        _wait(handle.fileno(), directory, timeout)
        _sign(handle)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a disk that fails now; it is read only while the lock is held
                handle.truncate(0)


def _wait(handle: int, directory: Path, timeout: float) -> None:
    deadline, waiting = time.monotonic() + timeout, False
    while not _try(handle):
        if time.monotonic() >= deadline:
            still, longer = (f" It was still in use after {timeout:g} s.", " a longer") if waiting else ("", "")
            raise InUse(
                f"The state {directory} is in use by {_holder(directory)}.{still} "
                f"Wait for it, or pass{longer} --lock-timeout."
            )
        if not waiting:
            _log.info("The state %s is in use by %s. Waiting, %g s at most.", directory, _holder(directory), timeout)
            waiting = True
        time.sleep(_POLL_SECONDS)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise StateError(
                "The state's file system does not support locks, so two processes could write at once. "
                "Use a local disk, with --state or LORA_STATE."
            ) from error
        raise
    return True


def _sign(handle: TextIO) -> None:
    """Write down who holds the lock, over what a killed process may have left there."""
    handle.truncate(0)
    handle.write(json.dumps(who_runs_this()))
    handle.flush()


def who_runs_this() -> dict[str, Any]:
    """Return this process as it is shown to others: user, host, pid, command, and the moment (`since`)."""
    return {
        "user": _user(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": utc_now(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"user {os.getuid()}"


def _holder(directory: Path) -> str:
    for _ in range(_TRIES_TO_READ):  # who has just taken the lock has not signed yet
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            holder = json.loads((directory / "lock").read_text(encoding="utf-8"))
            command = "".join(letter if letter.isprintable() else " " for letter in holder["command"])
            shown = command if len(command) <= _LONGEST_COMMAND else command[:_LONGEST_COMMAND] + "…"
            who = f"{holder['user']} on {holder['host']}"
            return f"{who} since {holder['since']} (process {holder['pid']}: {shown})"
        time.sleep(_POLL_SECONDS / 4)
    return "another process"
