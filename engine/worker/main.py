"""A worker process: its loop, which receives work, runs it, and keeps the base for the next."""

import contextlib
import os
import shutil
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from lorafile.engine.model.base import Bases
from lorafile.engine.worker.channel import Command, Status, Work, WorkerChannel
from lorafile.engine.worker.replicates import run_work
from lorafile.environment import environment, gpus


def serve(connection: Connection, staging: str, threads: int, gpu: str | None) -> None:
    """Do what is sent until the other end goes away or sends anything but work. Runs in a process of its own.

    :param gpu: the only one that this process uses, by its name in `CUDA_VISIBLE_DEVICES`; None: all that are visible
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order in which the driver counts them, too
        gpus.cache_clear()  # what the server knew of all of them
    _redirect_output(Path(staging) / f"{os.getpid()}.log")
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the applying process, which tells us what to do
    termination = _Termination()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # which the server holds back
    channel = WorkerChannel(connection, lambda: termination.requested)
    channel.start_heartbeat()
    torch.set_num_threads(threads)
    described, bases, directory = environment(threads), Bases(), Path(staging) / str(os.getpid())
    # A broken channel: the applying process is gone. What it recorded is recorded, and the next one clears the rest.
    with contextlib.suppress(EOFError, BrokenPipeError):
        while isinstance(work := channel.receive(), Work):
            termination.busy = True
            run_work(work, directory, bases, channel, described)
            channel.send(Status.WORK_DONE)
            while channel.receive() is not Command.RELEASE:
                pass  # a stop that came too late
            shutil.rmtree(directory, ignore_errors=True)
            termination.busy = False
            if termination.requested:
                termination.end()
            channel.send(Status.IDLE)


class _Termination:
    """SIGTERM, as a scheduler sends it before it takes a machine back: a run ends at its next step, and can go on."""

    def __init__(self) -> None:
        self.requested = self.busy = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, _number: int, _frame: object) -> None:
        self.requested = True
        if not self.busy:
            self.end()

    def end(self) -> None:
        """End as the signal alone would have done."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _redirect_output(log: Path) -> None:
    """Send what libraries print to a file: the terminal belongs to the applying process.

    Where the file cannot be opened, it goes nowhere: what fails for the same reason later says so better.
    """
    try:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
