"""The nodes of some replicates, done in one process: one after another, and several adapters at once where they can."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorafile.engine.model.base import Bases
from lorafile.engine.packing.pack_sizes import measure_pack_sizes
from lorafile.engine.request import Request, Result, Stopped, Work
from lorafile.engine.run import SplitBatch, is_packable, run_together
from lorafile.engine.worker.events import Event
from lorafile.engine.worker.link import Link


def do(work: Work, directory: Path, bases: Bases, link: Link, where: dict[str, Any]) -> None:
    """Do the nodes of some replicates and tell of each as it begins, goes on and ends.

    A node whose input did not come is left out, and the applying process sees that.

    :param directory: where each node gets a directory of its own
    :param where: what a result carries of its environment
    """
    widths = work.widths
    if widths is None:
        first, packed = work.replicates[0][0].key, [list(filter(is_packable, one)) for one in work.replicates]
        try:
            widths = measure_pack_sizes(packed, bases, link.report(first))
        except Stopped:
            return
        link.send(Event("width", first, widths=widths))
    taken = dict(enumerate(work.replicates[: widths.most]))
    session = _Session(directory, bases, link, where, {"train": widths.train, "predict": widths.predict}, widths.why)
    session.belongs = {request.key: number for number, one in taken.items() for request in one}
    for requests in rounds([request for one in taken.values() for request in one]):
        session.do(requests)
        if link.stopped:
            return


def rounds(requests: list[Request]) -> list[list[Request]]:
    """Return nodes in an order in which each comes after what it awaits, with those side by side that go together."""
    waiting = sorted(requests, key=lambda request: request.kind == "merge")  # it drops the base that the others share
    placed: set[str] = set()
    found = []
    while waiting:
        ready = [request for request in waiting if placed.issuperset(request.awaits.values())]
        alike = [request for request in ready if _class(request) == _class(ready[0])]
        found.append(alike if is_packable(ready[0]) else ready[:1])
        placed |= {request.key for request in found[-1]}
        waiting = [request for request in waiting if request.key not in placed]
    return found


def _class(request: Request) -> tuple[str, str]:
    return request.kind, request.pack


@dataclass
class _Session:
    """What is known while some work is done.

    :ivar widths: kind -> how many nodes are done at once; shrinks where memory runs out
    :ivar belongs: key -> number of its replicate
    :ivar made: key -> the files of what is done
    """

    directory: Path
    bases: Bases
    link: Link
    where: dict[str, Any]
    widths: dict[str, int]
    why: str
    belongs: dict[str, int] = field(default_factory=dict)
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    _began: dict[str, str] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)
    _notes: dict[str, list[str]] = field(default_factory=dict)

    def do(self, requests: list[Request]) -> None:
        """Do nodes that go together, as many at a time as is good."""
        waiting = [self._ready(r) for r in requests if all(key in self.made for key in r.awaits.values())]
        while waiting := self._wanted(waiting):
            width = self.widths.get(waiting[0].kind, 1)
            self._at_once(waiting[:width])
            waiting = waiting[width:]

    def _wanted(self, waiting: list[Request]) -> list[Request]:
        """Leave out what is not to be begun any more, because a stop was asked for."""
        self.link.heed()
        if self.link.stopped:
            return []
        begun = {self.belongs[key] for key in self._began}
        return [one for one in waiting if not self.link.finishing or self.belongs[one.key] in begun]

    def _ready(self, request: Request) -> Request:
        return replace(
            request, inputs={**request.inputs, **{role: self.made[key] for role, key in request.awaits.items()}}
        )

    def _at_once(self, requests: list[Request]) -> None:
        """Do nodes at once; where that fails, in smaller parts."""
        for request in requests:
            self._start(request)
        outs = [self.directory / request.key for request in requests]
        reports = [self.link.report(request.key) for request in requests]
        clock = time.monotonic()
        try:
            found = run_together(requests, outs, self.bases, reports)
        except SplitBatch as apart:
            self._share(requests, time.monotonic() - clock, [])
            if apart.crowded:
                self.widths[requests[0].kind] = apart.size
            self.link.send(Event("progress", requests[0].key, {"note": str(apart)}))
            for request in requests:
                self._notes.setdefault(request.key, []).append(str(apart))
            for part in _parts(requests, apart.size):
                self._at_once(part)
            return
        self._share(requests, time.monotonic() - clock, [_own_seconds(done) for done in found])
        for request, done, out in zip(requests, found, outs, strict=True):
            self._end(request, done, out)

    def _start(self, request: Request) -> None:
        if request.key not in self._began:
            self._began[request.key] = datetime.now(UTC).isoformat(timespec="seconds")
            self.link.send(Event("started", request.key))

    def _share(self, requests: list[Request], seconds: float, weights: list[float]) -> None:
        """Divide the time that some nodes took together, so that it adds up; evenly where nothing else is known."""
        weights = weights if sum(weights) else [1.0] * len(requests)
        for request, weight in zip(requests, weights, strict=True):
            self._spent[request.key] = self._spent.get(request.key, 0.0) + seconds * weight / sum(weights)

    def _end(self, request: Request, done: Result, out: Path) -> None:
        if done.outcome == "done":
            self.made[request.key] = {name: str(out / name) for name in done.files}
        notes = [*done.figures.get("notes", []), *self._notes.get(request.key, [])]
        if self.why and is_packable(request):
            notes.append(self.why)
        done = replace(done, figures=done.figures | {"notes": notes}) if notes else done
        began, seconds = self._began[request.key], self._spent[request.key]
        self.link.send(Event("ended", request.key, None, done, str(out), began, seconds, self.where))


def _own_seconds(done: Result) -> float:
    """Return the time that a node says it took of what several took together."""
    return float(done.figures.get("seconds", 0.0) - done.figures.get("seconds_before", 0.0))


def _parts(requests: list[Request], size: int) -> Iterator[list[Request]]:
    return (requests[at : at + size] for at in range(0, len(requests), size))
