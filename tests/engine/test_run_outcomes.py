"""Runs that cannot end well are outcomes with a sentence, and the rest of the study goes on."""

import json
import math
import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import (  # noqa: E402
    Engine,
    train,
)
from safetensors.torch import load_file  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.analysis.registry import analyses  # noqa: E402
from lorafile.engine.model.base import Bases  # noqa: E402
from lorafile.engine.request import Stopped  # noqa: E402
from lorafile.engine.training.curve import Curve  # noqa: E402
from lorafile.errors import NodeError  # noqa: E402
from lorafile.plan.plan import Action  # noqa: E402
from lorafile.report.writer import write_report  # noqa: E402
from lorafile.state import Attempt, Node, State  # noqa: E402

TOO_MUCH = 2**28  # a rank whose smallest factor is 64 GB
LIMIT = 24 << 30  # bytes of address space; more than torch needs, less than that factor
UNHEALTHY = """
[[sweep]]
name = "some"
configurations = [
  {{ name = "healthy", lora.r = 4 }},
  {{ name = "wild", train.learning_rate = 1e30, train.max_steps = 60 }},
  {{ name = "large", lora.r = {rank} }},
{more}]
"""


def lora(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process whose memory, and whose workers' memory, is limited."""
    command = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()", *map(str, arguments)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))  # noqa: E731
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, preexec_fn=limit)


def test_nan_no_memory_and_no_answers_are_outcomes_and_the_healthy_run_is_reported(spec_file: Path) -> None:
    here = spec_file.parent
    empty = here / "empty.jsonl"
    rows = [json.dumps({"prompt": f"where is {n} ?", "completion": ""}) + "\n" for n in range(40)]
    empty.write_text("".join(rows), encoding="utf-8")
    text = spec_file.read_text(encoding="utf-8").replace("seeds = [1, 2]", "seeds = [1]")
    spec_file.write_text(text + UNHEALTHY.format(rank=TOO_MUCH, more=""), encoding="utf-8")
    done = lora("apply", "--yes", "--workers", "64", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "diverged: some/wild/seed=1:train: Training diverged: the loss was no longer a number at step" in done.stdout
    assert "train.learning_rate = 1e+30 is likely too high" in done.stdout
    assert "out-of-memory: some/large/seed=1:train: The device does not have enough memory" in done.stdout
    assert "train.gradient_checkpointing = true, or train.auto_find_batch_size = true." in done.stdout
    more = f'  {{ name = "empty", data.path = "{empty}" }},\n'
    spec_file.write_text(text + UNHEALTHY.format(rank=TOO_MUCH, more=more), encoding="utf-8")
    failed = lora("apply", "--yes", "--workers", "64", cwd=here)
    assert failed.returncode == 1, "a failed node is no result"
    assert "no token of the train split" in failed.stdout
    assert "are the completions empty?" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    results = Study.load(spec_file, here / ".lora").gather()
    outcomes = dict(zip(results.runs["configuration"], results.runs["outcome"], strict=True))
    assert outcomes == {
        "some/healthy": "done",
        "some/wild": "diverged",
        "some/large": "out-of-memory",
        "some/empty": "failed",
    }
    assert all(results.runs.loc[results.runs["outcome"] != "done", "message"].str.endswith((".", "?", "short")))
    scored = results.runs.set_index("configuration")["test.log_loss"]
    assert math.isfinite(scored["some/healthy"])
    assert scored.drop("some/healthy").isna().all(), "nothing that failed is in an average"
    write_report(results, analyses(results, []), here / "report")
    told = (here / "report" / "RESULTS.md").read_text(encoding="utf-8")
    for words in (
        "1 of 4 runs diverged",
        "1 of 4 runs ran out of memory",
        "1 of 4 runs have no result yet",
        "are the completions empty?",
        "is likely too high",
        "auto_find_batch_size = true",
    ):
        assert words in told


@pytest.fixture
def memory() -> Iterator[list[int]]:
    """A device that holds `memory[0]` examples at a time, from the forward pass `memory[1]` on: else torch's error."""
    room = [10**9, 0]

    def check(module: Any, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding):
            room[1] -= 1
            if room[1] < 0 and len(inputs[0]) > room[0]:
                raise torch.OutOfMemoryError(f"tried to allocate {len(inputs[0])} examples")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(check)
    yield room
    hook.remove()


def assert_close(one: Path, other: Path) -> None:
    expected = load_file(other)
    for name, tensor in load_file(one).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-4)


def test_without_the_fallback_out_of_memory_names_the_remedy(engine: Engine, memory: list[int]) -> None:
    memory[0] = 3
    done, _ = train(engine, engine.prepare(), "one")
    assert done.outcome == "out-of-memory"
    assert "tried to allocate 8 examples" in done.message
    for word in ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "auto_find"):
        assert word in done.message


def test_smaller_micro_batches_give_the_same_weights(engine: Engine, memory: list[int]) -> None:
    """Answers differ in length: parts of 2 must step as batches of 8 do."""
    prepared = engine.prepare()
    whole, expected = train(engine, prepared, "whole", gradient_accumulation_steps=2)
    memory[0] = 3
    notes: list[str] = []
    cut, found = train(
        engine,
        prepared,
        "cut",
        lambda progress: notes.append(progress.get("note", "")),
        gradient_accumulation_steps=2,
        auto_find_batch_size=True,
    )
    assert (whole.outcome, cut.outcome) == ("done", "done")
    assert cut.figures["micro_batch_split"] == 4
    assert "micro_batch_split" not in whole.figures
    assert (cut.figures["tokens"], cut.figures["steps"]) == (whole.figures["tokens"], whole.figures["steps"])
    assert "8 examples at a time did not fit into memory; training continues with 4." in notes
    assert_close(found, expected)


