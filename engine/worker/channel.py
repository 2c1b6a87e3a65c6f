"""The channel between a worker and the process that applies: what each says, and a worker's end of it. No torch."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from lorafile.engine.request import PackSizes, Report, Request, Result, Stopped

if TYPE_CHECKING:  # a plan knows what workers say, and needs no process
    from multiprocessing.connection import Connection

_REPORT_SECONDS = 0.25
_HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True)
class Work:
    """What a worker is given: what is left to do of some replicates; without sizes of packs it measures them first."""

    replicates: list[list[Request]]
    sizes: PackSizes | None = field(default_factory=PackSizes)


class Command(Enum):
    """What the applying process asks of a worker."""

    FINISH = auto()  # begin no further replicate
    STOP = auto()  # stop at the next step
    RELEASE = auto()  # the files of its work are stored
    EXIT = auto()  # there is no more work
    DETACH = auto()  # an agent on another machine is to end when its work is done; meanwhile no apply listens


@dataclass(frozen=True)
class NodeStart:
    """A node has begun."""

    key: str


@dataclass(frozen=True)
class NodeProgress:
    """A node has come further, or has a note for watchers."""

    key: str
    progress: dict[str, Any]


@dataclass(frozen=True)
class NodeEnd:
    """A node has ended.

    :ivar directory: where its files are, until they are stored
    :ivar started: when it began, as a record writes it; `seconds`: its share of the time that it took with others
    :ivar environment: where it was done; None: where the applying process runs
    :ivar log: the end of the worker's log, where the node failed or the worker was lost
    """

    key: str
    result: Result
    directory: str = ""
    started: str = ""
    seconds: float = 0.0
    environment: dict[str, Any] | None = None
    log: str = ""

    def with_log(self, log: str) -> "NodeEnd":
        """Return it with the end of the worker's log."""
        return replace(self, log=log)


Event = NodeStart | NodeProgress | NodeEnd
"""What watchers of an apply are informed of."""


@dataclass(frozen=True)
class PackMeasured:
    """How many adapters go together was measured: the replicates beyond are given back."""

    key: str
    sizes: PackSizes


class Status(Enum):
    """How a worker is."""

    ALIVE = auto()  # every few seconds, whatever it does
    WORK_DONE = auto()  # its files stay until the applying process has stored them
    IDLE = auto()


Message = Event | PackMeasured | Status
"""What a worker says."""


class WorkerChannel:
    """A worker's end: its work and its heartbeat both send over it.

    :param ending: whether the worker itself has been asked to end, as by a scheduler
    :ivar finishing: whether the other end asked to begin no further replicate
    :ivar stopped: whether it asked for a stop, or is gone; from then on every report says so
    """

    def __init__(self, connection: "Connection", ending: Callable[[], bool] = lambda: False) -> None:
        self._connection, self._ending, self._sending = connection, ending, threading.Lock()
        self.finishing = self.stopped = False

    def send(self, message: object) -> None:
        """Send something.

        :raises OSError: when the other end is gone
        """
        with self._sending:
            self._connection.send(message)

    def receive(self) -> Any:
        """Wait for new work, or a command.

        :raises OSError, EOFError: when the other end is gone
        """
        self.finishing = self.stopped = False
        return self._connection.recv()

    def start_heartbeat(self) -> None:
        """Send a sign of life now, and one every few seconds until the other end is gone.

        A thread sends them while the work computes or waits, so that a worker that sends none is frozen, or gone.
        """
        self.send(Status.ALIVE)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(_HEARTBEAT_SECONDS)
            try:
                self.send(Status.ALIVE)
            except OSError:  # the work notices it, too
                return

    def report(self, key: str) -> Report:
        """Return what a node is to report to: progress is passed on now and then, its end and notes always."""
        due = 0.0

        def report(progress: dict[str, Any]) -> None:
            nonlocal due
            now = time.monotonic()
            last = "step" in progress and progress["step"] == progress.get("steps")
            if now >= due or last or "note" in progress:
                due = now + _REPORT_SECONDS
                try:
                    if progress:
                        self.send(NodeProgress(key, progress))
                except OSError:
                    self.stopped = True
                self.poll_commands()
            if self.stopped or self._ending():
                self.stopped = True
                raise Stopped

        return report

    def poll_commands(self) -> None:
        """Take in what the other end asks for."""
        try:
            while self._connection.poll():
                command = self._connection.recv()
                self.finishing |= command is Command.FINISH
                self.stopped |= command is Command.STOP
        except (OSError, EOFError):  # the applying process is gone: keep what there is, and end
            self.stopped = True
