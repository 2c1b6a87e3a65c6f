"""A small pool of processes that compute scores, so that the applying process can go on recording meanwhile."""

import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from lorafile.apply.executors.forkserver import start_server
from lorafile.apply.executors.process import Worker
from lorafile.apply.score import ScoreTask, score
from lorafile.engine.request import Result
from lorafile.engine.worker.link import ALIVE, Line
from lorafile.environment import cores

FEW = 16  # scores of a plan; fewer are computed in the applying process: a pool would take longer to start
_MOST_PROCESSES = 4
_AHEAD = 8  # tasks that a process has at most: few enough for the buffer of its connection


class Scored(NamedTuple):
    """What came of a task, when it began, and how many seconds it took."""

    task: ScoreTask
    done: Result
    started: str
    seconds: float


class Scorers:
    """Computes scores, in processes of their own where there are many.

    :param expected: how many there will be
    :param log: where the libraries of those processes write
    :param stopping: whether the user wants an end
    :param light: nothing else will be done, so that nobody needs torch
    """

    def __init__(self, expected: int, log: Path, stopping: Callable[[], int], light: bool = False) -> None:
        self._most = 0 if expected < FEW else min(_MOST_PROCESSES, cores())
        self._log, self._stopping, self._light = log, stopping, light
        self._workers: list[tuple[Worker, deque[ScoreTask]]] = []
        self._finished: list[Scored] = []

    @property
    def room(self) -> int:
        """How many more tasks can be taken now."""
        if self._most == 0:
            return 1 - len(self._finished)
        return _AHEAD * self._most - self.busy

    @property
    def busy(self) -> int:
        """How many tasks are in work, or wait to be fetched."""
        return sum(len(tasks) for _, tasks in self._workers) + len(self._finished)

    def submit(self, task: ScoreTask) -> None:
        """Take a task; without processes it is done when this returns."""
        if self._most == 0:
            self._finished.append(_timed(task))
            return
        if len(self._workers) < self._most and all(tasks for _, tasks in self._workers):
            self._start()
        if not self._workers:  # a stop was asked for while the first was started
            self._finished.append(_timed(task))
            return
        worker, tasks = min(self._workers, key=lambda pair: len(pair[1]))
        tasks.append(task)
        with contextlib.suppress(OSError):  # it is dead; `fetch` sees that
            worker.connection.send(task)

    def fetch(self, timeout: float = 0.0) -> list[Scored]:
        """Return what is done; wait for it up to some seconds."""
        if self._workers and not self._finished:
            handles: dict[Any, Any] = {worker.connection: (worker, tasks) for worker, tasks in self._workers}
            for handle in wait(list(handles), timeout):
                self._read(*handles[handle])
            for worker, tasks in [pair for pair in self._workers if pair[1] and pair[0].is_lost()]:
                worker.kill()
                self._handle_dead(worker, tasks)
        found, self._finished = self._finished, []
        return found

    def close(self) -> None:
        """End the processes, with a metric file that one of them is running."""
        for worker, tasks in self._workers:
            if tasks and worker.process.is_alive():
                worker.process.terminate()
                worker.process.join(timeout=1)
            worker.close()
        self._workers = []

    def _start(self) -> None:
        start_server(self._log, light=self._light)
        worker = Worker.start(_serve, (), self._log, self._stopping)
        if worker is not None:
            self._workers.append((worker, deque()))

    def _read(self, worker: Worker, tasks: deque[ScoreTask]) -> None:
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                worker.note_alive()
                if message != ALIVE:
                    self._finished.append(Scored(tasks.popleft(), *message))
        except (EOFError, OSError):
            self._handle_dead(worker, tasks)

    def _handle_dead(self, worker: Worker, tasks: deque[ScoreTask]) -> None:
        """Give up the task that a process died of, and hand out the others again."""
        self._workers = [pair for pair in self._workers if pair[0] is not worker]
        worker.kill()
        worker.connection.close()
        if tasks:
            how = f"The process that computed it ended with exit code {worker.process.exitcode}."
            self._finished.append(Scored(tasks.popleft(), Result("interrupted", how), _now(), 0.0))
        for task in tasks:
            self.submit(task)


def _serve(connection: Connection) -> None:
    """Compute what is sent until the other end goes away. Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the applying process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which ends a metric file that runs, too
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    line = Line(connection)
    with contextlib.suppress(EOFError, OSError):
        line.beat()
        while isinstance(task := line.recv(), ScoreTask):
            line.send(tuple(_timed(task))[1:])


def _timed(task: ScoreTask) -> Scored:
    started, began = _now(), time.monotonic()
    return Scored(task, score(task), started, time.monotonic() - began)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
