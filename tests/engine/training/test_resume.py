"""Runs that are killed go on from their last checkpoint, and end with the very bytes of runs that were not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from engine_fixture import LORA, Engine, train
from methods_fixture import CASES

from lorafile import Study
from lorafile.engine.request import Stopped
from lorafile.files.run_directory import unfinished
from lorafile.graph.graph import GraphNode
from lorafile.plan.plan import Action, Plan
from lorafile.state import Attempt, State

STEPS = 90
EVERY = 7
LONG = f"""
[[sweep]]
name = "long"
train.max_steps = [{STEPS}]
"""
HARD = """
lora.lora_dropout = [0.2]
train.gradient_accumulation_steps = [2]
train.lr_scheduler_type = ["cosine"]
train.warmup_steps = [0.1]
train.per_device_train_batch_size = [3]
train.gradient_checkpointing = [true]
"""
OTHERS = f"""
[[sweep]]
name = "kinds"
configurations = [
  {{ name = "full", method = "full", train.max_steps = {STEPS}, full.learning_rate = 1e-3 }},
  {{ name = "bf16", train.bf16 = true, train.max_steps = {STEPS}, lora.lora_dropout = 0.1 }},
  {{ name = "fp16", train.fp16 = true, train.max_steps = {STEPS} }},
  {{ name = "8-bit", train.optim = "adamw_8bit", lora.r = 128, train.max_steps = {STEPS} }},
]
"""
MANY_SEEDS = ("seeds = [1, 2]", "seeds = [1, 2, 3, 4, 5]")
OFTEN = ("[evaluate]", f"save_steps = {EVERY}\n[evaluate]")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each worker one thread: threads that wait for each other on a busy machine take seconds for a step."""
    monkeypatch.setattr("lorafile.study.study.os.cpu_count", lambda: 1)


class Killer:
    """Kills the worker of each training run once, when the run has come to a step that was drawn for it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.points: dict[str, int] = {}
        self.killed: set[str] = set()
        self.notes: list[str] = []

    def on_node_start(self, node: GraphNode) -> None:
        self.points.setdefault(node.key, self.rng.randint(EVERY + 1, STEPS // 2))

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        self.notes += [progress["note"]] if "note" in progress else []
        if node.kind == "train" and node.key not in self.killed and progress.get("step", 0) >= self.points[node.key]:
            self.killed.add(node.key)
            os.kill(worker(), signal.SIGKILL)

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Nothing to do."""

    def on_stop(self, times: int) -> None:
        """Nothing to do."""

    def on_next_stage(self, plan: Plan) -> None:
        """Nothing to do."""


def worker() -> int:
    """Return the process id of the youngest worker: the fork server stands between it and us."""
    return max(pid for child in _children(os.getpid()) for pid in _children(child))


def _children(parent: int) -> list[int]:
    return [int(line) for line in subprocess.run(["pgrep", "-P", str(parent)], capture_output=True).stdout.split()]


def write(spec_file: Path, more: str, *changes: tuple[str, str]) -> None:
    text = spec_file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    spec_file.write_text(text + more, encoding="utf-8")


def weights(state: Path) -> dict[str, dict[str, str]]:
    """Return address -> file name -> digest of what each finished run left; its curve is one of the files."""
    return {
        attempts[-1].address: attempts[-1].outputs
        for attempts in State.read(state).latest().values()
        if attempts[-1].kind == "train" and attempts[-1].outcome == "done"
    }


def killed_and_not(spec_file: Path) -> tuple[list[Attempt], Killer]:
    """Apply a study twice, once with every run killed; check that both give the same bytes."""
    here = spec_file.parent
    Study.load(spec_file, here / "whole").apply(workers=1, pack="off")
    killer = Killer(int(os.environ.get("LORA_TEST_SEED", "0")))
    applied = Study.load(spec_file, here / "killed").apply(workers=1, pack="off", watchers=[killer])
    done = [attempt for attempt in applied.attempts if attempt.kind == "train" and attempt.outcome == "done"]
    assert weights(here / "killed") == weights(here / "whole")
    assert not list((here / "killed" / "running").iterdir()), "what is finished keeps no checkpoint"
    return done, killer


