"""Watches an apply and lets every tracker of the study have what it does not have yet."""

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lorafile.apply.progress import Applied, Progress, Tracked
from lorafile.apply.tracking.destinations import Sent, SentLog, destinations
from lorafile.apply.tracking.records import Run, curve_of, record_of, runs_of
from lorafile.apply.tracking.sender import Sender
from lorafile.apply.tracking.tracker import RunRecord
from lorafile.graph.graph import Graph, GraphNode
from lorafile.plan.plan import Plan
from lorafile.state import Attempt, State

_LAST_SECONDS = 30.0  # that sending may take when the work is done
_HASTY_SECONDS = 5.0  # the same after Ctrl-C
_END_SECONDS = 4.0  # that senders have to end their processes


class Reporter:
    """Sends a run to trackers when its training has ended, and again when all of it has, or the apply ends."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.state, self.results = state, latest_results(plan.graph, state)
        self._late: set[str] = set()  # runs that have something new, and that more will come of
        self._profiling = 0  # profiles in work
        self._set_stage(plan.graph)
        self._may_send = asyncio.Event()
        self._may_send.set()
        places = destinations(plan.graph.spec)
        self._senders = [Sender(place, state.directory, self.describe, self._may_send) for place in places]
        self._loop = asyncio.new_event_loop()
        self._tasks = [self._loop.create_task(sender.run()) for sender in self._senders]
        self._ended = threading.Event()
        threading.Thread(target=self._run_senders, name="lora-tracking", daemon=True).start()
        self._send_finished(plan)

    def describe(self, key: str, before: Sent | None) -> tuple[RunRecord, Sent] | None:
        """Return what a tracker should have of a run now; None where it has that. Called from the senders' thread."""
        graph, runs, _ = self._stage
        if key not in runs:
            return None
        record, sent = record_of(graph, runs[key], self.results, before)
        if sent == before:
            return None
        return replace(record, curve=curve_of(self.results[key], self.state.objects)), sent

    def on_node_start(self, node: GraphNode) -> None:
        """Leave the machine to what is measured."""
        self._count_profile(node, 1)

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Send nothing: what a tracker has is what state holds."""

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Send a run when its training has ended, and when all of it has but its profile, which comes last."""
        self.results[node.key] = attempt
        self._count_profile(node, -1)
        for run in self._stage[2].get(node.key, []):
            rest = [key for name, key in run.keys.items() if name != "profile"]
            trained = node.key == run.key and node.kind == "train"
            if trained or (node.kind != "profile" and all(key in self.results for key in rest)):
                self._send(run)
            self._late.add(run.key)

    def on_stop(self, times: int) -> None:
        """Go on: what has ended is sent."""

    def on_next_stage(self, plan: Plan) -> None:
        """Take in what was chosen: a candidate's run may be its configuration's now."""
        self._set_stage(plan.graph)
        self._send_finished(plan)

    def _send_finished(self, plan: Plan) -> None:
        to_do = {change.key for change in plan.work}
        for run in self._stage[1].values():
            if to_do.isdisjoint(run.keys.values()):
                self._send(run)
            else:
                self._late.add(run.key)

    def _set_stage(self, graph: Graph) -> None:
        """Take in a graph, whole: the senders' thread reads it, too."""
        runs = {run.key: run for run in runs_of(graph)}
        of_node: dict[str, list[Run]] = defaultdict(list)
        for run in runs.values():
            for key in run.keys.values():
                of_node[key].append(run)
        self._stage = graph, runs, of_node

    def _send(self, run: Run) -> None:
        self._late.discard(run.key)
        for sender in self._senders if run.has_ended(self.results) else ():
            self._call(sender.add, run.key)

    def _count_profile(self, node: GraphNode, change: int) -> None:
        if node.kind == "profile":
            self._profiling += change
            self._call(self._may_send.clear if self._profiling else self._may_send.set)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the senders' thread."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run_senders(self) -> None:
        async def run() -> None:
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._loop.run_until_complete(run())
        self._ended.set()

    def close(self, seconds: float | None) -> list[Tracked]:
        """Send what is left, all trackers at once, for so many seconds; return what each got.

        :param seconds: None: as long as they take what they are sent; Ctrl-C ends that
        """
        why = f"it had not finished {seconds:g} s after the work" if seconds else "the apply was interrupted"
        for run in self._stage[1].values():
            if run.key in self._late:
                self._send(run)
        for end in (self._may_send.set, *(sender.end for sender in self._senders)):
            self._call(end)
        try:
            self._ended.wait(seconds)
        except KeyboardInterrupt:
            why = "you stopped it"
        for sender, task in zip(self._senders, self._tasks, strict=True):
            if not task.done():
                sender.problem = sender.problem or why
                self._call(task.cancel)
        if self._ended.wait(_END_SECONDS):
            self._loop.close()
        return [
            Tracked(sender.destination.tracker, sender.destination.label, len(sender.sent), sender.left, sender.problem)
            for sender in self._senders
        ]


@contextlib.contextmanager
def tracked(plan: Plan, state: State, applied: Applied) -> Iterator[list[Progress]]:
    """Yield the watcher that sends runs to the study's trackers; what they got is in `applied` afterwards."""
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
    results = latest_results(plan.graph, state)
    logs = [SentLog(state.directory, place) for place in places]
    ended = [run for run in runs_of(plan.graph) if run.has_ended(results)]

    def is_sent(run: Run, log: SentLog) -> bool:
        before = log.get(run.key)
        return record_of(plan.graph, run, results, before)[1] == before

    return sum(not all(is_sent(run, log) for log in logs) for run in ended)


def latest_results(graph: Graph, state: State) -> dict[str, Attempt]:
    """Return how each node stands: its newest finished attempt, else its newest."""
    attempts = state.latest(graph.nodes)
    return {key: next((a for a in tries[::-1] if a.finished), tries[-1]) for key, tries in attempts.items()}
