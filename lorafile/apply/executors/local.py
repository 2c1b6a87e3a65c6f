"""The local executor: worker processes on this machine, forked from a server that has the heavy modules loaded."""

import math
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lorafile.apply.executors.base import ExecutorCallbacks, Group
from lorafile.apply.executors.process import Worker, run_engine, start_server
from lorafile.engine.request import PackSizes, Result
from lorafile.engine.worker.channel import (
    Command,
    Event,
    Message,
    NodeEnd,
    NodeProgress,
    NodeStart,
    PackMeasured,
    Status,
    Work,
)
from lorafile.environment import profiled
from lorafile.errors import LoraError

_POLL_SECONDS = 0.5
_UNMEASURED = 16  # groups that a worker gets at most while it is not measured yet how many go together


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
                    phase.close()  # what follows has its devices to itself


@dataclass
class Queue:
    """What waits for a worker: whole seeds first, each group as soon as what it reads is there, together or alone.

    :ivar pack: how many replicates go together at most; 0 where that is measured for each class
    :ivar sizes: class -> what was measured
    """

    waiting: list[Group]
    pack: int = 1
    sizes: dict[str, PackSizes] = field(default_factory=dict)
    _coming: set[str] = field(default_factory=set)
    _died: set[Group] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._coming |= {key for group in self.waiting for key in group.keys}

    def take(self, bases: set[str], free: int) -> list[Group]:
        """Take out the next groups for one worker: rather such as share a base that is loaded; one, or a pack of them.

        :param free: workers that could take something; a pack leaves the others their share
        """
        ready = (group for group in self.waiting if self._is_ready(group))
        first = next(ready, None)
        if first is None:
            return []
        if first.base and first.base not in bases:
            first = next((group for group in ready if group.base in bases), first)
        taken = [first]
        if self._can_pack(first):
            alike = [g for g in self.waiting if g.pack == first.pack and self._can_pack(g) and self._is_ready(g)]
            sizes = self.pack_sizes(first)
            limit = sizes.most if sizes else _UNMEASURED
            taken = alike[: max(1, min(limit, math.ceil(len(alike) / free)))]
        gone = {id(group) for group in taken}
        self.waiting = [group for group in self.waiting if id(group) not in gone]
        return taken

    def pack_sizes(self, group: Group) -> PackSizes | None:
        """Return how many of a group's class go together; None where that is to be measured."""
        if not self._can_pack(group):
            return PackSizes()
        return PackSizes(self.pack, self.pack) if self.pack else self.sizes.get(group.pack)

    def set_pack_sizes(self, group: Group, sizes: PackSizes) -> bool:
        """Take in what a worker has measured for a group's class; return whether it is the first to say so."""
        new = group.pack not in self.sizes
        self.sizes.setdefault(group.pack, sizes)
        return new

    def mark_ended(self, *keys: str) -> None:
        """Note nodes that are done, or will not be done any more."""
        self._coming -= set(keys)

    def give_back(self, groups: list[Group]) -> None:
        """Put groups back where they were: they go out next."""
        self.waiting[:0] = groups

    def handle_dead_worker(self, groups: list[Group], running: set[str]) -> None:
        """Give back the groups of a worker that died, once; what it was doing is not packed from then on."""
        suspects = [group for group in groups if running & set(group.keys)] or groups
        given_up = [group for group in suspects if group in self._died]
        for group in given_up:
            self.mark_ended(*group.keys)
        self._died |= set(suspects)
        self.give_back([group for group in groups if group not in given_up])

    def has_died(self, group: Group) -> bool:
        """Return whether a worker died of a group, or at least while it did it."""
        return group in self._died

    def _can_pack(self, group: Group) -> bool:
        return bool(group.pack) and self.pack != 1 and group not in self._died

    def _is_ready(self, group: Group) -> bool:
        return not group.after & self._coming


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
    _releasable: list[Worker] = field(default_factory=list)  # when what they sent is stored

    def __post_init__(self) -> None:
        gpus = self.executor.gpus
        self.gpus = profiled(gpus) if self.alone else list(gpus)
        self.limit = 1 if self.spread else max(1, len(self.gpus)) if self.alone else self.executor.workers

    def run(self) -> None:
        """Do every group, or stop where that is wanted."""
        while True:
            if not self.callbacks.urgency():
                self._assign()
            busy = [worker for worker in self.workers if worker.groups]
            if not busy:
                self._flush()
                return
            for worker in busy if (urgency := self.callbacks.urgency()) else []:
                worker.ask(Command.FINISH if urgency == 1 else Command.STOP)
            self._listen()
            self._flush()
            if self.alone:
                self.close([worker for worker in self.workers if not worker.groups])

    def close(self, some: list[Worker] | None = None) -> None:
        """End some workers, or all."""
        for worker in list(self.workers if some is None else some):
            worker.close()
            self.workers.remove(worker)

    def _listen(self) -> None:
        """Wait until a worker says something or ends, and take in what all of them said."""
        handles: dict[Any, Worker] = {worker.connection: worker for worker in self.workers}
        handles |= {worker.process.sentinel: worker for worker in self.workers}
        ready = wait(list(handles), timeout=_POLL_SECONDS)
        for worker in {id(handles[handle]): handles[handle] for handle in ready}.values():
            self._receive(worker)
        for worker in [worker for worker in self.workers if worker.groups and worker.is_lost()]:
            self._handle_silent_worker(worker)

    def _flush(self) -> None:
        """Have what was said in this turn recorded, and tell those who wait for it."""
        events, self._events = self._events, []
        self.callbacks.record(events)
        releasable, self._releasable = self._releasable, []
        for worker in releasable:
            try:
                worker.connection.send(Command.RELEASE)
            except OSError:
                self._handle_dead_worker(worker)

    def _assign(self) -> None:
        """Give each free worker what it does next."""
        while True:
            idle = [worker for worker in self.workers if not worker.groups]
            free = len(idle) + self.limit - len(self.workers)
            groups = self.queue.take({worker.base for worker in idle}, free) if free > 0 else []
            if not groups:
                return
            requests = {group: self.callbacks.requests(group) for group in groups}
            self.queue.mark_ended(*(key for group in groups for key in group.keys if not requests[group]))
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
                worker.connection.send(Work([requests[group] for group in groups], self.queue.pack_sizes(groups[0])))
            except OSError:  # it died while it was idle
                self._handle_dead_worker(worker)

    def _start(self) -> Worker | None:
        executor = self.executor
        log = executor.staging / "worker.log"
        start_server(log, executor.model_types)
        taken = Counter(worker.gpu["visible"] for worker in self.workers if worker.gpu)
        gpu = min(self.gpus, key=lambda gpu: taken[gpu["visible"]]) if self.gpus and not self.spread else None
        threads = max(1, executor.threads_alone // self.limit) if self.alone else executor.threads
        arguments = (str(executor.staging), threads, gpu and gpu["visible"])
        worker = Worker.start(run_engine, arguments, log, self.callbacks.urgency)
        if worker is not None:
            worker.gpu = gpu
            self.workers.append(worker)
        return worker

    def _receive(self, worker: Worker) -> None:
        """Take in what a worker said, and notice when it has died."""
        try:
            while worker.connection.poll():
                self._take(worker, worker.connection.recv())
        except (EOFError, OSError):  # its end of the pipe is closed
            self._handle_dead_worker(worker)
            return
        if not worker.process.is_alive() and not worker.connection.poll():
            self._handle_dead_worker(worker)

    def _take(self, worker: Worker, message: Message) -> None:
        worker.note_alive()
        match message:
            case Status.WORK_DONE:
                self._releasable.append(worker)
            case Status.IDLE:
                self.queue.mark_ended(*(key for group in worker.groups for key in group.keys))
                worker.groups, worker.running = [], {}
            case PackMeasured(key, sizes):
                if self.queue.set_pack_sizes(worker.groups[0], sizes) and sizes.why:
                    self._events.append(NodeProgress(key, {"note": sizes.why}))
                self.queue.give_back(worker.groups[sizes.most :])
                worker.groups = worker.groups[: sizes.most]
            case NodeStart() | NodeProgress() | NodeEnd():
                self._events.append(message)
                if isinstance(message, NodeEnd):
                    worker.running.pop(message.key, None)
                    self.queue.mark_ended(message.key)
                else:
                    worker.note_started(message.key)

    def _handle_silent_worker(self, worker: Worker) -> None:
        """End a worker that gives no sign of life, so that it cannot come back, and go on as if it had died."""
        worker.kill()
        self._give_back(worker, f"gave no sign of life for {worker.allowed_silence:g} s and was ended")

    def _handle_dead_worker(self, worker: Worker) -> None:
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
        self._releasable = [other for other in self._releasable if other is not worker]
        for key, (started, began) in sorted(worker.running.items()):
            result = Result("interrupted", f"The worker process {how}.")
            self._events.append(NodeEnd(key, result, started=started, seconds=time.monotonic() - began))
        self.queue.handle_dead_worker(worker.groups, set(worker.running))