def test_five_kills_of_a_worker_at_different_steps_change_no_byte(spec_file: Path) -> None:
    write(spec_file, LONG + HARD, MANY_SEEDS, OFTEN)
    done, killer = killed_and_not(spec_file)
    assert len(done) == len(killer.killed) == 5
    for attempt in done:
        (step,) = attempt.figures["resumed_from"]
        assert step % EVERY == 0
        assert 0 < step < STEPS
        assert attempt.figures["steps"] == STEPS
        assert attempt.figures["seconds"] > attempt.figures["seconds_before"] > 0
    assert any(note.startswith("Resumes from step ") for note in killer.notes)


def test_full_fine_tuning_and_low_precision_go_on_to_the_bit_too(spec_file: Path) -> None:
    write(spec_file, OTHERS, ("seeds = [1, 2]", "seeds = [1]"), OFTEN)
    done, killer = killed_and_not(spec_file)
    assert len(killer.killed) == 4
    assert all(attempt.figures["resumed_from"] for attempt in done)


def test_a_killed_run_chooses_the_same_step(spec_file: Path) -> None:
    """The best weights so far are in the checkpoint, and the curve of the evaluations is one of the files."""
    evaluated = "eval_steps = 4\nload_best_model_at_end = true\nlr_scheduler_type = 'constant'"
    write(spec_file, LONG, ("seeds = [1, 2]", "seeds = [1, 2, 3]"), (OFTEN[0], f"{evaluated}\n{OFTEN[1]}"))
    done, killer = killed_and_not(spec_file)
    assert len(done) == len(killer.killed) == 3
    for attempt in done:
        assert attempt.figures["resumed_from"]
        assert attempt.figures["chosen_step"] == attempt.figures["best_step"]
        assert attempt.figures["evaluations"] == 23
        assert "validation.jsonl.gz" in attempt.outputs
    assert any(attempt.figures["best_step"] < attempt.figures["resumed_from"][0] for attempt in done)


def test_a_killed_apply_goes_on_where_it_was(spec_file: Path) -> None:
    """The apply itself is killed, alone or with its workers; the plan says from where it would go on."""
    write(spec_file, LONG.replace(str(STEPS), "400") + HARD, ("seeds = [1, 2]", "seeds = [1]"), OFTEN)
    here, rng = spec_file.parent, random.Random(int(os.environ.get("LORA_TEST_SEED", "0")))
    nodes = Study.load(spec_file, here / "killed").plan().graph.nodes
    (key,) = [key for key, node in nodes.items() if node.kind == "train"]
    running = State.read(here / "killed").running(key)
    for point, group in ((rng.randint(8, 60), True), (rng.randint(80, 140), False)):
        process = start(spec_file, here / "killed")
        wait_for(running, point, process)
        os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        process.wait()
        wait_for_end(running)
        plan = Study.load(spec_file, here / "killed").plan()
        change = next(change for change in plan.work if change.key == key)
        assert change.action is Action.RETRY
        assert "of 400" in change.reason
    whole = Study.load(spec_file, here / "whole").plan()
    forecast = {c.key: c.forecast["seconds"] for c in whole.work if c.forecast}
    assert change.forecast is not None
    assert change.forecast["seconds"] < 0.9 * forecast[key], "only the rest is counted"
    applied = Study.load(spec_file, here / "killed").apply(lock_timeout=60)
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    Study.load(spec_file, here / "whole").apply()
    assert weights(here / "killed") == weights(here / "whole")
    trained = next(attempt for attempt in applied.attempts if attempt.kind == "train")
    assert len(trained.figures["resumed_from"]) == 2
    assert trained.figures["resumed_from"] == sorted(trained.figures["resumed_from"])


