"""Walks a plan: hands its work to an executor, scores what comes back, and records every attempt."""

import shutil
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lorafile.budget import Budget
from lorafile.engine.environment import device_class, environment
from lorafile.engine.events import Event
from lorafile.engine.request import Done, Request
from lorafile.errors import StateError
from lorafile.executors import Desk, Executor, Group
from lorafile.forecast import target_of, told_of
from lorafile.graph import GraphNode
from lorafile.groups import Places, groups, read_digests
from lorafile.plan import Plan
from lorafile.scoring import score
from lorafile.state import Attempt, Node, WritableState
from lorafile.state.snapshot import explained

if TYPE_CHECKING:
    from lorafile.tracking.reporter import Tracked


class Progress(Protocol):
    """Somebody who watches an apply."""

    def started(self, node: GraphNode) -> None:
        """A node has begun."""

    def went_on(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """A node has come further: `step`, `steps`, perhaps `loss` and `tokens_per_second`; or it has a `note`."""

    def ended(self, node: GraphNode, attempt: Attempt) -> None:
        """A node has ended, one way or another, and is recorded."""

    def stopping(self, times: int) -> None:
        """The user asked for an end: once, or more urgently."""

    def planned(self, plan: Plan) -> None:
        """What is tuned was chosen, or needs more candidates: this is the work that follows."""


@dataclass
class Applied:
    """What an apply has done."""

    attempts: list[Attempt] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    tracking: "list[Tracked]" = field(default_factory=list)  # what each tracker got

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
class Applier:
    """Does the work of one plan. `stopping` counts how often the user asked for an end.

    :ivar declares: whether the plan is the whole study, so that its nodes are what the study declares
    """

    plan: Plan
    state: WritableState
    executor: Executor
    watchers: list[Progress]
    declares: bool = True
    stopping: int = 0
    budget: Budget | None = None
    applied: Applied = field(default_factory=Applied)

    def __post_init__(self) -> None:
        self.places = Places(self.plan.graph, self.state)
        to_do = {change.key for change in self.plan.work}
        self.results = {key: attempt for key, attempt in self.plan.results.items() if key not in to_do}
        nodes = self.plan.graph.nodes
        self.own = {metric.digest: metric for metric in self.plan.graph.own.values()}
        self.target = target_of(self.plan.graph)
        self.forecasts = {change.key: change.forecast for change in self.plan.work}
        self.scores = [nodes[change.key] for change in self.plan.work if change.kind == "score"]

    def stop(self) -> None:
        """Ask for an end: the first time nothing new is begun, the second time what runs is stopped."""
        self.stopping += 1
        for watcher in self.watchers:
            watcher.stopping(self.stopping)

    def run(self) -> Applied:
        """Do what the plan says; what had ended before a stop or a failure is recorded."""
        began = time.monotonic()
        graph = self.plan.graph
        if self.declares:
            self.state.declare(graph.spec.name, {node.address: (node.key, node.kind) for node in graph.nodes.values()})
        self._score_what_is_ready()
        self.executor.run(groups(self.plan), Desk(self._requests, self._handle, self._urgency))
        self.applied.interrupted = self.stopping > 0
        self.applied.seconds = time.monotonic() - began
        return self.applied

    def _urgency(self) -> int:
        """Return how urgently an end is wanted: what still runs when the budget is spent keeps its checkpoint."""
        return 2 if self.budget is not None and self.budget.spent() else self.stopping

    def _requests(self, group: Group) -> list[Request]:
        """Return what is left to do of a group; nothing where it would not end within the budget."""
        found = self.places.requests(group, self.results)
        forecast = sum((self.forecasts.get(request.key) or {}).get("seconds", 0.0) for request in found)
        return found if not found or self.budget is None or self.budget.allows(forecast) else []

    def _handle(self, event: Event) -> None:
        node = self.plan.graph.nodes[event.key]
        if event.what == "started":
            for watcher in self.watchers:
                watcher.started(node)
        elif event.what == "progress":
            for watcher in self.watchers:
                watcher.went_on(node, event.progress or {})
        elif event.what == "ended":
            done = event.done or Done("failed", "The worker sent no result.")
            files = {name: Path(event.directory) / name for name in done.files}
            self._record(node, done, files, event)
            self._score_what_is_ready()

    def _record(self, node: GraphNode, done: Done, files: dict[str, Path], event: Event) -> None:
        attempt = Attempt(
            key=node.key,
            kind=node.kind,
            outcome=done.outcome,
            message=done.message,
            started=event.started or _now(),
            seconds=event.seconds,
            device=device_class(),
            environment=event.environment or environment(),
            figures=done.figures,
            forecast=told_of(self.forecasts.get(node.key), self.plan.graph, node, self.results, self.target),
            reads=read_digests(node, self.results),
            study=self.plan.study,
            address=node.address,
        )
        stored = self.state.record(Node(node.key, node.kind, node.version, node.settings, node.inputs), attempt, files)
        if stored.finished:
            self.results[node.key] = stored
            shutil.rmtree(self.state.running(node.key), ignore_errors=True)
        self.applied.attempts.append(stored)
        for watcher in self.watchers:
            watcher.ended(node, stored)
        if done.outcome == "failed" and "No space left" in done.message:
            raise StateError(done.message)  # the next node would be paid for, and lost in the same way

    def _score_what_is_ready(self) -> None:
        """Score every split whose predictions are all there."""
        seconds = self.plan.graph.spec.tables.evaluate.metric_timeout
        ready = [node for node in self.scores if all(self._has(key) for key in node.inputs.values())]
        self.scores = [node for node in self.scores if node not in ready]
        for node in ready:
            began = time.monotonic()
            with explained(self.state.directory):
                directory = Path(tempfile.mkdtemp(prefix="score-", dir=self.state.directory))
            try:
                files = {role: self.places.files(self.results[key]) for role, key in node.inputs.items()}
                with explained(self.state.directory):
                    done = score(node, files, directory, self.own, seconds)
                event = Event("ended", node.key, started=_now(), seconds=time.monotonic() - began)
                self._record(node, done, {name: directory / name for name in done.files}, event)
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _has(self, key: str) -> bool:
        return key in self.results and self.results[key].outcome == "done"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
