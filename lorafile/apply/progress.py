"""What an apply tells its watchers, what it has done in the end, and whether the user wants it to stop."""

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from lorafile.graph.graph import GraphNode
from lorafile.plan.plan import Plan
from lorafile.state import Attempt
from lorafile.units import duration


class Progress(Protocol):
    """A watcher of an apply."""

    def on_node_start(self, node: GraphNode) -> None:
        """A node has begun."""

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """A node has come further: `step`, `steps`, perhaps `loss` and `tokens_per_second`; or it has a `note`."""

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """A node has ended, one way or another, and is recorded."""

    def on_stop(self, times: int) -> None:
        """The user asked for an end: once, or more urgently."""

    def on_next_stage(self, plan: Plan) -> None:
        """What is tuned was chosen, or needs more candidates: this is the work that follows."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker got in an apply.

    :ivar where: the place there, in a few words
    :ivar sent: how many runs it took
    :ivar left: how many runs wait for the next apply
    :ivar problem: why some wait
    """

    tracker: str
    where: str
    sent: int
    left: int
    problem: str = ""


@dataclass(repr=False)
class Applied:
    """What an apply has done.

    :ivar tracking: what each tracker got
    """

    attempts: list[Attempt] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    tracking: list[Tracked] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = Counter(attempt.outcome for attempt in self.attempts)
        done = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing to do"
        return f"<Applied: {done}, in {duration(self.seconds)}{', interrupted' if self.interrupted else ''}>"

    def add(self, other: "Applied") -> None:
        """Take in what a later stage has done."""
        self.attempts += other.attempts
        self.interrupted = other.interrupted
        self.seconds += other.seconds

    def with_outcome(self, outcome: str) -> list[Attempt]:
        """Return the nodes that ended so, each by its last attempt: what was taken up again ended as that did."""
        last = {attempt.key: attempt for attempt in self.attempts}
        return [attempt for attempt in last.values() if attempt.outcome == outcome]


@dataclass
class Stop:
    """Whether, and how urgently, the user wants an apply to end.

    :ivar urgency: 0 go on; 1 begin nothing new; 2 stop what is running; more: break off
    """

    watchers: list[Progress] = field(default_factory=list)
    urgency: int = 0

    def ask(self) -> None:
        """Ask for an end, the more urgently the more often."""
        self._ask(self.urgency + 1)

    def ask_at_once(self) -> None:
        """Ask that what is running be stopped; to ask again changes nothing."""
        if self.urgency < 2:
            self._ask(2)

    def _ask(self, urgency: int) -> None:
        self.urgency = urgency
        for watcher in self.watchers:
            watcher.on_stop(urgency)


@contextlib.contextmanager
def stop_on_signals(watchers: list[Progress]) -> Iterator[Stop]:
    """Turn Ctrl-C into a request: once, to begin nothing new; twice, to stop what is running; then to break off.

    SIGTERM stops what is running: who sends it (Docker, Kubernetes, systemd, Slurm) kills after some seconds.
    """
    stop = Stop(watchers)
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may take signals
        return

    def interrupt(_number: int, _frame: object) -> None:
        stop.ask()
        if stop.urgency > 2:
            raise KeyboardInterrupt

    def terminate(_number: int, _frame: object) -> None:
        stop.ask_at_once()

    handlers = ((signal.SIGINT, interrupt), (signal.SIGTERM, terminate))
    before = {number: signal.signal(number, handler) for number, handler in handlers}
    try:
        yield stop
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
