"""One writer at a time: an operating-system lock, which a dead process cannot keep."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lorafile.errors import StateError

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def writer_lock(directory: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold the state's lock; wait for it up to a number of seconds.

    :raises StateError: when somebody else holds it, with who and since when
    """
    with (directory / "lock").open("a+", encoding="utf-8") as handle:
        deadline = time.monotonic() + timeout
        while not _try(handle.fileno()):
            if time.monotonic() >= deadline:
                raise StateError(
                    f"The state {directory} is in use by {_holder(directory)}. Wait for it, or pass --lock-timeout."
                )
            time.sleep(_POLL_SECONDS)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        handle.truncate(0)
        handle.write(json.dumps(holder))
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise StateError(
                "The state's file system has no locks, so nothing could keep two processes from writing at once. "
                "Put it on a local disk, with --state or LORA_STATE."
            ) from error
        raise
    return True


def _holder(directory: Path) -> str:
    try:
        holder = json.loads((directory / "lock").read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
