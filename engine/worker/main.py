"""A worker process: takes work, does it, and lends its base and its one connection to who does it."""

import os
import shutil
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from lorafile.engine.model.base import Bases
from lorafile.engine.request import Work
from lorafile.engine.worker.events import Event
from lorafile.engine.worker.link import Line, Link
from lorafile.engine.worker.replicates import do
from lorafile.environment import environment, gpus


def serve(connection: Connection, staging: str, threads: int, gpu: str | None) -> None:
    """Do what is sent until the other end goes away or says anything else. Runs in a process of its own.

    The other end sends work; `finish` or `stop` while it is being done; `stored` when all its files are.

    :param gpu: the only one that this process uses, by its name in `CUDA_VISIBLE_DEVICES`; None: all that are visible
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order in which the driver counts them, too
        gpus.cache_clear()  # what the server knew of all of them
    _write_to(Path(staging) / "worker.log")
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the applying process, which tells us what to do
    ending = _Ending()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # which the server holds back
    line = Line(connection)
    line.beat()
    torch.set_num_threads(threads)
    where = environment(threads)
    bases = Bases()
    directory = Path(staging) / str(os.getpid())
    try:
        while isinstance(work := line.recv(), Work):
            ending.busy = True
            do(work, directory, bases, Link(line, lambda: ending.asked), where)
            line.send(Event("stored?"))  # the files stay until the applying process has stored them
            while line.recv() != "stored":
                pass  # a stop that came too late
            shutil.rmtree(directory, ignore_errors=True)
            ending.busy = False
            if ending.asked:
                ending.end()
            line.send(Event("idle"))
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
