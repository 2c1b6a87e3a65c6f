"""What the applying process costs itself: many simulated workers, real recording and scoring, no model.

    python benchmarks/scale.py --replicates 500 1000 2000 5000 10000

Each replicate is one `train`, two `predict` and two `score` nodes. The workers answer at once with small files, so that
all that is timed is the loop that records. `turn` is the longest time that the loop takes for what its workers said in
one turn. It writes `benchmarks/results/DATE-scale.json`.
"""

import argparse
import gzip
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from lorafile.apply.applier import Applier
from lorafile.apply.executors.base import ExecutorCallbacks, Group
from lorafile.engine.request import Request, Result
from lorafile.engine.worker.channel import Event, NodeEnd, NodeStart
from lorafile.environment import environment
from lorafile.state import State
from lorafile.study.study import Study

HERE = Path(__file__).resolve().parent
SPEC = """
[study]
name = "scale"
seeds = {seeds}
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
max_length = 32
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
"""
CURVE = {"step": 1, "epoch": 0.0, "loss": 1.0, "learning_rate": 1e-3, "grad_norm": 1.0}
PREDICTIONS = [{"row": row, "reference": "oslo", "bytes": 4, "tokens": 2, "correct": 1} for row in range(16)]


class Simulated:
    """An executor whose workers answer at once.

    :ivar turn: the longest time that the applying process took for one turn's events, in seconds
    """

    def __init__(self, workers: int, directory: Path) -> None:
        self.workers, self.directory, self.where, self.turn = workers, directory, environment(1), 0.0

    def run(self, groups: list[Group], callbacks: ExecutorCallbacks) -> None:
        """Do every group, as many at a time as there are workers; examples first."""
        self._run([group for group in groups if not group.after], callbacks)
        self._run([group for group in groups if group.after], callbacks)

    def _run(self, groups: list[Group], callbacks: ExecutorCallbacks) -> None:
        waiting = iter(groups)
        busy: list[Iterator[Event]] = []
        while True:
            free = islice(waiting, self.workers - len(busy))
            busy += [self._events(callbacks.requests(group)) for group in free]
            if not busy:
                return
            said = [(worker, event) for worker in busy if (event := next(worker, None)) is not None]
            busy = [worker for worker, _ in said]
            began = time.perf_counter()
            callbacks.record([event for _, event in said])
            self.turn = max(self.turn, time.perf_counter() - began)

    def _events(self, requests: list[Request]) -> Iterator[Event]:
        for request in requests:
            yield NodeStart(request.key)
            out = self.directory / request.key
            out.mkdir()
            files = [self._write(out / name, request) for name in FILES[request.kind]]
            result = Result(figures={"seconds": 1.0, "examples": 16}, files=files)
            yield NodeEnd(request.key, result, str(out), "2026-01-01T00:00:00+00:00", 1.0, self.where)

    def _write(self, file: Path, request: Request) -> str:
        if file.name.endswith("jsonl.gz"):
            likelihood = -1 - int(request.key[:8], 16) / 2**32
            rows = [row | {"log_likelihood": likelihood} for row in PREDICTIONS]
            rows = [CURVE] if "curve" in file.name else rows
            file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), 1))
        else:
            file.write_bytes(request.key.encode())
        return file.name


FILES = {
    "prepare": ("tokens.safetensors", "examples.jsonl.gz"),
    "train": ("adapter_config.json", "adapter_model.safetensors", "curve.jsonl.gz"),
    "predict": ("predictions.jsonl.gz",),
}


def measured(replicates: int, workers: int) -> dict[str, Any]:
    """Return what an apply of so many replicates costs the applying process."""
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        spec = where / "study.toml"
        spec.write_text(SPEC.format(seeds=list(range(1, replicates + 1))))
        study = Study.load(spec, where / "state")
        study.lock()
        plan = study.plan()
        executor = Simulated(workers, where)
        with State.write(where / "state") as state:
            applier = Applier(plan, state, executor, [])
            began, clock = time.process_time(), time.perf_counter()
            applied = applier.run()
            seconds, clock = time.process_time() - began, time.perf_counter() - clock
        assert len(applied.with_outcome("done")) == len(plan.work), applied.attempts[-1]
        size = (where / "state" / "state.db").stat().st_size
    count = len(applied.attempts)
    return {
        "replicates": replicates,
        "attempts": count,
        "cpu_seconds": seconds,
        "scoring_seconds": sum(attempt.seconds for attempt in applied.attempts if attempt.kind == "score"),
        "wall_seconds": clock,
        "attempts_per_cpu_second": count / seconds,
        "attempts_per_wall_second": count / clock,
        "longest_turn_seconds": executor.turn,
        "index_bytes_per_attempt": size / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, nargs="+", default=[500, 1_000, 2_000, 5_000])
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rows = []
    for replicates in chosen.replicates:
        rows.append(measured(replicates, chosen.workers))
        print(json.dumps(rows[-1]), flush=True)
    today = datetime.now(UTC).date().isoformat()
    out = chosen.out or HERE / "results" / f"{today}-scale.json"
    about = {"date": today, "machine": platform.machine(), "cores": os.cpu_count(), "workers": chosen.workers}
    out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
