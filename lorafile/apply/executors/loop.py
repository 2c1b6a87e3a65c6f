"""The loop that hands out groups and takes in events, whatever starts the workers: the one executor."""

import time
from dataclasses import dataclass, field

from lorafile.apply.executors.base import (
    ExecutorCallbacks,
    Group,
    Loss,
    Phase,
    WorkerHandle,
    WorkerPool,
)
from lorafile.apply.executors.queue import MOST_LOSSES, Queue
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
from lorafile.errors import LoraError

_POLL_SECONDS = 0.5
_MOST_EVENTS = 200  # that are taken in before they are recorded: of a thousand workers that all speak at once
_WITH_LOG = ("failed", "interrupted")  # outcomes with which the end of the worker's log is stored


@dataclass
class PoolExecutor:
    """Has groups done by the workers of a pool.

    :ivar pack: how many adapters are trained together at most; 0: as many as are measured to be fastest
    :ivar detach: give workers all there is to do, and leave them to it; what is measured alone comes another time
    :ivar detached: whether workers have been left to their work
    :ivar workers: those that go on, where the pool keeps them
    """

    pool: WorkerPool
    pack: int = 0
    detach: bool = False
    detached: bool = False
    workers: list[WorkerHandle] = field(default_factory=list)
    _left: list[tuple[WorkerHandle, list[Work]]] | None = None  # by an earlier apply

    def run(self, groups: list[Group], callbacks: ExecutorCallbacks) -> None:
        """Do every group; what has all GPUs for itself comes after the rest, and what is measured alone comes last."""
        for alone in (False, True):
            for spread in (False, True):
                chosen = [group for group in groups if (group.alone, group.spread) == (alone, spread)]
                queue = Queue(chosen, 1 if alone or self.detach else self.pack)
                dispatcher = Dispatcher(self.pool, Phase(alone, spread), queue, callbacks, self.workers)
                dispatcher.detach = self.detach and not alone
                try:
                    self._adopt(dispatcher)
                    if not (self.detach and alone):
                        dispatcher.run()
                        self.detached = self.detached or dispatcher.detached
                finally:
                    if not self.pool.keeps_workers:
                        self.close()  # what follows has its devices to itself

    def _adopt(self, dispatcher: "Dispatcher") -> None:
        """Let the workers of an earlier apply go on with what is still to be done of their work; end the others."""
        if self._left is None:
            self._left = self.pool.adopt()
        self._left = [(worker, works) for worker, works in self._left if not dispatcher.adopt(worker, works)]
        if dispatcher.phase == Phase(alone=True, spread=True):
            for worker, _ in self._left:
                worker.close()
            self._left = []

    def close(self) -> None:
        """End the workers that there are."""
        while self.workers:
            self.workers.pop().close()


