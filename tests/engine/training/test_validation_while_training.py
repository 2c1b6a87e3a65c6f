"""Validation while a run trains: the right step is chosen, also by a resumed run, and training is not disturbed."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from engine_fixture import LORA, MODEL, Engine
from methods_fixture import CASES

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.request import Request, Result, Stopped
from lorafile.engine.run import run
from lorafile.files.jsonl import read_lines
from lorafile.specs.tables.train import EXECUTION, VALIDATION, TrainTable

LOSS = {"log_loss": {"version": 1}}
DROPOUT = {**LORA, "lora_dropout": 0.2}
# The second half of the rows, which is held out, has answers of its own: a fast rate soon makes them less likely.
FAST = {"learning_rate": 8e-2, "lr_scheduler_type": "constant"}
STEPS = 24
FILES = ("adapter_model.safetensors", "adapter_config.json", "curve.jsonl.gz", "validation.jsonl.gz")


class Splits:
    """The engine, sixteen rows to train on, and ten others."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.train = engine, engine.prepare()
        self.validation = engine.prepare(rows={"seed": None, "start": 30, "stop": 40})

    def run(
        self,
        name: str,
        validation: dict[str, Any] | None = None,
        report: Any = lambda progress: None,
        adapter: dict[str, Any] = DROPOUT,
        seed: int = 1,
        running: str = "",
        **training: Any,
    ) -> tuple[Result, Path]:
        """Train; a run with `running` keeps checkpoints."""
        table = TrainTable(**{"max_steps": 12, "per_device_train_batch_size": 4, **FAST, **training})
        settings: dict[str, Any] = {"model": MODEL, "quantization": None, "adapter": adapter, "seed": seed}
        settings["training"] = table.model_dump(exclude={*EXECUTION, *VALIDATION})
        inputs = {"train": self.train}
        if validation is not None:
            tasks = {"likelihood": {"output": "likelihood"}}
            defaults = {"max_eval_samples": 10, "metric_for_best_model": "log_loss", "metrics": LOSS, "tasks": tasks}
            settings["validation"] = {"eval_steps": 2, **defaults, **validation}
            inputs["validation"] = self.validation
        paths = {"model": str(self.engine.model), "model_name": "tiny"}
        paths |= {"checkpoint": str(self.engine.root / f"{running}-running")} if running else {}
        out = self.engine.root / name
        return run(Request("key", "train", "run", settings, paths, inputs), out, self.engine.bases, report), out


@pytest.fixture
def splits(engine: Engine) -> Splits:
    return Splits(engine)


def curve(out: Path) -> list[dict[str, Any]]:
    return list(read_lines(out / "validation.jsonl.gz"))


def plain_loss(model: Path, adapter: Path, prepared: dict[str, str]) -> float:
    """Return the mean loss of a supervised token: plain PEFT, and the loss that transformers computes itself."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(adapter)).eval()
    tokens, total, count = Tokens.load(prepared["tokens.safetensors"]), 0.0, 0
    for index in range(len(tokens)):
        ids, supervised = tokens.example(index)
        labels = ids.masked_fill(supervised == 0, -100)
        with torch.no_grad():
            loss = float(tuned(input_ids=ids[None], labels=labels[None]).loss)
        number = int((labels[1:] != -100).sum())
        total, count = total + loss * number, count + number
    return total / count


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses a name that transformers gave up
def test_the_chosen_step_is_that_of_the_lowest_loss_of_plain_peft_on_the_adapters_of_each_step(splits: Splits) -> None:
    """With a constant rate, the adapter of step n is that of a run of n steps."""
    done, out = splits.run("best", {"load_best_model_at_end": True})
    assert done.outcome == "done", done.message
    rows = curve(out)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    losses = {}
    for row in rows:
        step = row["step"]
        _, shorter = splits.run(f"until-{step}", max_steps=step)
        losses[step] = plain_loss(splits.engine.model, shorter, splits.validation)
        assert row["log_loss"] == pytest.approx(losses[step], rel=1e-5)
    best = min(losses, key=losses.__getitem__)
    assert best not in (2, 12), "neither the first nor the last step is a choice"
    assert (done.figures["best_step"], done.figures["chosen_step"]) == (best, best)
    assert done.figures["best_metric"] == pytest.approx(losses[best], rel=1e-5)
    assert done.figures["steps"] == 12
    chosen, expected = ((of / "adapter_model.safetensors").read_bytes() for of in (out, out.parent / f"until-{best}"))
    assert chosen == expected


@pytest.mark.sampled(6)
@pytest.mark.parametrize("adapter", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # PEFT's own
def test_evaluations_alone_change_no_byte_of_any_method(splits: Splits, adapter: dict[str, Any]) -> None:
    """Dropout, AdaLoRA's ranks, and methods that draw from the global generators."""
    plain, without = splits.run("plain", adapter=adapter, max_steps=5, learning_rate=1e-2)
    evaluated, out = splits.run("evaluated", {"eval_steps": 1}, adapter=adapter, max_steps=5, learning_rate=1e-2)
    assert (plain.outcome, evaluated.outcome) == ("done", "done"), evaluated.message
    for name in FILES[:3]:
        assert (out / name).read_bytes() == (without / name).read_bytes(), name
    assert len(curve(out)) == 5
    assert evaluated.figures["chosen_step"] == 5


