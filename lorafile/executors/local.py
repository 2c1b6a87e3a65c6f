"""The local executor: worker processes on this machine, forked from a server that has the heavy modules loaded."""

import contextlib
import multiprocessing
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from lorafile.engine.events import Event
from lorafile.engine.request import Done
from lorafile.errors import LoraError
from lorafile.executors import Desk, Group
from lorafile.executors.server import no_main, start_server

_POLL_SECONDS = 0.5
_PRELOAD = ["lorafile.engine.preload"]


@dataclass
class _Worker:
    process: ForkServerProcess
    connection: Connection
    group: Group | None = None
    gpu: int | None = None
    running: str = ""  # key of the node that is being done
    base: str = ""  # what it has loaded
    asked_to_stop: bool = False


@dataclass
class LocalExecutor:
    """Runs groups on this machine: several workers at once, one for each GPU or some of the processor's cores.

    :ivar threads: of each worker; what is measured alone has them all
    """

    staging: Path
    workers: int
    threads: int
    gpus: int = 0
    model_types: tuple[str, ...] = ()
    _all: list[_Worker] = field(default_factory=list)
    _died: set[Group] = field(default_factory=set)

    def run(self, groups: list[Group], desk: Desk) -> None:
        """Do every group, stage by stage."""
        self.staging.mkdir(parents=True, exist_ok=True)
        try:
            for stage in sorted({group.stage for group in groups}):
                waiting = [group for group in groups if group.stage == stage]
                self._run_stage(waiting, desk)
                if desk.stopping():
                    break
        finally:
            self._close()

    def _run_stage(self, waiting: list[Group], desk: Desk) -> None:
        alone = any(group.alone for group in waiting)
        if alone:
            self._close()  # what is measured shares the device with nobody
        while True:
            if not desk.stopping():
                self._hand_out(waiting, desk, alone)
            busy = [worker for worker in self._all if worker.group is not None]
            if not busy:
                return
            if desk.stopping() > 1:
                self._stop(busy)
            by_handle = {worker.connection: worker for worker in busy} | {
                worker.process.sentinel: worker for worker in busy
            }
            for handle in wait(list(by_handle), timeout=_POLL_SECONDS):
                worker = by_handle[handle]  # type: ignore[index]
                if worker in self._all and worker.group is not None:
                    self._listen(worker, waiting, desk)
            if alone:
                self._close([worker for worker in self._all if worker.group is None])

    def _hand_out(self, waiting: list[Group], desk: Desk, alone: bool) -> None:
        """Give each free worker a group, rather one whose base it has loaded."""
        limit = 1 if alone else self.workers
        while waiting:
            free = [worker for worker in self._all if worker.group is None]
            if not free and len(self._all) >= limit:
                return
            bases = {worker.base for worker in free}
            group = next((group for group in waiting if group.base in bases), waiting[0])
            waiting.remove(group)
            requests = desk.requests(group)
            if not requests:
                continue
            worker = next(
                (worker for worker in free if worker.base == group.base), free[0] if free else None
            ) or self._start(alone)
            worker.group, worker.base = group, group.base
            try:
                worker.connection.send(requests)
            except OSError:  # it died while it was idle
                self._bury(worker, waiting, desk)

    def _start(self, alone: bool) -> _Worker:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            [*_PRELOAD, *(f"transformers.models.{kind}.modeling_{kind}" for kind in self.model_types)]
        )
        start_server(self.staging / "worker.log")
        ours, theirs = context.Pipe()
        cores = self.threads * self.workers if alone else self.threads
        taken = {worker.gpu for worker in self._all}
        gpu = next((number for number in range(self.gpus) if number not in taken), 0) if self.gpus else None
        arguments = (theirs, str(self.staging), cores, gpu)
        with no_main():
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
        theirs.close()
        worker = _Worker(process, ours, gpu=gpu)
        self._all.append(worker)
        return worker

    def _listen(self, worker: _Worker, waiting: list[Group], desk: Desk) -> None:
        """Take in what a worker said, and notice when it has died."""
        try:
            while worker.connection.poll():
                self._take(worker, worker.connection.recv(), desk)
        except (EOFError, OSError):  # its end of the pipe is closed, for reading or for our answer
            self._bury(worker, waiting, desk)
            return
        if not worker.process.is_alive() and not worker.connection.poll():
            self._bury(worker, waiting, desk)

    def _take(self, worker: _Worker, event: Event, desk: Desk) -> None:
        if event.what == "stored?":
            worker.connection.send("stored")
        elif event.what == "idle":
            worker.group, worker.running = None, ""
        else:
            worker.running = "" if event.what == "ended" else event.key
            desk.handle(event)

    def _bury(self, worker: _Worker, waiting: list[Group], desk: Desk) -> None:
        """Record what a dead worker was doing as interrupted, and give its group to another one, once."""
        worker.process.join()
        self._all.remove(worker)
        group, code = worker.group, worker.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if not worker.running and group not in self._died and code >= 0:
            raise LoraError(f"A worker process {how} before it could begin; its log is {self.staging / 'worker.log'}.")
        if worker.running:
            desk.handle(Event("ended", worker.running, done=Done("interrupted", f"The worker process {how}.")))
        if group is not None and group not in self._died:
            self._died.add(group)
            waiting.insert(0, group)

    def _stop(self, busy: list[_Worker]) -> None:
        for worker in busy:
            if not worker.asked_to_stop:
                worker.asked_to_stop = True
                with contextlib.suppress(OSError):
                    worker.connection.send("stop")

    def _close(self, some: list[_Worker] | None = None) -> None:
        for worker in list(self._all if some is None else some):
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            worker.process.join(timeout=5 if worker.group is None else 0.1)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
            self._all.remove(worker)


def _serve(connection: Connection, staging: str, threads: int, gpu: int | None) -> None:
    """Run in the worker process: only there may the engine, and with it torch, be imported."""
    from lorafile.engine.worker import serve

    serve(connection, staging, threads, gpu)
