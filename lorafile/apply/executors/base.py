"""What an executor is: it takes groups of nodes, has them done somewhere, and reports the outcome of each node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Event


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