def start(spec_file: Path, state: Path) -> "subprocess.Popen[bytes]":
    code = "from lorafile.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", code, "apply", str(spec_file), "--yes", "--state", str(state)]
    command += ["--workers", "64"]  # one thread for each
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(running: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        found = unfinished(running)
        if found is not None and found.checkpoint >= step:
            assert found.live
            return
        time.sleep(0.01)
    raise AssertionError(f"the apply did not come to step {step}")


def wait_for_end(running: Path) -> None:
    """Wait until a worker whose apply was killed has noticed that it is alone."""
    deadline = time.monotonic() + 60
    while (found := unfinished(running)) is not None and found.live:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_nobody(running: Path) -> None:
    """A worker whose apply was killed writes one more checkpoint before it ends."""
    deadline = time.monotonic() + 60
    while (found := unfinished(running)) is not None and found.live and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_run_that_is_stopped_keeps_its_last_step(spec_file: Path) -> None:
    """Without save_steps, and long before save_minutes: the checkpoint is written because of the stop."""
    write(spec_file, LONG.replace(str(STEPS), "300"), ("seeds = [1, 2]", "seeds = [1]"))

    class Stopper(Killer):
        def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
            if node.kind == "train" and node.key not in self.killed and progress["step"] >= 20:
                self.killed.add(node.key)
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    here = spec_file.parent
    applied = Study.load(spec_file, here / "killed").apply(workers=1, watchers=[Stopper(0)])
    (stopped,) = [attempt for attempt in applied.attempts if attempt.kind == "train"]
    assert (stopped.outcome, stopped.message) == ("interrupted", "Stopped on request.")
    found = unfinished(State.read(here / "killed").running(stopped.key))
    assert found is not None
    assert found.checkpoint == len(found.rows) >= 20
    assert not found.live
    again = Study.load(spec_file, here / "killed").apply()
    trained = next(attempt for attempt in again.attempts if attempt.kind == "train")
    assert trained.figures["resumed_from"] == [found.checkpoint]
    Study.load(spec_file, here / "whole").apply()
    assert weights(here / "killed") == weights(here / "whole")


def test_a_worker_that_the_system_ends_keeps_its_last_step(spec_file: Path) -> None:
    """SIGTERM, as a scheduler sends it: another worker goes on from there, in the same apply."""
    write(spec_file, LONG.replace(str(STEPS), "200"), ("seeds = [1, 2]", "seeds = [1]"))

    class Ender(Killer):
        def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
            if node.kind == "train" and node.key not in self.killed and progress.get("step", 0) >= 20:
                self.killed.add(node.key)
                os.kill(worker(), signal.SIGTERM)

    here = spec_file.parent
    applied = Study.load(spec_file, here / "killed").apply(workers=1, watchers=[Ender(0)])
    stopped, done = [attempt for attempt in applied.attempts if attempt.kind == "train"]
    assert (stopped.outcome, done.outcome) == ("interrupted", "done")
    (step,) = done.figures["resumed_from"]
    assert step >= 20
    Study.load(spec_file, here / "whole").apply()
    assert weights(here / "killed") == weights(here / "whole")


@pytest.mark.parametrize("damage", ["tensors", "manifest", "torn", "other run", "other torch"])
def test_a_checkpoint_is_never_trusted_blindly(spec_file: Path, damage: str) -> None:
    """A damaged or foreign one is said and ignored: the run begins anew and ends as it should."""
    from lorafile.files.run_directory import CHECKPOINT, read_manifest, write_manifest

    write(spec_file, LONG.replace(str(STEPS), "40"), ("seeds = [1, 2]", "seeds = [1]"), OFTEN)
    here = spec_file.parent
    state = here / "killed"
    killer = Killer(0)
    killer.points = dict.fromkeys([node.key for node in Study.load(spec_file, state).plan().graph.nodes.values()], 8)
    kept: dict[str, bytes] = {}

    def keep(node: GraphNode, progress: dict[str, Any]) -> None:
        running = State.read(state).running(node.key)
        found = unfinished(running) if node.kind == "train" else None
        if found and found.checkpoint and not kept:
            kept.update({file.name: file.read_bytes() for file in running.iterdir()})

    killer.on_node_progress = keep  # type: ignore[method-assign]
    applied = Study.load(spec_file, state).apply(workers=1, watchers=[killer])
    trained = next(attempt for attempt in applied.attempts if attempt.kind == "train")
    running = State.read(here / "again").running(trained.key)
    running.mkdir(parents=True)
    for name, content in kept.items():
        (running / name).write_bytes(content)
    file = next(running.glob("step-*"))
    if damage == "tensors":
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    elif damage == "manifest":
        text = (running / CHECKPOINT).read_text(encoding="utf-8")
        (running / CHECKPOINT).write_text(text.replace('\\"step\\": ', '\\"step\\": 1'), encoding="utf-8")
    elif damage == "torn":
        (running / CHECKPOINT).write_bytes(b"")
    else:
        about = read_manifest(running)
        changed = {"key": "f" * 64} if damage == "other run" else {"made_with": {**about["made_with"], "torch": "9.9"}}
        write_manifest(running, {**about, **changed})
    watch = Killer(0)
    watch.killed = {trained.key}
    again = Study.load(spec_file, here / "again").apply(workers=1, watchers=[watch])
    redone = next(attempt for attempt in again.attempts if attempt.kind == "train")
    assert redone.outcome == "done"
    assert "resumed_from" not in redone.figures
    assert redone.outputs == trained.outputs
    (note,) = redone.figures["notes"]
    assert "is not used: " in note
    assert "Training starts at step 1." in note
    assert note in watch.notes


def test_a_checkpoint_that_the_disk_does_not_give_back_is_not_taken_for_none(spec_file: Path) -> None:
    """The run does not begin anew: it fails with the file's name, and goes on when the disk is back."""
    from lorafile.files.run_directory import CHECKPOINT

    write(spec_file, LONG.replace(str(STEPS), "8"), ("seeds = [1, 2]", "seeds = [1]"))
    study = Study.load(spec_file, spec_file.parent / "state")
    key = next(node.key for node in study.plan().graph.nodes.values() if node.kind == "train")
    unreadable = State.read(study.state).running(key) / CHECKPOINT
    unreadable.mkdir(parents=True)
    (failed,) = [attempt for attempt in study.apply(workers=1).attempts if attempt.kind == "train"]
    assert failed.outcome == "failed"
    assert str(unreadable) in failed.message
    unreadable.rmdir()
    (trained,) = [attempt for attempt in study.apply(workers=1).attempts if attempt.kind == "train"]
    assert trained.outcome == "done"


@pytest.mark.sampled(6)
@pytest.mark.parametrize("adapter", [*CASES, pytest.param({**LORA, "loraplus": 4.0}, id="LoRA+")])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # PEFT's own
def test_every_method_and_every_beginning_goes_on_to_the_bit(
    engine: Engine,
    adapter: dict[str, Any],
) -> None:
    """Ranks that AdaLoRA took away, bases that an initialisation rewrites, rates of LoRA+."""
    prepared = engine.prepare()
    ratio = adapter.get("loraplus")
    adapter = {name: value for name, value in adapter.items() if name != "loraplus"}

    def stop(progress: dict[str, Any]) -> None:
        if progress.get("step") == 5:
            raise Stopped

    options: dict[str, Any] = {
        "adapter": adapter,
        "max_steps": 9,
        "lr_scheduler_type": "cosine",
        "loraplus_lr_ratio": ratio,
    }
    whole, expected = train(engine, prepared, "whole", **options)
    assert whole.outcome == "done", whole.message
    stopped, _ = train(engine, prepared, "stopped", stop, running="parts", **options)
    assert stopped.outcome == "interrupted"
    done, found = train(engine, prepared, "rest", running="parts", **options)
    assert done.outcome == "done", done.message
    assert done.figures["resumed_from"] == [5]
    assert "notes" in done.figures
    for name in ("adapter_model.safetensors", "adapter_config.json", "curve.jsonl.gz"):
        assert (found.parent / name).read_bytes() == (expected.parent / name).read_bytes(), name


def test_how_often_a_checkpoint_is_written_is_in_no_key(spec_file: Path) -> None:
    before = Study.load(spec_file).plan().graph.nodes.keys()
    write(spec_file, "", ("[evaluate]", "save_steps = 3\nsave_minutes = 0\nauto_find_batch_size = true\n[evaluate]"))
    assert Study.load(spec_file).plan().graph.nodes.keys() == before


def test_what_changes_no_result_cannot_vary(spec_file: Path) -> None:
    from lorafile.errors import SpecError

    write(spec_file, "[[sweep]]\ntrain.save_steps = [1, 2]\n")
    with pytest.raises(SpecError, match="controls how a run is carried out and does not affect results"):
        Study.load(spec_file)


def test_a_checkpoint_is_json_and_safetensors(spec_file: Path) -> None:
    """Nothing that would have to be unpickled."""
    from safetensors import safe_open

    write(spec_file, LONG.replace(str(STEPS), "30"), ("seeds = [1, 2]", "seeds = [1]"), OFTEN)
    seen: list[list[str]] = []

    def look(node: GraphNode, progress: dict[str, Any]) -> None:
        running = State.read(spec_file.parent / ".lora").running(node.key)
        if node.kind == "train" and (running / "checkpoint.json").exists():
            json.loads((running / "checkpoint.json").read_text(encoding="utf-8"))
            with safe_open(next(running.glob("step-*.safetensors")), "pt") as tensors:
                seen.append(sorted({name.split(".")[0] for name in tensors.keys()}))  # noqa: SIM118

    watch = Killer(0)
    watch.on_node_progress = look  # type: ignore[method-assign]
    Study.load(spec_file, spec_file.parent / ".lora").apply(workers=1, watchers=[watch])
    assert seen
    assert seen[-1] == ["model", "optimizer", "random"]
