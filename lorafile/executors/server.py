"""The fork server that workers come from: started once, quiet, and deaf to Ctrl-C."""

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path


def start_server(log: Path) -> None:
    """Start the fork server, where it does not run yet, without the current directory on its path.

    In a checkout that is installed elsewhere it would load the folder `lorafile` that lies there instead. What its
    libraries say while they load goes to a log: the terminal belongs to the applying process.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with _deaf_to_interrupts(), _speaks_to(log):
            forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that is started meanwhile ignore Ctrl-C from its first moment on; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _speaks_to(log: Path) -> Iterator[None]:
    """Let a process that is started meanwhile print to a file."""
    kept = [os.dup(number) for number in (1, 2)]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        with log.open("ab") as stream:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def no_main() -> Iterator[None]:
    """Hide the user's script from new processes: multiprocessing would run it again in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
