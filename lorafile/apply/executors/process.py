"""A worker process, as the applying process holds it, and the fork server that workers come from."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from lorafile.apply.executors.base import Loss, WorkerHandle
from lorafile.engine.data.hub import hide_tokens
from lorafile.engine.worker.channel import Command, Message, Work
from lorafile.errors import LoraError

SILENT_SECONDS = 30.0  # without a sign of life a worker is lost
START_SECONDS = 300.0  # until a worker's first: a server may load torch from a slow disk
_END_SECONDS = 10.0  # what a killed process may take to be gone: one that waits for a dead disk never is
_POLL_SECONDS = 0.1
_LOG_BYTES = 1 << 16
_WORKING_SECONDS = 0.1  # of processor time in SILENT_SECONDS: less does a process that is frozen, or waits

# In a checkout that is installed elsewhere workers would load the folder `lorafile` that lies in the current directory.
_SAFE = {"PYTHONSAFEPATH": "1"}
# Read by glibc when a process begins. Below these sizes freed memory is kept for the next step instead of being given
# back and asked for again, page by page; torch frees and allocates megabytes in each.
_KEPT = str(2**30)
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": _KEPT, "MALLOC_TRIM_THRESHOLD_": _KEPT}


class Worker(WorkerHandle):
    """A process of this machine.

    :param server_log: where it writes until it begins; its own log, `<process id>.log`, is next to it
    :ivar gpu: the one that it has for itself or shares with others, as `environment.gpus` describes it
    :ivar heard_at: when it gave its last sign of life, on the monotonic clock; when it was started, before the first
    :ivar heard: whether it gave any
    :ivar used_seconds: its processor time when it had been silent for half of the time that is allowed
    """

    def __init__(self, process: ForkServerProcess, connection: Connection, server_log: Path | None = None) -> None:
        super().__init__()
        self.process, self.connection, self._server_log = process, connection, server_log
        self.gpu: dict[str, Any] | None = None
        self.heard_at, self.heard = time.monotonic(), False
        self.used_seconds: float | None = None
        self._broken = False

    @classmethod
    def start(
        cls, serve: Callable[..., None], arguments: tuple[Any, ...], log: Path, urgency: Callable[[], int]
    ) -> "Worker | None":
        """Fork one from the server, once that has loaded what it loads; None when a stop is asked for meanwhile.

        :param serve: what it runs, with its connection and the arguments
        :param log: where the server's libraries write
        :param urgency: returns whether a stop is asked for
        :raises LoraError: when the server does not answer, or is gone
        """
        context = multiprocessing.get_context("forkserver")
        ours, workers_end = context.Pipe()
        process = context.Process(target=serve, args=(workers_end, *arguments), daemon=True)
        failures: list[Exception] = []

        def start() -> None:
            try:
                with _no_main():
                    process.start()
            except Exception as error:  # told below, in the thread that waits
                failures.append(error)

        thread, deadline = threading.Thread(target=start, daemon=True), time.monotonic() + START_SECONDS
        thread.start()
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(_POLL_SECONDS)
            if urgency() and thread.is_alive():
                return None  # it ends by itself when its connection is closed with this process
        if thread.is_alive() or failures:
            why = f"within {START_SECONDS:g} s" if thread.is_alive() else f"({type(failures[0]).__name__})"
            raise LoraError(f"A worker process could not be started {why}; its log is {log}.")
        workers_end.close()
        return cls(process, ours, log)

    def send(self, message: Work | Command) -> None:
        """Send work or a command."""
        try:
            self.connection.send(message)
        except OSError:  # its end is closed
            self._broken = True

    def events(self) -> list[Message]:
        """Return what it said since the last call."""
        messages: list[Message] = []
        try:
            while self.connection.poll():
                messages.append(self.connection.recv())
                self.note_alive()
        except (EOFError, OSError):  # its end is closed
            self._broken = True
        return messages

    def lost(self) -> Loss | None:
        """Return how it died, or that it is silent and was ended: either may be due to its work."""
        if self._broken or not (self.process.is_alive() or self.connection.poll()):
            self.process.join(timeout=1)
            self.kill()  # where it has closed its connection, and goes on
            return exit_loss(self.process.exitcode or 0)
        if self.groups and self.is_lost():
            self.kill()  # so that it cannot come back
            return Loss(f"did not respond for {self.allowed_silence:g} s and was stopped")
        return None

    def log(self) -> str:
        """Return the end of what its libraries printed."""
        if self._server_log is None:
            return ""
        own = read_tail(self._server_log.with_name(f"{self.process.pid}.log"))
        return own if own or self.heard else read_tail(self._server_log)

    def note_alive(self) -> None:
        """Remember a sign of life."""
        self.heard_at, self.heard, self.used_seconds = time.monotonic(), True, None

    @property
    def allowed_silence(self) -> float:
        """How many seconds may pass without a sign of life."""
        return SILENT_SECONDS if self.heard else START_SECONDS

    def is_lost(self) -> bool:
        """Return whether it has given no sign of life for too long; asked at every turn of a loop.

        Python's lock may keep a heartbeat back: a worker that used its processor in the second half of that time is not
        lost, and one that waits for a disk gets more time.
        """
        silent = time.monotonic() - self.heard_at
        if silent <= SILENT_SECONDS / 2 or self.connection.poll():
            return False
        state, used = _process_state(self.process.pid)
        self.used_seconds = used if self.used_seconds is None else self.used_seconds
        if silent <= SILENT_SECONDS:
            return False
        if used > self.used_seconds + _WORKING_SECONDS:
            self.heard_at, self.used_seconds = time.monotonic(), None
            return False
        return silent > (START_SECONDS if state == "D" else self.allowed_silence)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self.connection.send(Command.EXIT)
        self.process.join(timeout=0.1 if self.groups else 5)
        self.kill()
        self.connection.close()

    def kill(self) -> None:
        """End it at once, whatever it does."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join(timeout=_END_SECONDS)


def exit_loss(code: int) -> Loss:
    """Return the loss of a process with such an exit code; a negative one is a signal's."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    return Loss(how, exited=code >= 0)


def read_tail(log: Path) -> str:
    """Return the last 64 KB of a log, without tokens; nothing where there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_BYTES))
            return hide_tokens(stream.read(_LOG_BYTES).decode(errors="replace"))
    except OSError:
        return ""


def _process_state(pid: int | None) -> tuple[str, float]:
    """Return what the system says a process does (`R` runs, `D` waits for a disk, `T` is stopped) and its seconds."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return words[0], (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # it is gone, or the system is no Linux
        return "", 0.0


def run_engine(connection: Connection, staging: str, threads: int, gpu: str | None) -> None:
    """Run in the worker process: only there may the engine, and with it torch, be imported."""
    from lorafile.engine.worker.main import serve

    serve(connection, staging, threads, gpu)


def start_server(log: Path, model_types: tuple[str, ...] = (), light: bool = False) -> None:
    """Start the fork server, where it does not run yet; it loads what workers need, in the background.

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
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            try:
                forkserver.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # ours come now
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
def _no_main() -> Iterator[None]:
    """Hide the user's script from new processes: multiprocessing would run it again in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