@pytest.mark.sampled(6)
@pytest.mark.parametrize("adapter", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # PEFT's own
def test_what_is_stored_of_any_method_has_the_loss_of_the_best_step(splits: Splits, adapter: dict[str, Any]) -> None:
    """Ranks that AdaLoRA took away later, and bases that an initialisation rewrites, are those of that step."""
    options = {"adapter": adapter, "max_steps": 8, "learning_rate": 0.3, "max_grad_norm": 0.0}
    done, out = splits.run("best", {"eval_steps": 1, "load_best_model_at_end": True}, **options)
    assert done.outcome == "done", done.message
    files = {name: str(out / name) for name in done.files}
    rows = splits.engine.predict(splits.validation, files)
    loss = -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)
    assert loss == pytest.approx(done.figures["best_metric"], rel=1e-4)
    assert loss == pytest.approx(min(row["log_loss"] for row in curve(out)), rel=1e-4)


def test_a_schedule_free_run_is_evaluated_as_it_would_be_stored_and_trains_as_without(splits: Splits) -> None:
    """What it trains is not what it stores, an average: an evaluation exchanges the two, and back to the bit."""
    pytest.importorskip("schedulefree")
    options: dict[str, Any] = {"optim": "schedule_free_adamw", "max_steps": 8, "learning_rate": 1e-1}
    _, without = splits.run("plain", **options)
    _, with_curve = splits.run("evaluated", {"eval_steps": 1}, **options)
    assert (with_curve / FILES[0]).read_bytes() == (without / FILES[0]).read_bytes()
    best, out = splits.run("best", {"eval_steps": 1, "load_best_model_at_end": True}, **options)
    rows = splits.engine.predict(splits.validation, {name: str(out / name) for name in best.files})
    loss = -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)
    assert loss == pytest.approx(min(row["log_loss"] for row in curve(out)), rel=1e-5)


def test_full_fine_tuning_keeps_the_weights_of_its_best_step(splits: Splits) -> None:
    options = {"adapter": {"method": "full"}, "learning_rate": 5e-2}
    done, out = splits.run("best", {"load_best_model_at_end": True}, **options)
    assert done.outcome == "done", done.message
    best = done.figures["best_step"]
    assert best < 12
    _, shorter = splits.run("shorter", max_steps=best, **options)
    assert (out / "model.safetensors").read_bytes() == (shorter / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("patience", "threshold"), [(1, 0.0), (2, 0.0), (3, 0.0), (1, 0.05), (2, 0.2)])
def test_training_stops_where_the_callback_of_transformers_would(
    splits: Splits, patience: int, threshold: float
) -> None:
    from transformers import EarlyStoppingCallback, TrainerControl

    _, whole = splits.run("whole", {"eval_steps": 1}, max_steps=STEPS)
    callback, control, best = EarlyStoppingCallback(patience, threshold), TrainerControl(), None
    arguments: Any = SimpleNamespace(metric_for_best_model="log_loss", greater_is_better=False)
    for row in curve(whole):
        state: Any = SimpleNamespace(best_metric=best)
        callback.on_evaluate(arguments, state, control, metrics={"eval_log_loss": row["log_loss"]})
        best = min(row["log_loss"], math.inf if best is None else best)
        if control.should_training_stop:
            break
    assert row["step"] < STEPS, "it would not have stopped"
    early = {"eval_steps": 1, "early_stopping_patience": patience, "early_stopping_threshold": threshold}
    done, out = splits.run("stopped", early, max_steps=STEPS)
    assert (done.figures["steps"], done.figures["ended_by"]) == (row["step"], "early stopping")
    assert done.figures["chosen_step"] == row["step"]
    assert curve(out) == curve(whole)[: row["step"]]


