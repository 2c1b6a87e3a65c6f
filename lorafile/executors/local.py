"""The local executor: worker processes on this machine, forked from a server that has the heavy modules loaded."""

import signal
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from lorafile.engine.events import Event
from lorafile.engine.request import Done, Work
from lorafile.errors import LoraError
from lorafile.executors import Desk, Group
from lorafile.executors.process import Worker
from lorafile.executors.queue import Queue
from lorafile.executors.server import start_server

_POLL_SECONDS = 0.5


@dataclass
class LocalExecutor:
    """Runs groups on this machine: several workers at once, one for each GPU or some of the processor's cores.

    :ivar threads: of each worker; `threads_alone`: of what is measured while nothing else runs
    :ivar pack: how many adapters are trained together at most; 0: as many as are measured to be fastest
    """

    staging: Path
    workers: int
    threads: int
    threads_alone: int
    gpus: int = 0
    model_types: tuple[str, ...] = ()
    pack: int = 0
    _all: list[Worker] = field(default_factory=list)

    def run(self, groups: list[Group], desk: Desk) -> None:
        """Do every group; what is measured alone comes when all else is done."""
        self.staging.mkdir(parents=True, exist_ok=True)
        try:
            self._run(Queue([group for group in groups if not group.alone], self.pack), desk, alone=False)
            self._close()  # what is measured shares the device with nobody
            self._run(Queue([group for group in groups if group.alone]), desk, alone=True)
        finally:
            self._close()

    def _run(self, queue: Queue, desk: Desk, alone: bool) -> None:
        while True:
            if not desk.stopping():
                self._hand_out(queue, desk, alone)
            busy = [worker for worker in self._all if worker.groups]
            if not busy:
                return
            for worker in busy if desk.stopping() else []:
                worker.ask("finish" if desk.stopping() == 1 else "stop")
            by_handle = {worker.connection: worker for worker in busy} | {
                worker.process.sentinel: worker for worker in busy
            }
            for handle in wait(list(by_handle), timeout=_POLL_SECONDS):
                worker = by_handle[handle]  # type: ignore[index]
                if worker in self._all and worker.groups:
                    self._listen(worker, queue, desk)
            if alone:
                self._close([worker for worker in self._all if not worker.groups])

    def _hand_out(self, queue: Queue, desk: Desk, alone: bool) -> None:
        """Give each free worker what it does next."""
        limit = 1 if alone else self.workers
        while True:
            idle = [worker for worker in self._all if not worker.groups]
            free = len(idle) + limit - len(self._all)
            groups = queue.take({worker.base for worker in idle}, free) if free else []
            if not groups:
                return
            requests = {group: desk.requests(group) for group in groups}
            queue.ended(*(key for group in groups for key in group.keys if not requests[group]))
            groups = [group for group in groups if requests[group]]
            if not groups:
                continue
            base = groups[0].base
            spare = idle[0] if idle else None
            worker = next((worker for worker in idle if worker.base == base), spare) or self._start(alone)
            worker.groups, worker.base = groups, base or worker.base
            try:
                worker.connection.send(Work([requests[group] for group in groups], queue.known(groups[0])))
            except OSError:  # it died while it was idle
                self._bury(worker, queue, desk)

    def _start(self, alone: bool) -> Worker:
        start_server(self.staging / "worker.log", self.model_types)
        taken = {worker.gpu for worker in self._all}
        gpu = next((number for number in range(self.gpus) if number not in taken), 0) if self.gpus else None
        worker = Worker.start(self.staging, self.threads_alone if alone else self.threads, gpu)
        self._all.append(worker)
        return worker

    def _listen(self, worker: Worker, queue: Queue, desk: Desk) -> None:
        """Take in what a worker said, and notice when it has died."""
        try:
            while worker.connection.poll():
                self._take(worker, worker.connection.recv(), queue, desk)
        except (EOFError, OSError):  # its end of the pipe is closed, for reading or for our answer
            self._bury(worker, queue, desk)
            return
        if not worker.process.is_alive() and not worker.connection.poll():
            self._bury(worker, queue, desk)

    def _take(self, worker: Worker, event: Event, queue: Queue, desk: Desk) -> None:
        if event.what == "stored?":
            worker.connection.send("stored")
        elif event.what == "idle":
            queue.ended(*(key for group in worker.groups for key in group.keys))
            worker.groups, worker.running = [], set()
        elif event.widths is not None:
            if queue.learn(worker.groups[0], event.widths) and event.widths.why:
                desk.handle(Event("progress", event.key, {"note": event.widths.why}))
            queue.give_back(worker.groups[event.widths.most :])
            worker.groups = worker.groups[: event.widths.most]
        else:
            desk.handle(event)
            if event.what == "ended":
                worker.running.discard(event.key)
                queue.ended(event.key)
            else:
                worker.running.add(event.key)

    def _bury(self, worker: Worker, queue: Queue, desk: Desk) -> None:
        """Record what a dead worker was doing as interrupted, and give its groups to another one, each once."""
        worker.process.join()
        self._all.remove(worker)
        code = worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if not worker.running and code >= 0 and not any(queue.has_died(group) for group in worker.groups):
            raise LoraError(f"A worker process {how} before it could begin; its log is {self.staging / 'worker.log'}.")
        for key in sorted(worker.running):
            desk.handle(Event("ended", key, done=Done("interrupted", f"The worker process {how}.")))
        queue.bury(worker.groups, worker.running)

    def _close(self, some: list[Worker] | None = None) -> None:
        for worker in list(self._all if some is None else some):
            worker.close()
            self._all.remove(worker)
