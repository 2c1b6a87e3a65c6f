"""What an executor is: it takes groups of nodes, has them done somewhere, and reports the outcome of each node.

The one that there is (`loop.py`) leaves it to a pool to start workers, and has a handle for each.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Command, Event, Message, Work
from lorafile.units import utc_now


@dataclass(frozen=True)
class Group:
    """Nodes that are done one after another in one place.

    :ivar keys: the nodes, each after what it reads
    :ivar base: equal text for groups that can share a loaded base
    :ivar after: nodes of other groups that it reads, and that are still to be done
    :ivar pack: equal text for groups whose adapters can be trained together; empty where one has to be alone
    :ivar alone: measured in a fresh process while nothing else runs on its device, when all else is done
    :ivar spread: its base lies on all GPUs at once, so that nothing else runs meanwhile
    """

    keys: tuple[str, ...]
    base: str = ""
    after: frozenset[str] = frozenset()
    pack: str = ""
    alone: bool = False
    spread: bool = False


class Executor(Protocol):
    """Has groups of nodes done."""

    def run(self, groups: list[Group], callbacks: "ExecutorCallbacks") -> None:
        """Do every group; return when all are done, or when a stop is asked for."""


@dataclass(frozen=True)
class ExecutorCallbacks:
    """What an executor asks of the applying process, and tells it.

    :ivar requests: returns what is left to do of a group, with its inputs as they are now
    :ivar record: takes in all events of one turn; the files of nodes that ended are stored when it returns. Called at
        least every half second, with no events where there are none
    :ivar urgency: returns whether to stop: 0 go on; 1 begin nothing new; 2 stop what is running
    """

    requests: Callable[[Group], list[Request]]
    record: Callable[[list[Event]], None]
    urgency: Callable[[], int]


@dataclass(frozen=True)
class Phase:
    """The part of the work that is done at the same time.

    :ivar alone: each node is measured in a fresh process that has its device for itself
    :ivar spread: each group has all GPUs
    """

    alone: bool = False
    spread: bool = False


@dataclass(frozen=True)
class Loss:
    """How a worker was lost.

    :ivar why: it, after the words "The worker process"
    :ivar by_its_work: it died of what it did, which another worker tries once more; otherwise its machine went away,
        which says nothing of the work
    :ivar exited: it ended by itself
    """

    why: str
    by_its_work: bool = True
    exited: bool = False


class WorkerHandle(ABC):
    """A worker as the loop holds it, wherever it is.

    :ivar groups: what it has in hand; none while it is idle
    :ivar running: key -> when the node began: as a record writes it, and on the monotonic clock
    :ivar progressed: keys that have ended, or have a new checkpoint, since it got its groups
    :ivar base: what it has loaded
    :ivar commands: what it was asked for
    :ivar used: whether its process has had work
    """

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.running: dict[str, tuple[str, float]] = {}
        self.progressed: set[str] = set()
        self.base = ""
        self.commands: set[Command] = set()
        self.used = False

    @property
    def has_begun(self) -> bool:
        """Whether it is there: a job may wait for its machine."""
        return True

    @abstractmethod
    def send(self, message: Work | Command) -> None:
        """Send work or a command; whether the worker is still there is what `lost` says."""

    @abstractmethod
    def events(self) -> list[Message]:
        """Return what it said since the last call, without waiting."""

    @abstractmethod
    def lost(self) -> Loss | None:
        """Return how it was lost; None while it is there."""

    @abstractmethod
    def log(self) -> str:
        """Return the end of what its libraries printed."""

    @abstractmethod
    def close(self) -> None:
        """End it, whatever it does; from then on nothing that it does counts."""

    def retract(self) -> None:
        """Take the work back that it was sent last and has not begun."""
        raise NotImplementedError  # never asked of a worker that begins at once

    def renew(self) -> bool:
        """Have it begin its next work as a fresh process; return whether it can."""
        return False

    def give(self, groups: list[Group], work: Work) -> None:
        """Put groups into its hands."""
        self.groups, self.base, self.progressed, self.used = groups, groups[0].base or self.base, set(), True
        self.send(work)

    def take_back(self) -> None:
        """Take what it has in hand out of its hands."""
        self.groups, self.running = [], {}

    def note_started(self, key: str) -> None:
        """Remember when a node began, for the case that the worker never says how it ended."""
        self.running.setdefault(key, (utc_now(), time.monotonic()))

    def ask(self, command: Command) -> None:
        """Ask it, once, to finish the replicates that it has begun, or to stop at its next step."""
        if command not in self.commands:
            self.commands.add(command)
            self.send(command)


class WorkerPool(Protocol):
    """Starts workers: on this machine, on Ray, under Slurm.

    :ivar keeps_workers: whether they go on from one phase to the next
    """

    keeps_workers: bool

    def limit(self, phase: Phase) -> int:
        """Return how many workers there are at most."""

    def adopt(self) -> list[tuple[WorkerHandle, list[Work]]]:
        """Return the workers that an earlier apply has left, with the work that they have in hand."""

    def start(self, phase: Phase, workers: Sequence[WorkerHandle], urgency: Callable[[], int]) -> WorkerHandle | None:
        """Start a worker next to others; None where a stop is asked for meanwhile.

        :raises LoraError: when none can be started
        """

    def wait(self, workers: Sequence[WorkerHandle], seconds: float) -> None:
        """Return when one of the workers may have said something, or after some seconds."""
