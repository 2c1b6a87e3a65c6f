"""Replicates in a worker: what is done at once, how its time is divided, and what happens where it fails together."""

from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import Engine, two_trains  # noqa: E402

from lorafile.engine import run as door  # noqa: E402
from lorafile.engine.model.base import Bases  # noqa: E402
from lorafile.engine.nodes.train import train  # noqa: E402
from lorafile.engine.request import PackSizes, Report, Request, Result, Work  # noqa: E402
from lorafile.engine.worker.events import Event  # noqa: E402
from lorafile.engine.worker.link import Link  # noqa: E402
from lorafile.engine.worker.replicates import do, rounds  # noqa: E402


def replicates(engine: Engine, count: int) -> list[list[Request]]:
    """Return so many runs of three steps, each with a prediction on what it was trained on."""
    (first,) = two_trains(engine, 3)[0]
    found = []
    for seed in range(count):
        one = replace(first, key=f"t{seed}", settings={**first.settings, "seed": seed})
        settings = {name: one.settings[name] for name in ("model", "quantization")}
        settings["task"] = {"output": "likelihood"}
        reads = {"data": one.inputs["train"]}
        found.append([one, Request(f"p{seed}", "predict", "a", settings, one.paths, reads, {"adapter": one.key})])
    return found


def done(work: Work, root: Path, bases: Bases, ask_at: str = "", what: str = "") -> list[Event]:
    """Do some work in this process and return what was said; ask for something when a node has begun."""
    ours, theirs = Pipe()

    class Said(Link):
        def send(self, event: Event) -> None:
            events.append(event)
            if event.what == "started" and event.key == ask_at:
                ours.send(what)

    events: list[Event] = []
    do(work, root / "out", bases, Said(theirs, lambda: False), {})
    return events


def told(events: list[Event], what: str) -> list[str]:
    return [event.key for event in events if event.what == what]


class Together:
    """Trains one after another in place of a pack, notes how many came at once, and fails where it is told to."""

    def __init__(self, fails: Any = None) -> None:
        self.sizes: list[int] = []
        self.fails = fails

    def __call__(self, requests: list[Request], outs: list[Path], bases: Bases, reports: list[Report]) -> list[Result]:
        self.sizes.append(len(requests))
        if self.fails:
            self.fails(requests)
        return [train(*each, bases, report) for *each, report in zip(requests, outs, reports, strict=True)]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Together:
    found = Together()
    monkeypatch.setitem(door._TOGETHER, "train", found)
    return found


def test_what_goes_together_comes_before_what_reads_it(engine: Engine, together: Together) -> None:
    runs = replicates(engine, 3)
    alone = [replace(runs[2][0], pack=""), runs[2][1]]
    found = [[request.key for request in some] for some in rounds([*runs[0], *runs[1], *alone])]
    assert found == [["t0", "t1"], ["p0"], ["p1"], ["t2"], ["p2"]]


def test_runs_are_done_at_once_and_their_time_adds_up(
    engine: Engine,
    together: Together,
    tmp_path: Path,
) -> None:
    events = done(Work(replicates(engine, 3), PackSizes(2, 1, "measured")), tmp_path, engine.bases)
    assert together.sizes == [2]
    assert sorted(told(events, "ended")) == ["p0", "p1", "t0", "t1"]
    ended = {event.key: event for event in events if event.what == "ended"}
    assert all(event.done and event.done.outcome == "done" for event in ended.values())
    assert ended["t0"].done is not None
    assert ended["t0"].done.figures["notes"] == ["measured"]
    assert (Path(ended["t1"].directory) / "adapter_model.safetensors").is_file()
    own = [event.done.figures["seconds"] for key, event in ended.items() if key in ("t0", "t1") and event.done]
    assert ended["t0"].seconds / ended["t1"].seconds == pytest.approx(own[0] / own[1])


def test_what_does_not_fit_together_is_done_in_halves(
    engine: Engine,
    together: Together,
    tmp_path: Path,
) -> None:
    def crowded(requests: list[Request]) -> None:
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    together.fails = crowded
    events = done(Work(replicates(engine, 5), PackSizes(5, 1)), tmp_path, engine.bases)
    assert together.sizes == [5, 2, 2], "the fifth is alone"
    trained = [event.done for event in events if event.what == "ended" and event.key.startswith("t") and event.done]
    assert [one.outcome for one in trained] == ["done"] * 5
    sentence = "5 adapters at a time did not fit into memory; goes on with 2."
    assert all(one.figures["notes"] == [sentence] for one in trained)
    assert [event.progress for event in events if event.progress and "note" in event.progress] == [{"note": sentence}]
    assert len(told(events, "started")) == 10, "each once"


def test_what_fails_together_is_done_one_by_one_and_each_has_an_outcome_of_its_own(
    engine: Engine,
    together: Together,
    tmp_path: Path,
) -> None:
    def broken(requests: list[Request]) -> None:
        raise ValueError("one of us is wrong")

    together.fails = broken
    runs = replicates(engine, 3)
    wrong = {**runs[1][0].settings, "adapter": {**runs[1][0].settings["adapter"], "target_modules": ["nothing"]}}
    runs[1][0] = replace(runs[1][0], settings=wrong)
    events = done(Work(runs, PackSizes(3, 3)), tmp_path, engine.bases)
    outcomes = {event.key: event.done.outcome for event in events if event.done}
    assert outcomes == {"t0": "done", "t1": "failed", "t2": "done", "p0": "done", "p2": "done"}
    assert told(events, "started") == ["t0", "t1", "t2", "p0", "p2"], "nothing reads what failed"


def test_a_stop_interrupts_all_of_a_pack_and_begins_nothing_more(
    engine: Engine,
    together: Together,
    tmp_path: Path,
) -> None:
    events = done(Work(replicates(engine, 4), PackSizes(2, 4)), tmp_path, engine.bases, ask_at="t1", what="stop")
    outcomes = {event.key: event.done.outcome for event in events if event.done}
    assert outcomes == {"t0": "interrupted", "t1": "interrupted"}
    assert told(events, "started") == ["t0", "t1"]


def test_asked_to_finish_it_ends_the_replicates_that_it_has_begun(
    engine: Engine, together: Together, tmp_path: Path
) -> None:
    events = done(Work(replicates(engine, 4), PackSizes(2, 4)), tmp_path, engine.bases, ask_at="t1", what="finish")
    assert {event.key: event.done.outcome for event in events if event.done} == dict.fromkeys(
        ("t0", "t1", "p0", "p1"), "done"
    )
