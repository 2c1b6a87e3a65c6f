"""Runs that start from another run's adapter: they begin where it ended, as plain PEFT computes it, and then train."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine, train  # noqa: E402
from methods_fixture import METHODS, OTHERS, plain_logits  # noqa: E402
from pack_runs_fixture import Runs, assert_agree  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.model.adapters import new_adapter  # noqa: E402
from lorafile.engine.request import Request, Stopped  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.specs.tables.train import TrainTable  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning", ":RuntimeWarning")
]
TENSORS = "adapter_model.safetensors"
# Adapters whose run another run of the same settings can start from. AdaLoRA cannot be one: its ranks are given up.
SAME: dict[str, dict[str, Any]] = {
    **{name: {"method": name, **settings} for name, settings in METHODS.items() if name != "adalora"},
    **{name: {**LORA, **settings} for name, settings in OTHERS.items() if "pissa" not in name and "olora" not in name},
    "mica": {**LORA, "init_lora_weights": "mica"},
}
PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}}
# A beginning that rewrites the base is stored as a plain LoRA of twice the rank: (the run, what starts from it).
REWRITTEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "eva, whose ranks stay": (
        {"init_lora_weights": "eva", "eva_config": {"rho": 1.0, "tau": 0.9, "use_label_mask": False}},
        {},
    ),
    "pissa": ({"init_lora_weights": "pissa"}, {"r": 8, "lora_alpha": 16}),
    "olora, dora": ({"init_lora_weights": "olora", "use_dora": True}, {"r": 8, "lora_alpha": 16, "use_dora": True}),
    "pissa, rslora, patterns": (
        {"init_lora_weights": "pissa", "use_rslora": True, **PATTERNS},
        {
            **{"r": 8, "lora_alpha": 8 * 2**0.5, "use_rslora": True},
            **{"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"down_proj": 3 * 2**0.5}},
        },
    ),
}


def first_likelihoods(
    engine: Engine, adapter: dict[str, Any], prepared: dict[str, str], start: dict[str, str]
) -> list[float]:
    """Return the log likelihood of each answer before the first step of a run."""
    settings = {"model": MODEL, "quantization": None, "adapter": adapter, "seed": 3}
    paths = {"model": str(engine.model), "model_name": "tiny"}
    request = Request("key", "train", "run", settings, paths, {"train": prepared, "start": start})
    tokens = Tokens.load(prepared["tokens.safetensors"])
    likelihoods = []
    with engine.bases.proven(settings, paths) as base, new_adapter(base, request, tokens, 1) as model, torch.no_grad():
        model.eval()
        for index in range(len(tokens)):
            batch = base.collate(tokens, [index])
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0]
            wanted = batch.supervised[0, 1:].nonzero().flatten()
            ends = logits[len(logits) - batch.input_ids.shape[1] :].log_softmax(-1)
            likelihoods.append(float(ends[wanted, batch.input_ids[0, wanted + 1]].sum()))
    return likelihoods


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", SAME)
def test_it_begins_where_the_other_run_ended(engine: Engine, name: str) -> None:
    _begins_there(engine, SAME[name], SAME[name])


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_rewrote_the_base_is_a_start_as_it_is_stored(engine: Engine, name: str) -> None:
    before, after = REWRITTEN[name]
    _begins_there(engine, {**LORA, **before}, {**LORA, **after})


def _begins_there(engine: Engine, adapter: dict[str, Any], then: dict[str, Any]) -> None:
    prepared = engine.prepare()
    done, start = engine.train(prepared, adapter, max_steps=4)
    assert done.outcome == "done", done.message
    ended = plain_logits(engine.model, Path(start[TENSORS]).parent, prepared)
    assert first_likelihoods(engine, then, prepared, start) == pytest.approx(ended, abs=1e-4)
    done, files = engine.train(prepared, then, start=start, max_steps=8)
    assert done.outcome == "done", done.message
    again = engine.train(prepared, then, start=start, max_steps=8)[1]
    assert Path(files[TENSORS]).read_bytes() == Path(again[TENSORS]).read_bytes()
    after = plain_logits(engine.model, Path(files[TENSORS]).parent, prepared)
    assert sum(after) > sum(ended), "it learned on"


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_on_a_quantized_base(engine: Engine, quantization: str) -> None:
    prepared = engine.prepare()
    _, start = engine.train(prepared, quantization=quantization)
    done, files = engine.train(prepared, quantization=quantization, start=start, learning_rate=1e-12, max_steps=1)
    assert done.outcome == "done", done.message
    before, after = (engine.predict(prepared, each, quantization=quantization) for each in (start, files))
    assert [row["log_likelihood"] for row in before] == pytest.approx(
        [row["log_likelihood"] for row in after], abs=1e-5
    )


def test_a_whole_model_goes_on_too(engine: Engine) -> None:
    prepared = engine.prepare()
    full = {"method": "full"}
    _, start = engine.train(prepared, full, learning_rate=1e-3)
    done, files = engine.train(prepared, full, start=start, learning_rate=1e-12, max_steps=1)
    assert done.outcome == "done", done.message
    before, after = (load_file(each["model.safetensors"]) for each in (start, files))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)


def test_an_adapter_of_another_shape_is_refused_in_a_sentence(engine: Engine) -> None:
    prepared = engine.prepare()
    _, start = engine.train(prepared, {**LORA, "r": 2})
    done, _ = engine.train(prepared, LORA, start=start)
    assert done.outcome == "failed"
    assert "does not match this model: size mismatch" in done.message
    _, start = engine.train(prepared, {**LORA, "target_modules": ["q_proj"]})
    done, _ = engine.train(prepared, LORA, start=start)
    assert done.outcome == "failed"
    assert "which the adapter does not have" in done.message


def test_together_they_train_as_alone(engine: Engine) -> None:
    """A start is another initial matrix, also next to a run that begins anew."""
    runs = Runs(engine)
    start = {file.name: str(file) for file in runs.alone({"max_steps": 5})[1].iterdir()}
    mix: list[dict[str, Any]] = [{"start": start}, {"seed": 2}, {"start": start, "adapter": {"lora_dropout": 0.1}}]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))


def test_it_resumes_to_the_bit_and_only_from_the_same_start(engine: Engine) -> None:
    prepared = engine.prepare()
    adapter = {**LORA, "lora_dropout": 0.1}
    starts = [engine.train(prepared, adapter, seed=seed)[1] for seed in (5, 6)]
    whole = [train(engine, prepared, f"whole{n}", adapter=adapter, start=start)[1] for n, start in enumerate(starts)]

    def stop(progress: dict[str, Any]) -> None:
        if progress.get("step") == 3:
            raise Stopped

    for n, start in enumerate(starts):
        more = {"adapter": adapter, "running": f"stopped{n}"}
        assert train(engine, prepared, f"stopped{n}", stop, start=starts[0], **more)[0].outcome == "interrupted"
        done, file = train(engine, prepared, f"resumed{n}", start=start, **more)
        assert file.read_bytes() == whole[n].read_bytes()
        assert ("resumed_from" in done.figures) == (start is starts[0]), done.figures


CLASSES = ["negative", "positive", "neither"]


def test_a_head_for_other_classes_is_drawn_anew(tmp_path: Path, tiny_model: Path) -> None:
    """RoBERTa's MRPC from MNLI: the adapter goes on, the classes are others."""
    rows = [{"text": f"{['paris', 'rome', 'oslo'][n % 3]} number {n}", "label": n % 3} for n in range(12)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    engine = Engine(tiny_model, file, tmp_path)
    data = {"format": "classification", "task_type": "SEQ_CLS", "max_length": 64}
    prepared = engine.prepare(12, **data, labels=[[str(n), name] for n, name in enumerate(CLASSES)])
    model = {**MODEL, "task_type": "SEQ_CLS", "labels": CLASSES, "head": "new"}

    def trained(rate: float, start: dict[str, str] | None = None, head: str = "") -> dict[str, str]:
        table = TrainTable(max_steps=1, learning_rate=rate, per_device_train_batch_size=4).model_dump()
        settings = {"model": model, "quantization": None, "adapter": LORA, "training": table, "seed": 1}
        settings |= {"start": {"head": head}} if head else {}
        inputs = {"train": prepared, **({"start": start} if start else {})}
        done, files = engine.run("train", settings, inputs)
        assert done.outcome == "done", done.message
        return files

    source = trained(1e-2)
    runs = {"anew": trained(1e-12), "source": source}
    runs |= {"kept": trained(1e-12, source), "other": trained(1e-12, source, "new")}
    tensors = {name: load_file(files[TENSORS]) for name, files in runs.items()}
    for name in tensors["source"]:
        expected = tensors["anew" if "score" in name else "source"][name]
        torch.testing.assert_close(tensors["other"][name], expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(tensors["kept"][name], tensors["source"][name], rtol=0, atol=1e-9)
    head = next(name for name in tensors["anew"] if "score" in name)
    assert not torch.equal(tensors["anew"][head], tensors["source"][head])


def test_the_curve_begins_where_the_other_ended(engine: Engine) -> None:
    """Over the same examples, in the same order, without dropout: the next loss is one of a trained model."""
    prepared = engine.prepare()
    _, start = engine.train(prepared, max_steps=8)
    _, files = engine.train(prepared, start=start, max_steps=2)
    _, anew = engine.train(prepared, max_steps=2)
    losses = [next(iter(read_lines(each["curve.jsonl.gz"])))["loss"] for each in (files, anew)]
    assert losses[0] < losses[1]
