"""An agent on another machine: it starts a worker there, turns content into paths, and passes on what the worker says.

Ray's actors and Slurm's jobs are agents; how they are spoken to is theirs (`Outlet`), what they do is the same.
"""

import contextlib
import os
import queue
import shutil
import signal
import socket
import time
from collections import deque
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from lorafile.apply.executors.base import Loss
from lorafile.apply.executors.content import FileStore, Localizer
from lorafile.apply.executors.process import Worker, read_tail, run_engine, start_server
from lorafile.apply.executors.wire import (
    Checkpointed,
    Delivered,
    Files,
    Hello,
    Leaving,
    Letter,
    LogTail,
    Missing,
    Order,
    WireError,
    WorkerDied,
    decode,
)
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Command, Message, NodeEnd, NodeStart, Status, Work
from lorafile.environment import environment
from lorafile.files.run_directory import CHECKPOINT, CURVE, DamagedCheckpoint, read_manifest

CHECKPOINT_SECONDS = 300.0  # after so many a run's new checkpoint travels
_TURN_SECONDS = 0.1
_LOG_SECONDS = 30.0
_STOP_SECONDS = 60.0  # for a run to reach its next step and write a checkpoint, when the machine is taken back
_MISSING_SECONDS = 10.0  # after so many what is missing is asked for again


class Outlet(Protocol):
    """How an agent speaks."""

    def emit(self, letter: Letter) -> None:
        """Send a message; it never waits for the other end."""

    def publish(self, directory: Path, names: list[str]) -> Files:
        """Make files of this node available to the other end; return their digests and lengths."""


