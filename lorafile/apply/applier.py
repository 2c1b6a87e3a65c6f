"""Walks a plan: hands its work to an executor, scores what comes back, and records every attempt."""

import shutil
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.apply.budget import Budget
from lorafile.apply.executors.base import Executor, ExecutorCallbacks, Group
from lorafile.apply.progress import Applied, Progress, Stop
from lorafile.apply.score_pool import FEW, ScorePool, ScoreTask
from lorafile.apply.work_groups import RequestBuilder, groups, model_content, pending_inputs, read_digests
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Event, NodeEnd, NodeProgress, NodeStart
from lorafile.environment import environment
from lorafile.errors import StateError
from lorafile.files.git import registration
from lorafile.plan.forecast.forecasts import recorded_forecast, target_of
from lorafile.plan.plan import Plan
from lorafile.state import Attempt, Node, WritableState
from lorafile.state.errors import translate_errors
from lorafile.units import utc_now

WORKER_LOG = "worker.log"  # stored with a failed or lost attempt
_POLL_SECONDS = 0.5


@dataclass
class Applier:
    """Does the work of one plan.

    :ivar declares: whether the plan is the whole study, so that its nodes are what the study declares
    :ivar light: workers are elsewhere, so that nothing here needs torch
    :ivar recorded: what is noted with the environment of each attempt
    """

    plan: Plan
    state: WritableState
    executor: Executor
    watchers: list[Progress]
    declares: bool = True
    light: bool = False
    stop: Stop = field(default_factory=Stop)
    budget: Budget | None = None
    recorded: dict[str, str] = field(default_factory=dict)
    applied: Applied = field(default_factory=Applied)

    def __post_init__(self) -> None:
        self.builder = RequestBuilder(self.plan.graph, self.state)
        to_do = {change.key for change in self.plan.work}
        self.results = {key: attempt for key, attempt in self.plan.results.items() if key not in to_do}
        self.target = target_of(self.plan)
        self.forecasts = {change.key: change.forecast for change in self.plan.work}
        scores = [change.key for change in self.plan.work if change.kind == "score"]
        self._waiting = pending_inputs(self.plan, scores)  # what is read -> the scores that wait for it
        self._ready = deque(key for key in scores if key not in self._waiting)  # scores to be computed
        log = self.state.directory / "staging" / "worker.log"
        spec = self.plan.graph.spec
        where = registration(spec.file) if spec.tables.study.registered else None
        self._noted = self.recorded | ({"registered": where.as_json()} if where else {})
        # A metric file may take a minute, in which the applying process would hear neither its workers nor its user.
        expected = FEW if scores and self.plan.graph.own else len(scores)
        self._pool = ScorePool(expected, log, lambda: self.stop.urgency, light=self.light or len(scores) == len(to_do))

    def run(self) -> Applied:
        """Do what the plan says; what had ended before a stop or a failure is recorded."""
        began = time.monotonic()
        graph = self.plan.graph
        if self.declares:
            self.state.declare(graph.spec.name, {node.address: (node.key, node.kind) for node in graph.nodes.values()})
        try:
            with translate_errors(self.state.directory):
                (self.state.directory / "staging").mkdir(exist_ok=True)
            self._take([])
            self.executor.run(groups(self.plan), ExecutorCallbacks(self._requests, self._take, self._urgency))
            while (self._ready or self._pool.busy) and self.stop.urgency < 2:
                self._take([], wait=_POLL_SECONDS)
        finally:
            self._pool.close()
            for directory in self.state.directory.glob("score-*"):
                shutil.rmtree(directory, ignore_errors=True)
        self.applied.interrupted = self.stop.urgency > 0
        self.applied.seconds = time.monotonic() - began
        return self.applied

    def _urgency(self) -> int:
        """Return how urgently an end is wanted: what still runs when the budget is spent keeps its checkpoint."""
        return 2 if self.budget is not None and self.budget.spent() else self.stop.urgency

    def _requests(self, group: Group) -> list[Request]:
        """Return what is left to do of a group; nothing where it would not end within the budget."""
        requests = self.builder.requests(group, self.results)
        forecast = sum((self.forecasts.get(request.key) or {}).get("seconds", 0.0) for request in requests)
        return requests if not requests or self.budget is None or self.budget.allows(forecast) else []

    def _take(self, events: list[Event], wait: float = 0.0) -> None:
        """Take in the events of one turn, and the scores that are ready by now; hand out the scores that can be made.

        :param wait: the most seconds to wait for a score
        """
        for event in events:
            node = self.plan.graph.nodes[event.key]
            for watcher in self.watchers:
                if isinstance(event, NodeStart):
                    watcher.on_node_start(node)
                elif isinstance(event, NodeProgress):
                    watcher.on_node_progress(node, event.progress)
        self._record([event for event in events if isinstance(event, NodeEnd)])
        while True:
            self._submit_scores()
            scored = self._pool.fetch(wait)
            self._record(scored)
            if not scored or not self._ready:
                return

    def _record(self, ends: list[NodeEnd]) -> None:
        """Record what has ended, in one transaction; where that fails, one by one as far as it goes."""
        if not ends:
            return
        try:
            with self.state.together():
                stored = [self._store(end) for end in ends]
        except (StateError, OSError):
            if len(ends) == 1:
                raise
            for end in ends:
                self.results.pop(end.key, None)
            self._record_one_by_one(ends)
            return
        for end, attempt in zip(ends, stored, strict=True):
            self._go_on(end, attempt)

    def _record_one_by_one(self, ends: list[NodeEnd]) -> None:
        """Record what can be recorded; then say why the rest cannot."""
        failures = []
        for end in ends:
            try:
                self._record([end])
            except (StateError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _store(self, end: NodeEnd) -> Attempt:
        node, result, done_in = self.plan.graph.nodes[end.key], end.result, end.environment or environment()
        attempt = Attempt(
            key=node.key,
            kind=node.kind,
            outcome=result.outcome,
            message=result.message,
            started=end.started or utc_now(),
            seconds=end.seconds,
            device=done_in["device"],
            environment=done_in | self._noted,
            figures=result.figures,
            forecast=recorded_forecast(self.forecasts.get(node.key), self.plan.graph, node, self.results, self.target),
            reads=read_digests(node, self.results) | model_content(self.plan.graph, node),
            study=self.plan.study,
            address=node.address,
        )
        about = Node(node.key, node.kind, node.version, node.settings, node.inputs)
        files = {name: Path(end.directory) / name for name in result.files} | self._log_file(end)
        stored = self.state.record(about, attempt, files)
        if stored.finished:
            self.results[node.key] = stored
        return stored

    def _log_file(self, end: NodeEnd) -> dict[str, Path]:
        """Return the file with the end of the worker's log, where it says something."""
        if not end.log:
            return {}
        file = self.state.directory / "staging" / f"{end.key}.log"
        file.write_text(end.log, encoding="utf-8")
        return {WORKER_LOG: file}

    def _go_on(self, end: NodeEnd, stored: Attempt) -> None:
        """Go on from what is recorded."""
        node, result = self.plan.graph.nodes[end.key], end.result
        if stored.finished:
            shutil.rmtree(self.state.running(node.key), ignore_errors=True)
        if node.kind == "score":
            shutil.rmtree(end.directory, ignore_errors=True)
        self.applied.attempts.append(stored)
        for watcher in self.watchers:
            watcher.on_node_end(node, stored)
        if result.outcome == "failed" and "No space left" in result.message:
            raise StateError(result.message)  # the next node would be paid for, and lost in the same way
        if stored.outcome == "done" and node.key in self._waiting:
            readers = list(self._waiting.successors(node.key))
            self._waiting.remove_node(node.key)
            self._ready += [key for key in readers if not self._waiting.in_degree(key)]

    def _submit_scores(self) -> None:
        """Hand out scores whose predictions are all there, as many as are taken."""
        while self._ready and self._pool.room > 0:
            node = self.plan.graph.nodes[self._ready.popleft()]
            with translate_errors(self.state.directory):
                directory = Path(tempfile.mkdtemp(prefix="score-", dir=self.state.directory))
                self._pool.submit(ScoreTask(self.builder.request(node, self.results), directory))
