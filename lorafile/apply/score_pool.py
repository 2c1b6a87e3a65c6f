"""A small pool of processes that compute scores, so that the applying process can go on recording meanwhile."""

import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lorafile.apply.executors.process import Worker, start_server
from lorafile.engine.request import Request, Result
from lorafile.engine.run import run
from lorafile.engine.worker.channel import NodeEnd, WorkerChannel
from lorafile.environment import cores
from lorafile.units import utc_now

FEW = 16  # scores of a plan; fewer are computed in the applying process: a pool would take longer to start
_MOST_PROCESSES = 4
_AHEAD = 8  # tasks that a process has at most: few enough for the buffer of its connection


@dataclass(frozen=True)
class ScoreTask:
    """A score to be computed, and the directory for its files."""

    request: Request
    out: Path


class ScorePool:
    """Computes scores, in processes of their own where there are many.

    :param expected: how many there will be
    :param log: where the libraries of those processes write
    :param urgency: returns whether the user wants an end
    :param light: nothing else will be done, so that torch is not needed
    """

    def __init__(self, expected: int, log: Path, urgency: Callable[[], int], light: bool = False) -> None:
        self._most = 0 if expected < FEW else min(_MOST_PROCESSES, cores())
        self._log, self._urgency, self._light = log, urgency, light
        self._workers: list[tuple[Worker, deque[ScoreTask]]] = []
        self._finished: list[NodeEnd] = []

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
        if len(self._workers) < self._most and all(tasks for _, tasks in self._workers):
            self._start()
        if not self._workers:  # there are few, or a stop was asked for while the first was started
            self._finished.append(_compute(task))
            return
        worker, tasks = min(self._workers, key=lambda pair: len(pair[1]))
        tasks.append(task)
        with contextlib.suppress(OSError):  # it is dead; `fetch` sees that
            worker.connection.send(task)

    def fetch(self, timeout: float = 0.0) -> list[NodeEnd]:
        """Return what is done; wait for it up to some seconds."""
        if self._workers and not self._finished:
            handles: dict[Any, Any] = {worker.connection: (worker, tasks) for worker, tasks in self._workers}
            for handle in wait(list(handles), timeout):
                self._receive(*handles[handle])
            for worker, tasks in [pair for pair in self._workers if pair[1] and pair[0].is_lost()]:
                worker.kill()
                self._handle_dead_worker(worker, tasks)
        finished, self._finished = self._finished, []
        return finished

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
        worker = Worker.start(_serve, (), self._log, self._urgency)
        if worker is not None:
            self._workers.append((worker, deque()))

    def _receive(self, worker: Worker, tasks: deque[ScoreTask]) -> None:
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                worker.note_alive()
                if isinstance(message, NodeEnd):
                    tasks.popleft()
                    self._finished.append(message)
        except (EOFError, OSError):
            self._handle_dead_worker(worker, tasks)

    def _handle_dead_worker(self, worker: Worker, tasks: deque[ScoreTask]) -> None:
        """Give up the task that a process died of, and hand out the others again."""
        self._workers = [pair for pair in self._workers if pair[0] is not worker]
        worker.kill()
        worker.connection.close()
        if tasks:
            result = Result("interrupted", f"The worker exited with code {worker.process.exitcode}.")
            task = tasks.popleft()
            self._finished.append(NodeEnd(task.request.key, result, str(task.out), utc_now()))
        for task in tasks:
            self.submit(task)


def _serve(connection: Connection) -> None:
    """Compute what is sent until the other end goes away. Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the applying process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which ends a metric file that runs, too
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    channel = WorkerChannel(connection)
    with contextlib.suppress(EOFError, OSError):
        channel.start_heartbeat()
        while isinstance(task := channel.receive(), ScoreTask):
            channel.send(_compute(task))


def _compute(task: ScoreTask) -> NodeEnd:
    started, began = utc_now(), time.monotonic()
    result = run(task.request, task.out)
    return NodeEnd(task.request.key, result, str(task.out), started, time.monotonic() - began)