class Agent:
    """One worker of a node, and what it needs.

    :param root: a directory of its own, for what the worker writes
    :param threads: of the worker
    :ivar releases_itself: what it publishes stays although the worker's own files go
    :ivar detached: it ends when its work is done; until then no apply has to listen
    """

    releases_itself = False

    def __init__(self, root: Path, store: FileStore, outlet: Outlet, threads: int) -> None:
        self.root, self.store, self.outlet, self._threads = root, store, outlet, threads
        self.closed = self.detached = False
        self.leaving = ""
        self._orders: queue.SimpleQueue[Letter] = queue.SimpleQueue()
        self._localizer = Localizer(store, root / "running")
        self._worker: Worker | None = None
        self._pending: deque[Work] = deque()  # waits for the worker, or for files
        self._asked_at = 0.0
        self._working = False
        self._requests: dict[str, Request] = {}  # of the work in hand, as they came
        self._left: dict[str, dict[str, str]] = {}  # key -> file name -> digest
        self._running: set[str] = set()
        self._sent: dict[str, int] = {}  # key -> step of the checkpoint that was sent last
        self._checked_at = self._logged_at = time.monotonic()
        self._logged = ""
        self._stop_at = 0.0

    def deliver(self, text: str) -> None:
        """Take a message of the applying process; one that cannot be read ends the agent with a sentence."""
        try:
            self._orders.put(decode(text))
        except WireError as error:
            self.leave(str(error).rstrip("."))

    def leave(self, why: str) -> None:
        """End soon, with the checkpoint of what is running: the machine is taken back, or no apply listens."""
        self.leaving = self.leaving or why

    @property
    def busy(self) -> bool:
        """Whether it has work."""
        return bool(self._pending) or self._working

    def run(self) -> None:
        """Serve until asked to end; the other end, which would wait for it, hears what stops it."""
        try:
            start_server(self.root / "worker.log")
            self.outlet.emit(Hello(socket.gethostname(), os.getpid(), environment=environment()))
            while not self.closed:
                self.turn()
        except Exception as error:
            why = f"could not continue: {type(error).__name__}: {str(error).rstrip('.')}"
            self.outlet.emit(Leaving(why, read_tail(self.root / "worker.log")))
            raise
        finally:
            self._end_worker()

    def turn(self) -> None:
        """Do what there is to do now, or wait a moment."""
        handles: list[Any] = [self._worker.connection, self._worker.process.sentinel] if self._worker else []
        wait(handles, _TURN_SECONDS) if handles and self._orders.empty() else time.sleep(_TURN_SECONDS / 4)
        while not self.closed and not self._orders.empty():
            self._obey(self._orders.get())
        self._begin()
        self._listen()
        if time.monotonic() - self._checked_at > CHECKPOINT_SECONDS:
            self._checked_at = time.monotonic()
            for key in sorted(self._running):
                self._send_checkpoint(key)
        self._send_log()
        if self.detached and not self.busy and self._orders.empty():
            self.leave("ended because its work was done")
        if self.leaving:
            self._leave()

    def _obey(self, order: Letter) -> None:
        match order:
            case Work():
                self._pending.append(order)
                self._asked_at = 0.0
            case Order.RENEW:
                self._pending.clear()
                self._end_worker()
            case Command.DETACH:
                self.detached = True
            case Order.CLOSE:
                self.closed = True
            case Command.RELEASE:
                if not self.releases_itself:
                    self._tell_worker(order)
            case Command():
                if self._pending and not self._working:  # it has not begun
                    self.outlet.emit(Status.IDLE)
                self._pending.clear()
                self._tell_worker(order)

    def _tell_worker(self, order: Work | Command) -> None:
        if self._worker is not None:
            self._worker.send(order)

    def _begin(self) -> None:
        """Give the worker what waits, once the files that it reads are here."""
        if not self._pending or self._working or time.monotonic() < self._asked_at:
            return
        if missing := self._localizer.missing(self._pending[0]):
            self._asked_at = time.monotonic() + _MISSING_SECONDS
            self.outlet.emit(Missing(missing))
            return
        sent = self._pending.popleft()
        self._requests = {request.key: request for replicate in sent.replicates for request in replicate}
        work = self._localizer.localize(sent)
        if self._worker is None:
            log = self.root / "worker.log"
            self._worker = Worker.start(run_engine, (str(self.root), self._threads, None), log, lambda: 0)
        self._working = True
        self._tell_worker(work)

    def note_supplied(self) -> None:
        """Look again for what was missing: something has come."""
        self._asked_at = min(self._asked_at, time.monotonic())

    def _listen(self) -> None:
        if self._worker is None:
            return
        for message in self._worker.events():
            self._pass_on(message)
        if loss := self._loss(self._worker):
            log = self._worker.log()
            self._end_worker()
            if not self.leaving:
                self.outlet.emit(WorkerDied(loss.why, loss.exited, log))

    def _loss(self, worker: Worker) -> Loss | None:
        if (loss := worker.lost()) is not None:
            return loss
        if self._working and worker.is_lost():
            worker.kill()
            return Loss(f"did not respond for {worker.allowed_silence:g} s and was stopped")
        return None

    def _pass_on(self, message: Message) -> None:
        match message:
            case Status.ALIVE:
                return  # the agent has signs of life of its own
            case NodeStart(key):
                self._running.add(key)
            case Status.WORK_DONE:
                self._working = False
                if self.releases_itself:  # what it left is published
                    self._tell_worker(Command.RELEASE)
            case NodeEnd():
                self._pass_on_end(message)
                return
        self.outlet.emit(message)

    def _pass_on_end(self, end: NodeEnd) -> None:
        self._running.discard(end.key)
        stopped = end.result.outcome == "interrupted"
        if stopped:
            self._send_checkpoint(end.key)
        else:
            shutil.rmtree(self.root / "running" / end.key, ignore_errors=True)
        if stopped and self.leaving:
            return  # the machine's end is none of the node: another one goes on with it
        files = self.outlet.publish(Path(end.directory), end.result.files)
        self._left[end.key] = {name: digest for name, (digest, _) in files.items()}
        log = self._worker.log() if self._worker and end.result.outcome in ("failed", "interrupted") else ""
        self.outlet.emit(Delivered(replace(end, directory="", log=log), files, self._reads(end.key)))

    def _reads(self, key: str) -> dict[str, dict[str, str]]:
        """Return the digests of what a node read: files that came with the work, and what nodes of it left."""
        request = self._requests[key]
        return request.inputs | {role: self._left[other] for role, other in request.awaits.items()}

    def _send_checkpoint(self, key: str) -> None:
        """Send the last checkpoint of a run, if it is newer than the one that was sent."""
        directory, copy = self.root / "running" / key, self.root / "checkpoints" / key
        try:
            step = int(read_manifest(directory)["step"])
            if step <= self._sent.get(key, 0):
                return
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
            names = [CHECKPOINT, CURVE, *(file.name for file in directory.glob("step-*"))]
            for name in names:
                shutil.copyfile(directory / name, copy / name)
        except (DamagedCheckpoint, OSError, KeyError, ValueError):  # there is none yet; or it has changed meanwhile
            return
        self._sent[key] = step
        self.outlet.emit(Checkpointed(key, self.outlet.publish(copy, names)))

    def _send_log(self) -> None:
        if self._worker is None or time.monotonic() - self._logged_at < _LOG_SECONDS:
            return
        self._logged_at, log = time.monotonic(), self._worker.log()
        if log != self._logged:
            self._logged = log
            self.outlet.emit(LogTail(log))

    def _leave(self) -> None:
        """Stop the worker at its next step, and end when it has stopped, or does not within a minute."""
        if not self._stop_at:
            self._stop_at = time.monotonic() + _STOP_SECONDS
            self._pending.clear()
            self._tell_worker(Command.STOP)
        if not self._working or time.monotonic() > self._stop_at:
            log = self._worker.log() if self._worker else read_tail(self.root / "worker.log")
            self.outlet.emit(Leaving(self.leaving, log))
            self.closed = True

    def _end_worker(self) -> None:
        self._working, self._running = False, set()
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def leave_on_signals(agent: Agent) -> None:
    """Take SIGTERM and SIGUSR2 as a scheduler's word that the machine is taken back."""

    def leave(number: int, _frame: object) -> None:
        agent.leave(f"was stopped by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGUSR2):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(number, leave)
