"""Scores from a pool of processes: the same as in this one, whatever becomes of a process."""

import contextlib
import math
import os
import signal
import time
from pathlib import Path

import pytest

from lorafile.apply.score_pool import FEW, ScorePool, ScoreTask
from lorafile.engine.metrics.custom import CustomMetric, read_custom_metric
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import NodeEnd
from lorafile.files.jsonl import read_lines, write_lines

SLOW = "import time\ndef score(row):\n    time.sleep(30)\n    return 1.0\n"


def task(tmp_path: Path, number: int, own: CustomMetric | None = None) -> ScoreTask:
    """Return a task whose three examples cost `number` nats for each of two tokens."""
    where = tmp_path / f"task{number}{'-own' if own else ''}"
    where.mkdir()
    rows = [{"row": row, "log_likelihood": -2.0 * number, "tokens": 2, "correct": 1, "bytes": 4} for row in range(3)]
    write_lines(where / "predictions.jsonl.gz", [{**row, "reference": "oslo"} for row in rows])
    inputs = {"likelihood": {"predictions.jsonl.gz": str(where / "predictions.jsonl.gz")}}
    paths = {"metric": own} if own else {}
    settings = {"metrics": ["log_loss", "perplexity"]}
    key, execution = f"key{number}", {"metric_timeout": 60.0}
    return ScoreTask(Request(key, "score", "a", settings, paths, inputs, execution=execution), where)


def all_of(pool: ScorePool, seconds: float = 120.0) -> dict[str, NodeEnd]:
    found: dict[str, NodeEnd] = {}
    deadline = time.monotonic() + seconds
    while pool.busy and time.monotonic() < deadline:
        found |= {end.key: end for end in pool.fetch(0.5)}
    return found


@pytest.mark.parametrize("expected", [FEW - 1, FEW])
def test_scores_are_those_of_their_own_predictions(tmp_path: Path, expected: int) -> None:
    pool, found = ScorePool(expected, tmp_path / "log", lambda: 0, light=True), {}
    waiting = [task(tmp_path, number) for number in range(40)]
    try:
        while waiting or pool.busy:
            while waiting and pool.room > 0:
                pool.submit(waiting.pop())
            found |= {end.key: end for end in pool.fetch(0.5)}
        pids = {worker.process.pid for worker, _ in pool._workers}
    finally:
        pool.close()
    assert bool(pids) == (expected == FEW)
    assert len(found) == 40
    for number in range(40):
        end = found[f"key{number}"]
        assert end.result.outcome == "done", end.result.message
        assert end.result.figures == {"examples": 3, "log_loss": number, "perplexity": pytest.approx(math.exp(number))}
        assert [row["log_loss"] for row in read_lines(Path(end.directory) / "outcomes.jsonl.gz")] == [number] * 3
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "no process stays"


def test_a_slow_metric_file_is_ended_with_its_pool(tmp_path: Path) -> None:
    """An apply that is asked to stop has ten seconds in a container; a metric file has a minute."""
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    pool = ScorePool(FEW, tmp_path / "log", lambda: 0, light=True)
    pool.submit(task(tmp_path, 0, read_custom_metric("slow.py", "slow", tmp_path)))
    deadline = time.monotonic() + 60
    while not (runs := processes_with(str(tmp_path / "slow.py"))):
        assert time.monotonic() < deadline
        assert pool.fetch(0.1) == []
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 8
    assert not [pid for pid in runs if Path(f"/proc/{pid}").exists()]


def processes_with(argument: str) -> list[str]:
    """Return the processes that were started with an argument."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [file.parent.name] if argument.encode() in file.read_bytes().split(b"\0") else []
    return found


def test_a_process_that_dies_costs_the_score_that_it_computed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    pool = ScorePool(FEW, tmp_path / "log", lambda: 0, light=True)
    try:
        pool.submit(task(tmp_path, 0, read_custom_metric("slow.py", "slow", tmp_path)))
        ((worker, tasks),) = pool._workers
        for number in range(1, 4):
            one = task(tmp_path, number)
            tasks.append(one)  # they wait behind it
            worker.connection.send(one)
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        found = all_of(pool)
    finally:
        pool.close()
    assert (found["key0"].result.outcome, found["key0"].result.message) == (
        "interrupted",
        "The worker exited with code -9.",
    )
    assert [found[f"key{number}"].result.figures["log_loss"] for number in range(1, 4)] == [1, 2, 3]
