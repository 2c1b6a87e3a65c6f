"""Which GPU each worker gets, and under whose name its results are recorded; the GPUs are a stand-in library's."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from apply_fixture import load

from lorafile.apply.executors.base import ExecutorCallbacks, Group, Phase
from lorafile.apply.executors.local import LocalPool
from lorafile.apply.executors.loop import Dispatcher, PoolExecutor
from lorafile.apply.executors.process import Worker
from lorafile.apply.work_groups import groups
from lorafile.apply.workers import default_workers, unused_workers
from lorafile.state import State

FAKE = Path(__file__).parents[1] / "fixtures" / "fake_nvml"
LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
EIGHT = tuple({"visible": str(n), "uuid": f"GPU-{n}", "name": "A" if n else "B", "memory": 1} for n in range(8))


def pool(tmp_path: Path, gpus: tuple[dict[str, Any], ...], workers: int) -> LocalPool:
    return LocalPool(tmp_path, workers, 1, 1, gpus)


def test_twelve_workers_share_eight_gpus_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafile.apply.executors.local.start_server", lambda *_: None)
    monkeypatch.setattr(Worker, "start", lambda *_: Worker(None, None))  # type: ignore[arg-type]
    twelve, workers = pool(tmp_path, EIGHT, 12), []
    for _ in range(12):
        workers.append(twelve.start(Phase(), workers, lambda: 0))
    counts = Counter(worker.gpu["visible"] for worker in workers if worker.gpu)
    assert sorted(counts.values()) == [1, 1, 1, 1, 2, 2, 2, 2]
    workers.remove(next(worker for worker in workers if worker.gpu["visible"] == "7"))
    again = twelve.start(Phase(), workers, lambda: 0)
    assert again is not None and again.gpu is not None
    assert again.gpu["visible"] == "7", "the one with the least to do"


def test_profiles_run_on_every_gpu_of_the_kind_that_they_are_stored_for(tmp_path: Path) -> None:
    alone = Phase(alone=True)
    assert pool(tmp_path, EIGHT[1:], 12).limit(alone) == 7
    mixed = pool(tmp_path, EIGHT, 12)
    assert (mixed.limit(alone), mixed._devices(alone)) == (1, [EIGHT[0]])
    assert pool(tmp_path, (), 12).limit(alone) == 1


def test_results_of_mixed_gpus_carry_the_name_of_their_own(spec_file: Path) -> None:
    """Two GPUs of two kinds, one worker on each; a second plan finds nothing in drift."""
    fake = [
        {"name": "Big", "uuid": "GPU-big", "memory": 80 * 2**30},
        {"name": "Small", "uuid": "GPU-small", "memory": 24 * 2**30},
    ]
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write('[[sweep]]\nname = "rank"\nlora.r = [1, 2, 3, 4]\ntrain.max_steps = [20]\n')
    environment = os.environ | {"FAKE_GPUS": json.dumps(fake), "PYTHONPATH": str(FAKE)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    where = ["--state", str(spec_file.parent / ".lora")]
    command = [*LORA, "apply", str(spec_file), "--yes", "--pack", "off", *where]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    attempts = [tries[-1] for tries in State.read(spec_file.parent / ".lora").latest().values()]
    trained = Counter(attempt.device for attempt in attempts if attempt.kind == "train")
    assert set(trained) == {"Big", "Small"}
    for attempt in attempts:
        if attempt.kind != "score":
            gpu = next(gpu for gpu in fake if gpu["name"] == attempt.device)
            assert (attempt.environment["device"], attempt.environment["device_memory"]) == (gpu["name"], gpu["memory"])
    again = subprocess.run(
        [*LORA, "plan", str(spec_file), "--json", *where], env=environment, capture_output=True, text=True
    )
    assert set(Counter(node["action"] for node in json.loads(again.stdout)["changes"])) == {"reuse"}


def test_a_processor_gets_no_more_workers_than_its_memory_holds(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load(spec_file).plan()
    largest = max(change.forecast["reserved_bytes"] for change in plan.work if "fits" in (change.forecast or {}))
    monkeypatch.setattr("lorafile.apply.workers.gpus", tuple)
    monkeypatch.setattr("lorafile.apply.workers.cores", lambda: 8)
    monkeypatch.setattr("lorafile.apply.workers.machine_memory", lambda: 100 * largest)
    assert default_workers(plan) == 8
    monkeypatch.setattr("lorafile.apply.workers.machine_memory", lambda: int(3.5 * largest))
    assert default_workers(plan) == 3
    monkeypatch.setattr("lorafile.apply.workers.machine_memory", lambda: largest // 2)
    assert default_workers(plan) == 1


def test_only_what_loads_a_spread_base_is_serial_and_workers_are_not_ignored_silently(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = spec_file.read_text(encoding="utf-8").replace("[data]", 'device_map = "auto"\n[data]')
    spec_file.write_text(text, encoding="utf-8")
    plan = load(spec_file).plan()
    assert not any(group.spread for group in groups(plan)), "without several GPUs there is nothing to spread over"
    assert not unused_workers(plan, 4)
    monkeypatch.setattr("lorafile.apply.work_groups.gpus", lambda: EIGHT)
    monkeypatch.setattr("lorafile.apply.workers.gpus", lambda: EIGHT)
    spread = Counter((plan.graph.nodes[group.keys[0]].kind, group.spread) for group in groups(plan))
    assert spread == {("prepare", False): 3, ("train", True): 2}
    assert default_workers(plan) == 1
    assert not unused_workers(plan, None)
    told = unused_workers(plan, 4)
    assert told.startswith("--workers 4 does not speed up 2 of the runs: model.device_map spreads their base over all")


def test_what_is_spread_runs_after_the_rest_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[list[Group], int]] = []
    monkeypatch.setattr(Dispatcher, "run", lambda self: ran.append((self.queue.waiting, self.limit)))
    plain, spread, profile = Group(("a",)), Group(("b",), spread=True), Group(("c",), alone=True)
    executor = PoolExecutor(pool(tmp_path, EIGHT, 12))
    executor.run([profile, spread, plain], ExecutorCallbacks(lambda _: [], lambda _: None, lambda: 0))
    assert [(waiting, limit) for waiting, limit in ran if waiting] == [([plain], 12), ([spread], 1), ([profile], 1)]
