"""The local executor: worker processes on this machine, forked from a server that has the heavy modules loaded."""

import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lorafile.apply.executors import process as workers
from lorafile.apply.executors.base import ExecutorCallbacks, Group
from lorafile.apply.executors.forkserver import start_server
from lorafile.apply.executors.process import Worker, run_engine
from lorafile.apply.executors.queue import Queue
from lorafile.engine.request import Result, Work
from lorafile.engine.worker.events import Event
from lorafile.environment import profiled
from lorafile.errors import LoraError

_POLL_SECONDS = 0.5


@dataclass
class LocalExecutor:
    """Runs groups on this machine: several workers at once, one for each GPU or some of the processor's cores.

    :ivar threads: of each worker; `threads_alone`: of what is measured while nothing else runs
    :ivar gpus: that workers are spread over, as `environment.gpus` describes them
    :ivar pack: how many adapters are trained together at most; 0: as many as are measured to be fastest
    """

    staging: Path
    workers: int
    threads: int
    threads_alone: int
    gpus: tuple[dict[str, Any], ...] = ()
    model_types: tuple[str, ...] = ()
    pack: int = 0

    def run(self, groups: list[Group], callbacks: ExecutorCallbacks) -> None:
        """Do every group; what has all GPUs for itself comes after the rest, and what is measured alone comes last."""
        self.staging.mkdir(parents=True, exist_ok=True)
        for alone in (False, True):
            for spread in (False, True):
                chosen = [group for group in groups if (group.alone, group.spread) == (alone, spread)]
                phase = _Phase(self, Queue(chosen, 1 if alone else self.pack), callbacks, alone, spread)
                try:
                    phase.run()
                finally:
                    phase.close()  # what follows shares its devices with nobody


