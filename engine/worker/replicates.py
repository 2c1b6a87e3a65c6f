"""The nodes of some replicates, done in one process: one after another, and several adapters at once where they can."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorafile.engine.model.base import Bases
from lorafile.engine.packing.pack_sizes import measure_pack_sizes
from lorafile.engine.request import Request, Result, Stopped
from lorafile.engine.run import SplitBatch, is_packable, run_together
from lorafile.engine.worker.channel import NodeEnd, NodeProgress, NodeStart, PackMeasured, Work, WorkerChannel
from lorafile.units import utc_now


def run_work(work: Work, directory: Path, bases: Bases, channel: WorkerChannel, environment: dict[str, Any]) -> None:
    """Do the nodes of some replicates and tell of each as it begins, goes on and ends.

    A node whose input did not come is left out, and the applying process sees that.

    :param directory: where each node gets a directory of its own
    :param environment: what a result carries of where it was made
    """
    sizes = work.sizes
    if sizes is None:
        first = work.replicates[0][0].key
        packable = [list(filter(is_packable, replicate)) for replicate in work.replicates]
        try:
            sizes = measure_pack_sizes(packable, bases, channel.report(first))
        except Stopped:
            return
        channel.send(PackMeasured(first, sizes))
    replicates = work.replicates[: sizes.most]
    session = _Session(directory, bases, channel, environment, {"train": sizes.train, "predict": sizes.predict})
    session.replicate_of = {request.key: n for n, replicate in enumerate(replicates) for request in replicate}
    session.note = sizes.why
    for requests in batches([request for replicate in replicates for request in replicate]):
        session.run(requests)
        if channel.stopped:
            return


def batches(requests: list[Request]) -> list[list[Request]]:
    """Return nodes in an order in which each comes after what it awaits, with those side by side that go together."""
    waiting = sorted(requests, key=lambda request: request.kind == "merge")  # it drops the base that the others share
    placed: set[str] = set()
    ordered = []
    while waiting:
        ready = [request for request in waiting if placed.issuperset(request.awaits.values())]
        first = ready[0]
        alike = [request for request in ready if (request.kind, request.pack) == (first.kind, first.pack)]
        ordered.append(alike if is_packable(first) else [first])
        placed |= {request.key for request in ordered[-1]}
        waiting = [request for request in waiting if request.key not in placed]
    return ordered


@dataclass
class _Session:
    """What is known while some work is done.

    :ivar sizes: kind -> how many nodes are done at once; shrinks where memory runs out
    :ivar note: why so many, where that was measured
    :ivar replicate_of: key -> number of its replicate
    :ivar outputs: key -> the files of what is done
    """

    directory: Path
    bases: Bases
    channel: WorkerChannel
    environment: dict[str, Any]
    sizes: dict[str, int]
    note: str = ""
    replicate_of: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    _started: dict[str, str] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _notes: dict[str, list[str]] = field(default_factory=dict)

    def run(self, requests: list[Request]) -> None:
        """Do nodes that go together, as many at a time as is good."""
        waiting = []
        for request in requests:
            if all(key in self.outputs for key in request.awaits.values()):
                awaited = {role: self.outputs[key] for role, key in request.awaits.items()}
                waiting.append(replace(request, inputs={**request.inputs, **awaited}))
        while waiting := self._still_wanted(waiting):
            size = self.sizes.get(waiting[0].kind, 1)
            self._run_batch(waiting[:size])
            waiting = waiting[size:]

    def _still_wanted(self, waiting: list[Request]) -> list[Request]:
        """Leave out what is not to be begun any more, because a stop was asked for."""
        self.channel.poll_commands()
        if self.channel.stopped:
            return []
        begun = {self.replicate_of[key] for key in self._started}
        return [r for r in waiting if not self.channel.finishing or self.replicate_of[r.key] in begun]

    def _run_batch(self, requests: list[Request]) -> None:
        """Do nodes at once; where that fails, in smaller parts."""
        for request in requests:
            if request.key not in self._started:
                self._started[request.key] = utc_now()
                self.channel.send(NodeStart(request.key))
        outs = [self.directory / request.key for request in requests]
        reports = [self.channel.report(request.key) for request in requests]
        began = time.monotonic()
        try:
            results = run_together(requests, outs, self.bases, reports)
        except SplitBatch as split:
            self._share_time(requests, time.monotonic() - began, [])
            if split.crowded:
                self.sizes[requests[0].kind] = split.size
            self.channel.send(NodeProgress(requests[0].key, {"note": str(split)}))
            for request in requests:
                self._notes.setdefault(request.key, []).append(str(split))
            for start in range(0, len(requests), split.size):
                self._run_batch(requests[start : start + split.size])
            return
        self._share_time(requests, time.monotonic() - began, [_reported_seconds(result) for result in results])
        for request, result, out in zip(requests, results, outs, strict=True):
            self._end(request, result, out)

    def _share_time(self, requests: list[Request], seconds: float, weights: list[float]) -> None:
        """Divide the time that some nodes took together, so that it adds up; evenly where nothing else is known."""
        weights = weights if sum(weights) else [1.0] * len(requests)
        for request, weight in zip(requests, weights, strict=True):
            self._seconds[request.key] = self._seconds.get(request.key, 0.0) + seconds * weight / sum(weights)

    def _end(self, request: Request, result: Result, out: Path) -> None:
        if result.outcome == "done":
            self.outputs[request.key] = {name: str(out / name) for name in result.files}
        notes = [*result.figures.get("notes", []), *self._notes.get(request.key, [])]
        if self.note and is_packable(request):
            notes.append(self.note)
        result = replace(result, figures=result.figures | {"notes": notes}) if notes else result
        started, seconds = self._started[request.key], self._seconds[request.key]
        environment = {**self.environment, **result.environment}
        self.channel.send(NodeEnd(request.key, result, str(out), started, seconds, environment))


def _reported_seconds(result: Result) -> float:
    """Return the time that a node says it took of what several took together."""
    return float(result.figures.get("seconds", 0.0) - result.figures.get("seconds_before", 0.0))
