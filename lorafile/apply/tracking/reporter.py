"""Watches an apply and lets every tracker of the study have what it does not have yet."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafile.apply.tracking.destinations import destinations
from lorafile.apply.tracking.records import ENDED, Record, Run, curve_of, record_of, runs_of
from lorafile.apply.tracking.sender import Sender
from lorafile.apply.tracking.sent_log import Memory, Sent
from lorafile.graph.graph import Graph, GraphNode
from lorafile.plan.plan import Plan
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    from lorafile.apply.applier import Applied, Progress

_LAST_SECONDS = 30.0  # that sending may take when the work is done
_HASTY_SECONDS = 5.0  # the same after Ctrl-C


@dataclass(frozen=True)
class Tracked:
    """What a tracker got in an apply.

    :ivar where: the place there, in a few words
    :ivar sent, left: how many runs it took, and how many wait for the next apply
    :ivar problem: why some wait
    """

    tracker: str
    where: str
    sent: int
    left: int
    problem: str = ""


@dataclass(frozen=True)
class _Study:
    """One stage of a study, whole: it is looked at from several threads."""

    graph: Graph
    runs: dict[str, Run]
    of_node: dict[str, list[Run]]

    @classmethod
    def of(cls, graph: Graph) -> "_Study":
        runs = {run.key: run for run in runs_of(graph)}
        of_node: dict[str, list[Run]] = {}
        for run in runs.values():
            for key in run.keys.values():
                of_node.setdefault(key, []).append(run)
        return cls(graph, runs, of_node)


class Reporter:
    """Tells trackers of a run when its training has ended, and again when all of it has, or the apply ends."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.study, self.state = _Study.of(plan.graph), state
        self.results = held(plan.graph, state)
        self.senders = [Sender(one, state.directory, self) for one in destinations(plan.graph.spec)]
        self.late: set[str] = set()  # runs that have something new, and that more will come of
        self.measured = 0  # profiles in work
        self._take(plan)

    def _take(self, plan: Plan) -> None:
        to_do = {change.key for change in plan.work}
        for run in self.study.runs.values():
            if to_do.isdisjoint(run.keys.values()):
                self._send(run)
            else:
                self.late.add(run.key)

    def _send(self, run: Run) -> None:
        self.late.discard(run.key)
        if _has_ended(run, self.results):
            for sender in self.senders:
                sender.add(run.key)

    def record(self, key: str, before: Sent | None) -> tuple[Record, Sent] | None:
        """Return what a tracker is told of a run now."""
        study = self.study
        run = study.runs.get(key)
        return None if run is None else record_of(study.graph, run, self.results, before)

    def curve(self, key: str) -> list[dict[str, Any]]:
        """Return the curve of a run, as state holds it."""
        return curve_of(self.results[key], self.state.objects)

    def on_node_start(self, node: GraphNode) -> None:
        """Leave the machine to what is measured."""
        if node.kind == "profile":
            self.measured += 1
            self._pause()

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Send nothing: what a tracker has is what state holds."""

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Send a run when its training has ended, and when all of it has but its profile, which comes last."""
        self.results[node.key] = attempt
        if node.kind == "profile":
            self.measured -= 1
            self._pause()
        for run in self.study.of_node.get(node.key, []):
            rest = [key for name, key in run.keys.items() if name != "profile"]
            if (node.key == run.key and node.kind == "train") or (
                node.kind != "profile" and all(key in self.results for key in rest)
            ):
                self._send(run)
            self.late.add(run.key)

    def on_stop(self, times: int) -> None:
        """Go on: what has ended is told."""

    def on_next_stage(self, plan: Plan) -> None:
        """Take in what was chosen: a candidate's run may be its configuration's now."""
        self.study = _Study.of(plan.graph)
        self._take(plan)

    def _pause(self) -> None:
        for sender in self.senders:
            sender.pause(self.measured > 0)

    def close(self, seconds: float | None) -> list[Tracked]:
        """Send what is left, all trackers at once, for so many seconds; return what each got.

        :param seconds: None: as long as they take what they are sent; Ctrl-C ends that
        """
        why = f"it was not done {seconds:g} s after the work" if seconds else "the apply broke off"
        for run in self.study.runs.values():
            if run.key in self.late:
                self._send(run)
        for sender in self.senders:
            sender.end()
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            for sender in self.senders:
                sender.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except KeyboardInterrupt:
            why = "you stopped it"
        for sender in self.senders:
            if not sender.wait(0.0):
                sender.abandon(why)
        return [
            Tracked(one.destination.tracker, one.destination.where, len(one.sent), one.left, one.problem)
            for one in self.senders
        ]


@contextlib.contextmanager
def tracked(plan: Plan, state: State, applied: "Applied") -> "Iterator[list[Progress]]":
    """Yield who tells the study's trackers what an apply does; what they got is in `applied` afterwards."""
    if not plan.graph.spec.tables.tracking.trackers:
        yield []
        return
    reporter = Reporter(plan, state)
    try:
        yield [reporter]
    except BaseException:
        reporter.close(0.0)
        raise
    limit = _LAST_SECONDS if applied.attempts else None
    applied.tracking = reporter.close(_HASTY_SECONDS if applied.interrupted else limit)


def unsent(plan: Plan, state: State) -> int:
    """Return how many runs of a plan some tracker does not have as they are."""
    places = destinations(plan.graph.spec)
    if not places:
        return 0
    results, runs = held(plan.graph, state), runs_of(plan.graph)
    ended = [run for run in runs if _has_ended(run, results)]
    wanting: set[str] = set()
    for place in places:
        memory = Memory(state.directory, place)
        for run in ended:
            before = memory.get(run.key)
            if record_of(plan.graph, run, results, before)[1] != before:
                wanting.add(run.key)
    return len(wanting)


def held(graph: Graph, state: State) -> dict[str, Attempt]:
    """Return how each node stands: its newest finished attempt, else its newest."""
    found = state.latest(graph.nodes)
    return {key: next((a for a in tries[::-1] if a.finished), tries[-1]) for key, tries in found.items()}


def _has_ended(run: Run, results: dict[str, Attempt]) -> bool:
    return run.key in results and results[run.key].outcome in ENDED
