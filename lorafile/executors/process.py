"""A worker process, as the applying process holds it."""

import contextlib
import multiprocessing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from lorafile.executors import Group
from lorafile.executors.server import no_main


@dataclass
class Worker:
    """One process and what it is doing.

    :ivar groups: what it has in hand; none while it is idle
    :ivar running: keys of the nodes that are being done
    :ivar base: what it has loaded
    """

    process: ForkServerProcess
    connection: Connection
    gpu: int | None = None
    groups: list[Group] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    base: str = ""
    asked: set[str] = field(default_factory=set)

    @classmethod
    def start(cls, staging: Path, threads: int, gpu: int | None) -> "Worker":
        """Fork one from the server."""
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        with no_main():
            process = context.Process(target=_serve, args=(theirs, str(staging), threads, gpu), daemon=True)
            process.start()
        theirs.close()
        return cls(process, ours, gpu)

    def ask(self, what: str) -> None:
        """Ask it, once, to `finish` the replicates that it has begun, or to `stop` at its next step."""
        if what not in self.asked:
            self.asked.add(what)
            with contextlib.suppress(OSError):
                self.connection.send(what)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self.connection.send(None)
        self.process.join(timeout=0.1 if self.groups else 5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _serve(connection: Connection, staging: str, threads: int, gpu: int | None) -> None:
    """Run in the worker process: only there may the engine, and with it torch, be imported."""
    from lorafile.engine.worker import serve

    serve(connection, staging, threads, gpu)
