"""Does a cluster answer: one worker is started as an apply would start it, says what it has, and ends."""

import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lorafile.apply.executors.base import Phase
from lorafile.apply.executors.remote import RemoteWorker
from lorafile.apply.executors.wire import Hello
from lorafile.apply.workers import cluster_executor
from lorafile.environment import environment
from lorafile.errors import LoraError
from lorafile.plan.clusters.config import Cluster

_TURN_SECONDS = 0.5


def first_words(cluster: Cluster, timeout: float, on_wait: Callable[[float], None] | None = None) -> Hello:
    """Return what a worker of a cluster says of its node: device, driver and versions.

    :param timeout: seconds until it has to answer, the time in a queue included
    :param on_wait: called with the seconds so far
    :raises LoraError: when it does not, or says that it cannot work
    """
    if cluster.executor == "local":
        return Hello(socket.gethostname(), os.getpid(), environment=environment())
    with tempfile.TemporaryDirectory(prefix="lora-check-") as state:
        executor = cluster_executor(cluster, Path(state), 1, "off")
        try:
            worker = executor.pool.start(Phase(), [], lambda: 0)
            if not isinstance(worker, RemoteWorker):
                raise LoraError("No worker was started.")
            executor.workers.append(worker)
            return _answer(executor.pool.wait, worker, timeout, on_wait)
        finally:
            executor.close()


def _answer(
    wait: Callable[[list[RemoteWorker], float], None],
    worker: RemoteWorker,
    timeout: float,
    on_wait: Callable[[float], None] | None,
) -> Hello:
    began = time.monotonic()
    while (waited := time.monotonic() - began) < timeout:
        wait([worker], _TURN_SECONDS)
        worker.events()
        if worker.hello is not None:
            return worker.hello
        if loss := worker.lost():
            lines = [line.strip() for line in worker.log().splitlines() if line.strip()]
            last = f" The last line of its log: {lines[-1]}" if lines else ""
            raise LoraError(f"A worker of the cluster {loss.why}.{last}")
        if on_wait is not None:
            on_wait(waited)
    raise LoraError(
        f"No worker answered in {timeout:g} s. If jobs wait in a queue, allow more time with --timeout SECONDS."
    )
