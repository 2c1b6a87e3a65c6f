"""The fork server that workers come from: started once, quiet, and reached by no signal to the process group."""

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

# In a checkout that is installed elsewhere workers would load the folder `lorafile` that lies in the current directory.
_SAFE = {"PYTHONSAFEPATH": "1"}
# Read by glibc when a process begins. Below these sizes freed memory is kept for the next step instead of being given
# back and asked for again, page by page; torch frees and allocates megabytes in each.
_KEPT = str(2**30)
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": _KEPT, "MALLOC_TRIM_THRESHOLD_": _KEPT}


def start_server(log: Path, model_types: tuple[str, ...] = (), light: bool = False) -> None:
    """Start the fork server, where it does not run yet; it loads what workers need, and nobody waits for it.

    It has SIGINT and SIGTERM blocked, and so have the processes that it forks until they unblock them: a signal to the
    whole process group reaches the applying process alone, which tells its workers what to do.

    What its libraries say while they load goes to a log: the terminal belongs to the applying process.

    :param light: it loads nothing that computes
    """
    context = multiprocessing.get_context("forkserver")
    models = [f"transformers.models.{kind}.modeling_{kind}" for kind in model_types]
    heavy = [] if light else ["lorafile.engine.worker.preload", *models]
    context.set_forkserver_preload(["lorafile.apply.executors.session", *heavy])
    wanted = _SAFE | {name: value for name, value in _MALLOC.items() if name not in os.environ}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with _redirect_output(log):
            resource_tracker.ensure_running()  # the server's own call would unblock the signals again
            with _signals_blocked():
                forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let a process that is started meanwhile hold Ctrl-C and SIGTERM back; ours come when this ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _redirect_output(log: Path) -> Iterator[None]:
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
