"""What the applying process costs itself: many simulated workers, real recording and scoring, no model.

    python benchmarks/scale.py --replicates 500 1000 2000 5000 10000

Each replicate is one `train`, two `predict` and two `score` nodes. The workers answer at once with small files, so that
all that is timed is the loop that hands out and records. `turn` is the longest time between two looks at the workers,
in seconds of processor time. It writes `benchmarks/results/DATE-scale.json`.
"""

import argparse
import gzip
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from lorafile.apply.applier import Applier
from lorafile.apply.executors.base import Phase, WorkerHandle
from lorafile.apply.executors.loop import PoolExecutor
from lorafile.engine.request import Request, Result
from lorafile.engine.worker.channel import Command, Event, Message, NodeEnd, NodeStart, Status, Work
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


class SimulatedPool:
    """A pool whose workers answer at once; what they do goes through the loop of every apply.

    :ivar turn: the longest time that the applying process took for one turn, in seconds of processor time
    """

    keeps_workers = True

    def __init__(self, workers: int, directory: Path) -> None:
        self.workers, self.directory, self.where, self.turn = workers, directory, environment(1), 0.0
        self._began = time.process_time()

    def limit(self, _phase: Phase) -> int:
        return self.workers

    def adopt(self) -> list[tuple[WorkerHandle, list[Work]]]:
        return []

    def start(self, _phase: Phase, _workers: Sequence[WorkerHandle], _urgency: Callable[[], int]) -> "SimulatedWorker":
        return SimulatedWorker(self)

    def wait(self, _workers: Sequence[WorkerHandle], _seconds: float) -> None:
        now = time.process_time()
        self.turn, self._began = max(self.turn, now - self._began), now


class SimulatedWorker(WorkerHandle):
    """A worker that says one thing in each turn."""

    def __init__(self, pool: SimulatedPool) -> None:
        super().__init__()
        self.pool = pool
        self._messages: Iterator[Message] = iter(())

    def send(self, message: Work | Command) -> None:
        if isinstance(message, Work):
            self._messages = self._say([request for requests in message.replicates for request in requests])

    def events(self) -> list[Message]:
        return list(islice(self._messages, 1))

    def lost(self) -> None:
        return None

    def log(self) -> str:
        return ""

    def close(self) -> None:
        pass

    def _say(self, requests: list[Request]) -> Iterator[Message]:
        yield from self._events(requests)
        yield Status.WORK_DONE
        yield Status.IDLE

    def _events(self, requests: list[Request]) -> Iterator[Event]:
        for request in requests:
            yield NodeStart(request.key)
            out = self.pool.directory / request.key
            out.mkdir()
            files = [self._write(out / name, request) for name in FILES[request.kind]]
            result = Result(figures={"seconds": 1.0, "examples": 16}, files=files)
            yield NodeEnd(request.key, result, str(out), "2026-01-01T00:00:00+00:00", 1.0, self.pool.where)

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
        pool = SimulatedPool(workers, where)
        with State.write(where / "state") as state:
            applier = Applier(plan, state, PoolExecutor(pool, pack=1), [])
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
        "longest_turn_seconds": pool.turn,
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