def test_out_of_memory_late_in_a_run_costs_the_steps_since_the_last_checkpoint(
    engine: Engine, memory: list[int]
) -> None:
    prepared = engine.prepare()
    _, expected = train(engine, prepared, "whole")
    memory[:] = [4, 5]
    done, found = train(engine, prepared, "late", auto_find_batch_size=True, save_steps=2)
    assert done.outcome == "done", done.message
    assert done.figures["resumed_from"] == [4]
    assert done.figures["micro_batch_split"] == 2
    assert_close(found, expected)


def test_where_not_even_one_example_fits_it_is_said(engine: Engine, memory: list[int]) -> None:
    memory[0] = 0
    done, _ = train(engine, engine.prepare(), "none", auto_find_batch_size=True)
    assert done.outcome == "out-of-memory"
    assert "Not even one example at a time fits" in done.message


def test_switching_the_fallback_on_tries_again(spec_file: Path) -> None:
    state = spec_file.parent / ".lora"
    (node, *_) = [node for node in Study.load(spec_file, state).plan().graph.nodes.values() if node.kind == "train"]
    with State.write(state) as store:
        lost = Attempt(node.key, "train", "out-of-memory", figures={"auto_find_batch_size": False})
        store.record(Node(node.key, node.kind, 1, node.settings, node.inputs), lost, {})
    change = next(change for change in Study.load(spec_file, state).plan().changes if change.key == node.key)
    assert change.action is Action.REUSE
    text = spec_file.read_text(encoding="utf-8").replace("[evaluate]", "auto_find_batch_size = true\n[evaluate]")
    spec_file.write_text(text, encoding="utf-8")
    change = next(change for change in Study.load(spec_file, state).plan().changes if change.key == node.key)
    assert (change.action, "which is now on" in change.reason) == (Action.RETRY, True)


def test_runs_with_smaller_micro_batches_are_named_first_in_the_report(spec_file: Path) -> None:
    study = Study.load(spec_file, spec_file.parent / ".lora")
    (node, *_) = [node for node in study.plan().graph.nodes.values() if node.kind == "train"]
    with State.write(spec_file.parent / ".lora") as store:
        done = Attempt(node.key, "train", "done", figures={"micro_batch_split": 2, "final_loss": 1.0})
        store.record(Node(node.key, node.kind, 1, node.settings, node.inputs), done, {})
    warnings = study.gather().warnings
    assert any("1 run used smaller micro-batches after running out of memory" in warning for warning in warnings)


@pytest.mark.parametrize("failure", ["exception", "stop", "node error", "memory"])
def test_a_run_that_fails_leaves_nothing_to_the_next(engine: Engine, failure: str, memory: list[int]) -> None:
    """The base is shared: after a failure in the middle, the next run gives the bytes of a fresh process."""
    prepared = engine.prepare()
    errors = {"exception": RuntimeError("boom"), "stop": Stopped(), "node error": NodeError("no")}

    def fail(progress: dict[str, Any]) -> None:
        if progress.get("step") == 3 and failure in errors:
            raise errors[failure]

    memory[:] = [0 if failure == "memory" else 10**9, 3]
    failed, _ = train(engine, prepared, "failed", fail)
    assert failed.outcome == {"stop": "interrupted", "memory": "out-of-memory"}.get(failure, "failed")
    memory[0] = 10**9
    done, found = train(engine, prepared, "next")
    assert done.outcome == "done"
    assert found.read_bytes() == _fresh(str(engine.model), str(engine.rows), str(engine.root), prepared)


def _fresh(*about: Any) -> bytes:
    """Train once in a process that has done nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_train_alone, (torch.get_num_threads(), *about))


def _train_alone(threads: int, model: str, rows: str, root: str, prepared: dict[str, str]) -> bytes:
    torch.set_num_threads(threads)
    engine = Engine(Path(model), Path(rows), Path(root) / "fresh")
    engine.bases = Bases()
    done, found = train(engine, prepared, "run")
    assert done.outcome == "done", done.message
    return found.read_bytes()


@pytest.mark.parametrize(
    ("step", "loss", "norm", "fp16", "dtype", "words"),
    [
        (1, math.nan, 1.0, False, "float32", "check its weights and dtype"),
        (1, math.inf, 1.0, True, "float32", "train.fp16 overflow above 65504, bfloat16 does not"),
        (1, 2.0, math.nan, False, "float16", "float16 weights overflow"),
        (5, math.nan, 1.0, False, "float32", "train.learning_rate = 0.5 is likely too high"),
        (5, math.nan, math.nan, True, "float32", "train.fp16 overflow"),
        (5, 2.0, math.inf, True, "float32", ""),
    ],
)
def test_what_is_no_number_is_told_with_its_likely_cause(
    step: int, loss: float, norm: float, fp16: bool, dtype: str, words: str
) -> None:
    rows = [{"step": n, "loss": 3.0, "grad_norm": 1.0} for n in range(1, step)]
    curve = Curve([*rows, {"step": step, "loss": loss, "grad_norm": norm}])
    told = curve.diverged(math.log(100), {"fp16": fp16, "learning_rate": 0.5}, dtype)
    assert words in told
    assert bool(told) is bool(words)
    assert not told or f"at step {step}" in told