@dataclass
class Dispatcher:
    """Hands out the groups of one phase and takes in what workers say."""

    pool: WorkerPool
    phase: Phase
    queue: Queue
    callbacks: ExecutorCallbacks
    workers: list[WorkerHandle] = field(default_factory=list)
    detach: bool = False
    detached: bool = False
    _events: list[Event] = field(default_factory=list)  # of this turn
    _heard: int = 0  # workers that were listened to so far; the next turn begins with the one after them
    _releasable: list[WorkerHandle] = field(default_factory=list)  # when what they sent is stored

    def __post_init__(self) -> None:
        self.limit = self.pool.limit(self.phase)

    def run(self) -> None:
        """Do every group, or stop where that is wanted."""
        while True:
            if self.phase.alone and self.queue.waiting:
                self._renew()
            if not self.callbacks.urgency():
                self._reclaim()
                self._assign()
            busy = [worker for worker in self.workers if worker.groups]
            if not busy:
                self._flush()
                return
            for worker in busy if (urgency := self.callbacks.urgency()) else []:
                self._stop(worker, urgency)
            if self.detach and self.queue.all_ready and not self.callbacks.urgency():
                self._hand_out_rest()
                self._flush()
                self.detached = True
                return
            self._listen()
            self._flush()

    def _stop(self, worker: WorkerHandle, urgency: int) -> None:
        """Ask a worker to finish or to stop; one that has not begun, perhaps for hours, is not waited for."""
        if worker.has_begun:
            worker.ask(Command.FINISH if urgency == 1 else Command.STOP)
            return
        worker.close()
        self.workers.remove(worker)
        self.queue.give_back(worker.groups)
        worker.take_back()

    def adopt(self, worker: WorkerHandle, works: list[Work]) -> bool:
        """Take a worker over, if some of the work that it has in hand is still to be done in this phase."""
        keys = {request.key for work in works for replicate in work.replicates for request in replicate}
        groups = self.queue.take_all({key for key in keys if self.queue.is_open(key)})
        replicates = sum(len(work.replicates) for work in works)
        if not groups or (any(work.sizes is None for work in works) and len(groups) != replicates):
            self.queue.give_back(groups)
            return False
        worker.groups = groups
        self.workers.append(worker)
        return True

    def _hand_out_rest(self) -> None:
        """Give each worker its share of everything that waits, one after another, and leave them to it."""
        while len(self.workers) < min(self.limit, len(self.workers) + len(self.queue.waiting)) and self.start():
            pass
        for number, group in enumerate(self.queue.take_all({key for g in self.queue.waiting for key in g.keys})):
            worker = self.workers[number % len(self.workers)]
            if requests := self.callbacks.requests(group):
                worker.send(Work([requests], PackSizes()))
        for worker in self.workers:
            worker.send(Command.DETACH)

    def _listen(self) -> None:
        """Wait until a worker says something or is lost, and take in what all of them said."""
        self.pool.wait(self.workers, _POLL_SECONDS)
        at = self._heard % max(1, len(self.workers))
        for worker in (*self.workers[at:], *self.workers[:at]):
            for message in worker.events():
                self._take(worker, message)
            if loss := worker.lost():
                self._handle_loss(worker, loss)
            self._heard += 1
            if len(self._events) >= _MOST_EVENTS:  # the others have their turn when these are recorded
                return

    def _flush(self) -> None:
        """Have what was said in this turn recorded, and tell those who wait for it."""
        events, self._events = self._events, []
        self.callbacks.record(events)
        releasable, self._releasable = self._releasable, []
        for worker in releasable:
            worker.send(Command.RELEASE)

    def _reclaim(self) -> None:
        """Give back what a worker has in hand that has not begun, perhaps for hours, where another one is idle."""
        waiting = [worker for worker in self.workers if worker.groups and not worker.has_begun]
        idle = sum(worker.has_begun and not worker.groups for worker in self.workers)
        if self.queue.has_ready:
            return
        for worker in waiting[:idle]:
            worker.retract()
            self.queue.give_back(worker.groups)
            worker.take_back()

    def _assign(self) -> None:
        """Give each free worker what it does next."""
        while True:
            idle = sorted((worker for worker in self.workers if not worker.groups), key=lambda one: not one.has_begun)
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
            worker = next((worker for worker in idle if worker.base == base), spare) or self.start()
            if worker is None:  # a stop was asked for
                self.queue.give_back(groups)
                return
            worker.give(groups, Work([requests[group] for group in groups], self.queue.pack_sizes(groups[0])))

    def start(self) -> WorkerHandle | None:
        """Start one more worker; None where a stop is asked for meanwhile."""
        worker = self.pool.start(self.phase, self.workers, self.callbacks.urgency)
        if worker is not None:
            self.workers.append(worker)
        return worker

    def _renew(self) -> None:
        """See to it that what is measured next is measured in a fresh process."""
        for worker in [worker for worker in self.workers if worker.used and not worker.groups]:
            worker.used = False
            if not worker.renew():
                worker.close()
                self.workers.remove(worker)

    def _take(self, worker: WorkerHandle, message: Message) -> None:
        match message:
            case Status.WORK_DONE:
                self._releasable.append(worker)
            case Status.IDLE:
                self.queue.mark_ended(*(key for group in worker.groups for key in group.keys))
                worker.take_back()
            case PackMeasured(key, sizes):
                if self.queue.set_pack_sizes(worker.groups[0], sizes) and sizes.why:
                    self._events.append(NodeProgress(key, {"note": sizes.why}))
                self.queue.give_back(worker.groups[sizes.most :])
                worker.groups = worker.groups[: sizes.most]
            case NodeStart() | NodeProgress() | NodeEnd():
                if self.queue.is_open(message.key):  # what is said of a finished node comes too late
                    self._take_event(worker, message)

    def _take_event(self, worker: WorkerHandle, event: Event) -> None:
        if not isinstance(event, NodeEnd):
            worker.note_started(event.key)
            self._events.append(event)
            return
        worker.running.pop(event.key, None)
        worker.progressed.add(event.key)
        self.queue.mark_ended(event.key)
        if event.result.outcome != "interrupted":
            self.queue.mark_final(event.key)
        self._events.append(event.with_log(worker.log()) if event.result.outcome in _WITH_LOG else event)

    def _handle_loss(self, worker: WorkerHandle, loss: Loss) -> None:
        """Go on without a worker, or with its agent."""
        log = worker.log()
        if loss.by_its_work and worker.renew():
            self._releasable = [other for other in self._releasable if other is not worker]
        else:
            worker.close()  # before its groups go out again
            self.workers.remove(worker)
        if worker.groups:
            self._give_back(worker, loss, log)
            worker.take_back()

    def _give_back(self, worker: WorkerHandle, loss: Loss, log: str) -> None:
        """Record what a lost worker was doing as interrupted, and give its groups to another one."""
        if loss.exited and not worker.running and not any(self.queue.has_died(group) for group in worker.groups):
            raise LoraError(f"A worker process {loss.why} before it could start.{_last_words(log)}")
        for key, (started, began) in sorted(worker.running.items()):
            self._interrupt(key, f"The worker process {loss.why}.", log, started, time.monotonic() - began)
        running = set(worker.running)
        if loss.by_its_work:
            self.queue.handle_dead_worker(worker.groups, running)
            return
        for group in self.queue.handle_lost_machine(worker.groups, running, worker.progressed):
            if not running & set(group.keys):
                why = f"Its workers were lost {MOST_LOSSES + 1} times before it started; the last one {loss.why}."
                self._interrupt(group.keys[0], why, log)

    def _interrupt(self, key: str, why: str, log: str, started: str = "", seconds: float = 0.0) -> None:
        self._events.append(NodeEnd(key, Result("interrupted", why), started=started, seconds=seconds, log=log))


def _last_words(log: str) -> str:
    """Return the last line of a log as a sentence."""
    lines = [line for line in log.splitlines() if line.strip()]
    return f" The last line of its log: {lines[-1].strip()}" if lines else " Its log is empty."
