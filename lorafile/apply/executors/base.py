"""Executors: they take groups of nodes, have them done somewhere, and tell of each node what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lorafile.engine.request import Request
from lorafile.engine.worker.events import Event


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
    """The applying process, as an executor sees it.

    :ivar requests: what is left to do of a group, with its inputs as they are now
    :ivar take: takes in all events of one turn; the files of `ended` events are stored when it returns. Called at least
        every half second, with no events where there are none
    :ivar stopping: 0 go on; 1 begin nothing new; 2 stop what is running
    """

    requests: Callable[[Group], list[Request]]
    take: Callable[[list[Event]], None]
    stopping: Callable[[], int]
