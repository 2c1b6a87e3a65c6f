"""Replicates in a worker: what is done at once, how its time is divided, and what happens where it fails together."""

from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import Engine, two_trains  # noqa: E402

from lorafile.engine.model.base import Bases  # noqa: E402
from lorafile.engine.nodes.train import train  # noqa: E402
from lorafile.engine.request import PackSizes, Report, Request, Result  # noqa: E402
from lorafile.engine.worker.channel import (  # noqa: E402
    Command,
    Message,
    NodeEnd,
    NodeProgress,
    NodeStart,
    Work,
    WorkerChannel,
)
from lorafile.engine.worker.replicates import batches, run_work  # noqa: E402


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


def done(work: Work, root: Path, bases: Bases, ask_at: str = "", command: Command = Command.STOP) -> list[Message]:
    """Do some work in this process and return what was said; ask for something when a node has begun."""
    ours, theirs = Pipe()

    class Recorder(WorkerChannel):
        def send(self, message: Any) -> None:
            messages.append(message)
            if message == NodeStart(ask_at):
                ours.send(command)

    messages: list[Message] = []
    run_work(work, root / "out", bases, Recorder(theirs), {})
    return messages


def begun(messages: list[Message]) -> list[str]:
    return [message.key for message in messages if isinstance(message, NodeStart)]


def ends(messages: list[Message]) -> dict[str, NodeEnd]:
    return {message.key: message for message in messages if isinstance(message, NodeEnd)}


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
    monkeypatch.setattr("lorafile.engine.packing.train.train_together", found)
    return found


def test_what_goes_together_comes_before_what_reads_it(engine: Engine, together: Together) -> None:
    runs = replicates(engine, 3)
    alone = [replace(runs[2][0], pack=""), runs[2][1]]
    found = [[request.key for request in some] for some in batches([*runs[0], *runs[1], *alone])]
    assert found == [["t0", "t1"], ["p0"], ["p1"], ["t2"], ["p2"]]


def test_runs_are_done_at_once_and_their_time_adds_up(
    engine: Engine,
    together: Together,
    tmp_path: Path,
) -> None:
    events = done(Work(replicates(engine, 3), PackSizes(2, 1, "measured")), tmp_path, engine.bases)
    assert together.sizes == [2]
    ended = ends(events)
    assert sorted(ended) == ["p0", "p1", "t0", "t1"]
    assert all(event.result.outcome == "done" for event in ended.values())
    assert ended["t0"].result.figures["notes"] == ["measured"]
    assert (Path(ended["t1"].directory) / "adapter_model.safetensors").is_file()
    own = [event.result.figures["seconds"] for key, event in ended.items() if key in ("t0", "t1")]
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
    trained = [event.result for key, event in ends(events).items() if key.startswith("t")]
    assert [one.outcome for one in trained] == ["done"] * 5
    sentence = "5 adapters at a time did not fit into memory; continuing with 2."
    assert all(one.figures["notes"] == [sentence] for one in trained)
    progress = [event.progress for event in events if isinstance(event, NodeProgress) and "note" in event.progress]
    assert progress == [{"note": sentence}]
    assert len(begun(events)) == 10, "each once"


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
    outcomes = {key: event.result.outcome for key, event in ends(events).items()}
    assert outcomes == {"t0": "done", "t1": "failed", "t2": "done", "p0": "done", "p2": "done"}
    assert begun(events) == ["t0", "t1", "t2", "p0", "p2"], "nothing reads what failed"


def test_a_stop_interrupts_all_of_a_pack_and_begins_nothing_more(
    engine: Engine,
    together: Together,
    tmp_path: Path,
) -> None:
    events = done(Work(replicates(engine, 4), PackSizes(2, 4)), tmp_path, engine.bases, ask_at="t1")
    outcomes = {key: event.result.outcome for key, event in ends(events).items()}
    assert outcomes == {"t0": "interrupted", "t1": "interrupted"}
    assert begun(events) == ["t0", "t1"]


def test_asked_to_finish_it_ends_the_replicates_that_it_has_begun(
    engine: Engine, together: Together, tmp_path: Path
) -> None:
    events = done(
        Work(replicates(engine, 4), PackSizes(2, 4)), tmp_path, engine.bases, ask_at="t1", command=Command.FINISH
    )
    assert {key: event.result.outcome for key, event in ends(events).items()} == dict.fromkeys(
        ("t0", "t1", "p0", "p1"), "done"
    )