def test_a_run_that_is_stopped_goes_on_to_the_same_choice_and_the_same_bytes(splits: Splits) -> None:
    """After the best step, whose weights are in the checkpoint; and in an evaluation, which is then made again."""
    settings = {"load_best_model_at_end": True, "early_stopping_patience": 4}
    expected, whole = splits.run("whole", settings)
    best, steps = expected.figures["best_step"], expected.figures["steps"]
    assert best + 2 < steps

    def stop_at(step: int) -> Any:
        def report(progress: dict[str, Any]) -> None:
            if progress.get("step") == step:
                raise Stopped

        return report

    def stop_in_evaluation_of(step: int) -> Any:
        seen: list[int] = []

        def report(progress: dict[str, Any]) -> None:
            seen.extend([progress["step"]] if "step" in progress else [])
            if seen[-1:] == [step] and "step" not in progress:
                raise Stopped

        return report

    points = [
        stop_at(1),
        stop_in_evaluation_of(best),
        stop_at(best + 1),
        stop_in_evaluation_of(best + 2),
        stop_at(steps),
    ]
    for number, point in enumerate(points):
        stopped, _ = splits.run(f"part-{number}", settings, point, running="parts")
        assert stopped.outcome == "interrupted", (number, stopped.message)
    done, out = splits.run("rest", settings, running="parts")
    assert done.outcome == "done", done.message
    assert done.figures["resumed_from"] == [1, best, best + 1, best + 2, steps]
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    same = ("best_step", "best_metric", "chosen_step", "ended_by", "steps", "evaluations")
    assert {name: done.figures[name] for name in same} == {name: expected.figures[name] for name in same}


def test_only_the_first_rows_are_read_and_the_last_step_is_always_evaluated(splits: Splits) -> None:
    done, out = splits.run("few", {"eval_steps": 5, "max_eval_samples": 3})
    rows = curve(out)
    assert [row["step"] for row in rows] == [5, 10, 12]
    files = {name: str(out / name) for name in done.files}
    first = splits.engine.predict(splits.validation, files)[:3]
    loss = -sum(row["log_likelihood"] for row in first) / sum(row["tokens"] for row in first)
    assert rows[-1]["log_loss"] == pytest.approx(loss, rel=1e-6)


def test_a_generated_metric_decides_where_the_spec_says_so(splits: Splits) -> None:
    """Answers are those of a `predict` node; of equal values the earliest step is the best, as in transformers."""
    tasks = {"likelihood": {"output": "likelihood"}, "generation": {"output": "generation", "max_new_tokens": 3}}
    metrics = {**LOSS, "exact_match": {"version": 1}}
    settings = {"metrics": metrics, "tasks": tasks, "metric_for_best_model": "exact_match"}
    done, out = splits.run("generated", {**settings, "load_best_model_at_end": True}, max_steps=40, learning_rate=1e-2)
    assert done.outcome == "done", done.message
    rows = curve(out)
    values = [row["exact_match"] for row in rows]
    assert max(values) > 0
    assert done.figures["best_step"] == rows[values.index(max(values))]["step"]
    files = {name: str(out / name) for name in done.files}
    answers = splits.engine.predict(splits.validation, files, "generation")
    hits = sum(row["answer"].strip() == row["reference"].strip() for row in answers)
    assert hits / len(answers) == max(values)


def test_a_loss_on_validation_that_is_no_number_is_divergence(splits: Splits) -> None:
    done, out = splits.run("diverged", {"eval_steps": 1}, learning_rate=3e38, max_grad_norm=0.0)
    assert done.outcome == "diverged"
    assert done.figures["ended_by"] == "divergence"
    assert "chosen_step" not in done.figures
    assert json.dumps(curve(out))


@pytest.mark.parametrize("adapter", [LORA, {**LORA, "init_lora_weights": "gaussian", "use_dora": True}])
def test_a_seed_for_the_initialization_decides_that_alone(splits: Splits, adapter: dict[str, Any]) -> None:
    """B begins at zero: A has no gradient in the first step, and the first loss is the base's on the first batch."""
    from safetensors.torch import load_file

    def first(seed: int, **more: Any) -> tuple[dict[str, Any], float]:
        name = f"{seed}-{more.get('init_seed')}"
        _, out = splits.run(name, seed=seed, adapter=adapter, max_steps=1, learning_rate=1e-3, **more)
        tensors = load_file(out / "adapter_model.safetensors")
        (row,) = read_lines(out / "curve.jsonl.gz")
        return {name: tensor for name, tensor in tensors.items() if "lora_A" in name}, row["loss"]

    def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    runs = {(seed, start): first(seed, init_seed=start) for seed in (1, 2) for start in (7, 8)}
    assert equal(runs[1, 7][0], runs[2, 7][0])
    assert equal(runs[1, 8][0], runs[2, 8][0])
    assert not equal(runs[1, 7][0], runs[1, 8][0])
    assert runs[1, 7][1] == runs[1, 8][1] != runs[2, 7][1] == runs[2, 8][1]
    assert equal(first(1)[0], first(1, init_seed=1)[0]), "unset, it is the run's own"
