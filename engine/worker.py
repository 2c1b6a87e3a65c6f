"""A worker process: takes groups of nodes, one after another, and tells of each node as it begins, goes on and ends."""

import os
import shutil
import signal
import time
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lorafile.engine.base import Bases
from lorafile.engine.environment import environment, gpus
from lorafile.engine.events import Event
from lorafile.engine.request import Request, Stopped
from lorafile.engine.run import run

_REPORT_SECONDS = 0.25


def serve(connection: Connection, staging: str, threads: int, gpu: int | None) -> None:
    """Do groups of nodes until the other end goes away or says anything else. Runs in a process of its own.

    The other end sends a list of requests; `stop` while one is being done; `stored` when all its files are.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus()[gpu]["index"]
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order in which the driver counts them, too
    _write_to(Path(staging) / "worker.log")
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the applying process, which tells us what to do
    ending = _Ending()
    torch.set_num_threads(threads)
    where = environment(threads)
    bases = Bases()
    directory = Path(staging) / str(os.getpid())
    try:
        while isinstance(group := connection.recv(), list):
            ending.busy = True
            _serve_group(connection, group, directory, where, bases, ending)
            ending.busy = False
            if ending.asked:
                ending.end()
            connection.send(Event("idle"))
    except (EOFError, BrokenPipeError):
        pass  # the applying process is gone; what it recorded is recorded, and the next one clears what is left


class _Ending:
    """SIGTERM, as a scheduler sends it before it takes a machine back: a run ends at its next step, and can go on."""

    def __init__(self) -> None:
        self.asked = self.busy = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self.asked = True
        if not self.busy:
            self.end()

    def end(self) -> None:
        """End as the signal alone would have done."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _write_to(log: Path) -> None:
    """Send what libraries print to a file: the terminal belongs to the applying process."""
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def _serve_group(
    connection: Connection,
    group: list[Request],
    directory: Path,
    where: dict[str, Any],
    bases: Bases,
    ending: _Ending,
) -> None:
    """Do the nodes of a group; a node whose input did not come is left out, and the applying process sees that."""
    made: dict[str, dict[str, str]] = {}
    for number, request in enumerate(group):
        if any(key not in made for key in request.awaits.values()):
            continue
        inputs = {**request.inputs, **{role: made[key] for role, key in request.awaits.items()}}
        out = directory / str(number)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        connection.send(Event("started", request.key))
        done = run(replace(request, inputs=inputs), out, bases, _Reporter(connection, request.key, ending))
        seconds = time.monotonic() - clock
        if done.outcome == "done":
            made[request.key] = {name: str(out / name) for name in done.files}
        connection.send(Event("ended", request.key, None, done, str(out), started, seconds, where))
        if done.outcome == "interrupted":
            break
    connection.send(Event("stored?"))  # the files stay until the applying process has stored them
    while connection.recv() != "stored":
        pass  # a stop that came too late
    shutil.rmtree(directory, ignore_errors=True)


class _Reporter:
    """Sends progress now and then, and looks whether a stop was asked for."""

    def __init__(self, connection: Connection, key: str, ending: _Ending) -> None:
        self._connection, self._key, self._ending, self._next = connection, key, ending, 0.0

    def __call__(self, progress: dict[str, Any]) -> None:
        now = time.monotonic()
        last = "step" in progress and progress["step"] == progress.get("steps")
        if now >= self._next or last or "note" in progress:
            self._next = now + _REPORT_SECONDS
            try:
                if progress:
                    self._connection.send(Event("progress", self._key, progress))
                asked = self._connection.poll() and self._connection.recv() == "stop"
            except (OSError, EOFError):  # the applying process is gone: keep what there is, and end
                raise Stopped from None
            if asked:
                raise Stopped
        if self._ending.asked:
            raise Stopped
