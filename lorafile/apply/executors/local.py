"""The pool of this machine: worker processes, forked from a server that has the heavy modules loaded."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lorafile.apply.executors.base import Phase, WorkerHandle
from lorafile.apply.executors.process import Worker, run_engine, start_server
from lorafile.engine.worker.channel import Work
from lorafile.environment import profiled


@dataclass
class LocalPool:
    """Workers of this machine: one for each GPU, or for some of the processor's cores.

    :ivar workers: at most
    :ivar threads: of each worker; `threads_alone`: of what is measured while nothing else runs
    :ivar gpus: that workers are spread over, as `environment.gpus` describes them
    """

    staging: Path
    workers: int
    threads: int
    threads_alone: int
    gpus: tuple[dict[str, Any], ...] = ()
    model_types: tuple[str, ...] = ()
    keeps_workers = False

    def limit(self, phase: Phase) -> int:
        """Return how many workers there are at most: what is measured alone has its device for itself."""
        if phase.spread:
            return 1
        return max(1, len(self._devices(phase))) if phase.alone else self.workers

    def adopt(self) -> list[tuple[WorkerHandle, list[Work]]]:
        """Return nothing: workers end with the process that applies."""
        return []

    def start(self, phase: Phase, workers: Sequence[WorkerHandle], urgency: Callable[[], int]) -> Worker | None:
        """Start a worker on the GPU that has the fewest; None where a stop is asked for meanwhile."""
        self.staging.mkdir(parents=True, exist_ok=True)
        log = self.staging / "worker.log"
        start_server(log, self.model_types)
        devices = self._devices(phase)
        taken = Counter(worker.gpu["visible"] for worker in workers if isinstance(worker, Worker) and worker.gpu)
        gpu = min(devices, key=lambda gpu: taken[gpu["visible"]]) if devices and not phase.spread else None
        threads = max(1, self.threads_alone // self.limit(phase)) if phase.alone else self.threads
        arguments = (str(self.staging), threads, gpu and gpu["visible"])
        worker = Worker.start(run_engine, arguments, log, urgency)
        if worker is not None:
            worker.gpu = gpu
        return worker

    def wait(self, workers: Sequence[WorkerHandle], seconds: float) -> None:
        """Return when a worker says something or ends."""
        processes = [worker for worker in workers if isinstance(worker, Worker)]
        wait([handle for worker in processes for handle in (worker.connection, worker.process.sentinel)], seconds)

    def _devices(self, phase: Phase) -> list[dict[str, Any]]:
        return profiled(self.gpus) if phase.alone else list(self.gpus)