@dataclass
class _Phase:
    """Groups that may run at the same time, and the workers that do them.

    :ivar alone: each is measured in a fresh process that has its device for itself
    :ivar spread: each has all GPUs
    """

    executor: LocalExecutor
    queue: Queue
    callbacks: ExecutorCallbacks
    alone: bool
    spread: bool
    workers: list[Worker] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)  # of this turn
    _asking: list[Worker] = field(default_factory=list)  # whether what they sent is stored

    def __post_init__(self) -> None:
        gpus = self.executor.gpus
        self.gpus = profiled(gpus) if self.alone else list(gpus)
        self.limit = 1 if self.spread else max(1, len(self.gpus)) if self.alone else self.executor.workers

    def run(self) -> None:
        """Do every group, or stop where that is wanted."""
        while True:
            if not self.callbacks.stopping():
                self._hand_out()
            busy = [worker for worker in self.workers if worker.groups]
            if not busy:
                self._settle()
                return
            for worker in busy if (urgency := self.callbacks.stopping()) else []:
                worker.ask("finish" if urgency == 1 else "stop")
            self._hear()
            self._settle()
            if self.alone:
                self.close([worker for worker in self.workers if not worker.groups])

    def close(self, some: list[Worker] | None = None) -> None:
        """End some workers, or all."""
        for worker in list(self.workers if some is None else some):
            worker.close()
            self.workers.remove(worker)

    def _hear(self) -> None:
        """Wait until a worker says something or ends, and take in what all of them said."""
        handles: dict[Any, Worker] = {worker.connection: worker for worker in self.workers}
        handles |= {worker.process.sentinel: worker for worker in self.workers}
        ready = wait(list(handles), timeout=_POLL_SECONDS)
        for worker in {id(handles[handle]): handles[handle] for handle in ready}.values():
            self._listen(worker)
        for worker in [worker for worker in self.workers if worker.groups and worker.is_lost()]:
            self._handle_lost(worker)

    def _settle(self) -> None:
        """Have what was said in this turn recorded, and tell those who wait for it."""
        events, self._events = self._events, []
        self.callbacks.take(events)
        asking, self._asking = self._asking, []
        for worker in asking:
            try:
                worker.connection.send("stored")
            except OSError:
                self._handle_dead(worker)

    def _hand_out(self) -> None:
        """Give each free worker what it does next."""
        while True:
            idle = [worker for worker in self.workers if not worker.groups]
            free = len(idle) + self.limit - len(self.workers)
            groups = self.queue.take({worker.base for worker in idle}, free) if free > 0 else []
            if not groups:
                return
            requests = {group: self.callbacks.requests(group) for group in groups}
            self.queue.ended(*(key for group in groups for key in group.keys if not requests[group]))
            groups = [group for group in groups if requests[group]]
            if not groups:
                continue
            base = groups[0].base
            spare = idle[0] if idle else None
            worker = next((worker for worker in idle if worker.base == base), spare) or self._start()
            if worker is None:  # a stop was asked for
                self.queue.give_back(groups)
                return
            worker.groups, worker.base = groups, base or worker.base
            try:
                worker.connection.send(Work([requests[group] for group in groups], self.queue.known(groups[0])))
            except OSError:  # it died while it was idle
                self._handle_dead(worker)

    def _start(self) -> Worker | None:
        executor = self.executor
        log = executor.staging / "worker.log"
        start_server(log, executor.model_types)
        taken = Counter(worker.gpu["visible"] for worker in self.workers if worker.gpu)
        gpu = min(self.gpus, key=lambda gpu: taken[gpu["visible"]]) if self.gpus and not self.spread else None
        threads = max(1, executor.threads_alone // self.limit) if self.alone else executor.threads
        arguments = (str(executor.staging), threads, gpu and gpu["visible"])
        worker = Worker.start(run_engine, arguments, log, self.callbacks.stopping)
        if worker is not None:
            worker.gpu = gpu
            self.workers.append(worker)
        return worker

    def _listen(self, worker: Worker) -> None:
        """Take in what a worker said, and notice when it has died."""
        try:
            while worker.connection.poll():
                self._take(worker, worker.connection.recv())
        except (EOFError, OSError):  # its end of the pipe is closed
            self._handle_dead(worker)
            return
        if not worker.process.is_alive() and not worker.connection.poll():
            self._handle_dead(worker)

    def _take(self, worker: Worker, event: Event) -> None:
        worker.note_alive()
        if event.what == "alive":
            return
        if event.what == "stored?":
            self._asking.append(worker)
        elif event.what == "idle":
            self.queue.ended(*(key for group in worker.groups for key in group.keys))
            worker.groups, worker.running = [], {}
        elif event.widths is not None:
            if self.queue.learn(worker.groups[0], event.widths) and event.widths.why:
                self._events.append(Event("progress", event.key, {"note": event.widths.why}))
            self.queue.give_back(worker.groups[event.widths.most :])
            worker.groups = worker.groups[: event.widths.most]
        else:
            self._events.append(event)
            if event.what == "ended":
                worker.running.pop(event.key, None)
                self.queue.ended(event.key)
            else:
                worker.note_started(event.key)

    def _handle_lost(self, worker: Worker) -> None:
        """End a worker that gives no sign of life, so that it cannot come back, and go on as if it had died."""
        worker.kill()
        after = workers.SILENT_SECONDS if worker.begun else workers.START_SECONDS
        self._give_back(worker, f"gave no sign of life for {after:g} s and was ended")

    def _handle_dead(self, worker: Worker) -> None:
        """Go on without a worker that has ended."""
        worker.process.join(timeout=1)
        worker.kill()  # where it has closed its connection, and goes on
        if not worker.groups:
            self.workers.remove(worker)
            return
        code = worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if not worker.running and code >= 0 and not any(self.queue.has_died(group) for group in worker.groups):
            log = self.executor.staging / "worker.log"
            raise LoraError(f"A worker process {how} before it could begin; its log is {log}.")
        self._give_back(worker, how)

    def _give_back(self, worker: Worker, how: str) -> None:
        """Record what a worker was doing as interrupted, and give its groups to another one, each once."""
        self.workers.remove(worker)
        worker.connection.close()
        self._asking = [other for other in self._asking if other is not worker]
        for key, (started, began) in sorted(worker.running.items()):
            seconds = time.monotonic() - began
            done = Result("interrupted", f"The worker process {how}.")
            self._events.append(Event("ended", key, done=done, started=started, seconds=seconds))
        self.queue.bury(worker.groups, set(worker.running))
