"""Adapters that are trained together by an apply: same results, shared time, and a killed worker costs what it did."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from apply_fixture import RANKS, Watch, children

from lorafile import Study
from lorafile.errors import LoraError
from lorafile.graph.graph import GraphNode
from lorafile.state import Attempt


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each worker one thread: threads that wait for each other on a busy machine take seconds for a step."""
    monkeypatch.setattr("lorafile.study.study.os.cpu_count", lambda: 1)


def study(spec_file: Path, steps: int, state: str = ".lora") -> Study:
    more = f"{RANKS}train.max_steps = [{steps}]\n"
    if more not in spec_file.read_text(encoding="utf-8"):
        with spec_file.open("a", encoding="utf-8") as stream:
            stream.write(more)
    return Study.load(spec_file, spec_file.parent / state)


def trains(attempts: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.kind == "train"]


def test_a_pack_gives_what_each_gives_alone(spec_file: Path) -> None:
    packed, alone = study(spec_file, 12, "packed"), study(spec_file, 12, "alone")
    done = packed.apply(workers=1, pack=4).attempts
    assert {attempt.outcome for attempt in done} == {"done"}
    together = [attempt for attempt in done if attempt.kind in ("train", "predict")]
    assert {attempt.figures.get("packed") for attempt in together} == {4}
    assert all(attempt.seconds > 0 for attempt in trains(done))
    one_by_one = alone.apply(workers=1, pack="off").attempts
    assert not any("packed" in attempt.figures for attempt in one_by_one)
    losses = [each.results()["test.log_loss"].to_numpy() for each in (packed, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert study(spec_file, 12, "alone").plan().work == study(spec_file, 12, "packed").plan().work == []


class Killer(Watch):
    """Kills the younger worker when both have a pack in work."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.killed = False

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        if node.kind == "train" and "step" in progress:
            self.seen.add(node.key)
        if len(self.seen) == 4 and not self.killed:
            self.killed = True
            workers = [pid for child in children(os.getpid()) for pid in children(child)]
            assert len(workers) == 2
            os.kill(max(workers), signal.SIGKILL)


def test_of_two_workers_one_is_killed_in_the_middle_of_a_pack(spec_file: Path) -> None:
    killer = Killer()
    applied = study(spec_file, 400).apply(workers=2, pack=2, watchers=[killer])
    attempts = applied.attempts
    assert applied.with_outcome("interrupted") == [], "each was taken up again"
    assert killer.killed
    interrupted = [attempt for attempt in attempts if attempt.outcome == "interrupted"]
    assert {attempt.kind for attempt in interrupted} == {"train"}
    assert len(interrupted) == 2, "the members of one pack"
    assert all(attempt.message == "The worker process was killed by SIGKILL." for attempt in interrupted)
    done = [attempt for attempt in attempts if attempt.outcome == "done"]
    assert set(Counter(attempt.key for attempt in done).values()) == {1}, "nothing is done twice"
    again = {attempt.key for attempt in interrupted}
    ways = {attempt.key: attempt.figures.get("packed") for attempt in trains(done)}
    assert [ways[key] for key in ways if key in again] == [None, None], "each alone"
    assert [ways[key] for key in ways if key not in again] == [2, 2]
    assert study(spec_file, 400).plan().work == []


def test_what_is_no_width_is_refused(spec_file: Path) -> None:
    for wrong in ("on", "0", "-1", "1.5"):
        with pytest.raises(LoraError, match="Pass auto, off, or the number"):
            study(spec_file, 12).apply(pack=wrong)
