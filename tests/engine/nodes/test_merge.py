"""Merging: what is measured is what is exported, the shared base stays, and the gate is held against stored figures."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import MODEL, Engine, train_of_known_rank  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.analysis.registry import analyses  # noqa: E402
from lorafile.engine.model.base import fingerprint  # noqa: E402
from lorafile.engine.nodes import merge as merge_node  # noqa: E402
from lorafile.engine.nodes.merge import merged  # noqa: E402
from lorafile.results.merging import gate_failures  # noqa: E402
from lorafile.specs.configurations import quantization_settings  # noqa: E402
from lorafile.specs.tables.settings import MergeTable  # noqa: E402
from lorafile.specs.tables.train import TrainTable  # noqa: E402

HALF = {**MODEL, "dtype": "bfloat16"}
LORA = {"method": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}


def merge(engine: Engine, adapter: dict[str, str], dtype: str, quantization: str = "none") -> Any:
    settings = {"model": MODEL, "quantization": quantization_settings(quantization)}
    settings["merging"] = {"dtype": dtype, "examples": 6}
    done, _ = engine.run("merge", settings, {"adapter": adapter, "data": engine.prepare()})
    assert done.outcome == "done", done.message
    return done.figures


@pytest.mark.parametrize(
    "adapter", [LORA, {**LORA, "use_dora": True}, {**LORA, "use_rslora": True}], ids=["lora", "dora", "rslora"]
)
def test_float32_is_the_same_model_and_halves_are_near(engine: Engine, adapter: dict[str, Any]) -> None:
    _, files = engine.train(engine.prepare(), adapter, learning_rate=3e-2)
    exact, half = merge(engine, files, "float32"), merge(engine, files, "bfloat16")
    assert exact["max_logit_difference"] < 1e-4
    assert exact["argmax_agreement"] == 1
    assert abs(exact["log_loss_difference"]) < 1e-5
    assert exact["max_logit_difference"] < half["max_logit_difference"] < 0.1
    assert merge(engine, files, "float16")["max_logit_difference"] < half["max_logit_difference"]


def test_the_figures_are_those_of_plain_transformers(engine: Engine) -> None:
    """The same two models, made by PEFT's own calls, and the same loss by transformers' own."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lorafile.engine.batching.batches import by_length, collate
    from lorafile.engine.batching.tokens import Tokens
    from lorafile.engine.model.adapters import peft_errors

    files = train_of_known_rank(engine)
    found = merge(engine, files, "bfloat16")
    tokens = Tokens.load(engine.prepare()["tokens.safetensors"])
    batch = collate(tokens, by_length(tokens.lengths()[:6], 16)[0], 3, torch.device("cpu"))
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    with peft_errors():
        attached = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(engine.model), Path(files["adapter_config.json"]).parent
        )
        whole = attached(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels)
        merged = attached.merge_and_unload().bfloat16()
    half = merged(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
    kept = batch.supervised[:, 1:]
    apart = (whole.logits[:, :-1][kept] - half[:, :-1][kept]).abs()
    assert found["tokens"] == int(kept.sum())
    assert found["log_loss_attached"] == pytest.approx(whole.loss.item(), abs=1e-5)
    assert found["max_logit_difference"] == pytest.approx(float(apart.max()), rel=0.3)
    assert found["mean_logit_difference"] == pytest.approx(float(apart.mean()), rel=0.2)


@pytest.fixture(scope="module")
def texts(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine with texts long enough that sums fall differently in another batch."""
    words, draw = ["paris", "london", "rome", "oslo", "lima", "cairo", "anna", "lives", "in"], random.Random(1)
    file = tmp_path_factory.mktemp("texts") / "rows.jsonl"
    rows = [{"prompt": "where ?", "completion": " ".join(draw.choices(words, k=20 + n))} for n in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Engine(tiny_model, file, tmp_path_factory.mktemp("half"))


@pytest.fixture(scope="module")
def half(texts: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """The prepared texts, and a LoRA that was trained on them over a base in bfloat16."""
    prepared = texts.prepare(60, max_length=128)
    training = TrainTable(max_steps=8, learning_rate=1e-2, per_device_train_batch_size=16).model_dump()
    adapter = {"method": "lora", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    settings = {"model": HALF, "quantization": None, "adapter": adapter, "training": training, "seed": 1}
    done, files = texts.run("train", settings, {"train": prepared})
    assert done.outcome == "done", done.message
    return prepared, files


def half_merged(texts: Engine, half: tuple[dict[str, str], dict[str, str]], dtype: str = "bfloat16") -> Any:
    settings = {"model": HALF, "quantization": None, "merging": {"dtype": dtype, "examples": 60}}
    done, _ = texts.run("merge", settings, {"adapter": half[1], "data": half[0]})
    assert done.outcome == "done", done.message
    if dtype == "bfloat16" and done.figures["batch_moved_tokens"] < 20:
        pytest.skip("on this processor another batch moves next to no logit of so small a model")
    return done.figures


def test_an_ordinary_merge_in_half_precision_is_no_more_than_rounding(texts: Engine, half: Any) -> None:
    for dtype in ("bfloat16", "float16", "float32"):
        figures = half_merged(texts, half, dtype)
        assert gate_failures(figures, MergeTable()) == []
        assert figures["batch_moved_tokens"] >= 20, "else the declared tolerances would have decided"
    intolerant = MergeTable(max_log_loss_difference=0, min_argmax_agreement=1.0, max_logit_difference=1e-9)
    assert gate_failures(figures, intolerant) == [], "they would be tolerances of rounding"


def test_another_batch_moves_what_it_moves_in_plain_peft(texts: Engine, half: Any) -> None:
    """And PEFT's own `merge_and_unload` passes, where one with a lora_alpha that is wrong by 10 % does not."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lorafile.engine.batching.batches import Batch, by_length, collate
    from lorafile.engine.batching.tokens import Tokens
    from lorafile.engine.model.adapters import peft_errors
    from lorafile.engine.request import EXAMPLES

    tokens, figures = Tokens.load(half[0]["tokens.safetensors"]), half_merged(texts, half)

    def logits(model: Any, size: int) -> torch.Tensor:
        def kept(batch: Batch) -> torch.Tensor:
            whole = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            return whole[:, :-1][batch.supervised[:, 1:]].double()

        batches = [collate(tokens, each, 3, torch.device("cpu")) for each in by_length(tokens.lengths(), size)]
        with torch.inference_mode():
            return torch.cat([kept(batch) for batch in batches])

    def model(scale: float) -> Any:
        with peft_errors():
            base = AutoModelForCausalLM.from_pretrained(texts.model, dtype=torch.bfloat16)
            adapted = PeftModel.from_pretrained(base, Path(half[1]["adapter_config.json"]).parent).eval()
        for layer in (layer for layer in adapted.modules() if hasattr(layer, "lora_A")):
            layer.scale_layer(scale)
        return adapted

    attached = logits(model(1), EXAMPLES)
    moved = (attached - logits(model(1), 1)).abs()
    touched = (moved > 0).any(-1)
    assert figures["batch_moved_tokens"] == pytest.approx(int(touched.sum()), rel=0.2)
    assert figures["batch_mean_logit_difference"] == pytest.approx(float(moved[touched].mean()), rel=0.1)
    for scale, failures in ((1, 0), (1.1, 1)):
        with peft_errors():
            merged = model(scale).merge_and_unload()
        difference = (attached - logits(merged, EXAMPLES)).abs()
        plain = figures | {"mean_logit_difference": float(difference.mean())}
        assert len(gate_failures(plain, MergeTable())) == failures, scale


def test_a_merge_with_a_wrong_scale_fails_the_gate(
    texts: Engine, half: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(Path(half[1]["adapter_config.json"]).read_text(encoding="utf-8"))
    wrong = tmp_path / "adapter_config.json"
    wrong.write_text(json.dumps(config | {"lora_alpha": 1.1 * config["lora_alpha"]}), encoding="utf-8")
    files = {**half[1], "adapter_config.json": str(wrong)}
    monkeypatch.setattr(merge_node, "merged", lambda s, p, _, dtype: merged(s, p, files, dtype))
    figures = half_merged(texts, half)
    (failure,) = gate_failures(figures, MergeTable())
    times = figures["mean_logit_difference"] / figures["batch_mean_logit_difference"]
    assert f"{times:.1f} times as much as from a different batch alone" in failure


def test_a_coarser_type_than_the_base_is_judged_by_the_tolerances(texts: Engine, half: Any) -> None:
    settings = {"model": {**MODEL, "dtype": "float16"}, "quantization": None}
    settings["merging"] = {"dtype": "bfloat16", "examples": 4}
    done, _ = texts.run("merge", settings, {"adapter": half[1], "data": half[0]})
    assert "batch_moved_tokens" not in done.figures
    few = {"finite": True, "batch_moved_tokens": 19, "batch_mean_logit_difference": 1e-9}
    few |= {"mean_logit_difference": 1.0, "max_logit_difference": 2.0}
    assert gate_failures(few, MergeTable()) == [], "too few tokens moved to say how far rounding goes"


@pytest.mark.parametrize("quantization", ["nf4", "int8", "hqq4", "torchao-int8"])
def test_a_quantized_base_is_merged_as_what_it_holds(engine: Engine, quantization: str) -> None:
    """Dequantized, not the weights from before: the difference is rounding, far below that of quantization itself."""
    _, files = engine.train(engine.prepare(), quantization=quantization, learning_rate=3e-2)
    found = merge(engine, files, "float32", quantization)
    assert found["argmax_agreement"] > 0.9
    assert abs(found["log_loss_difference"]) < 5e-3


def test_the_shared_base_is_never_merged_into(engine: Engine) -> None:
    settings = {"model": MODEL, "quantization": None}
    before = fingerprint(engine.bases.get(settings, {"model": str(engine.model)}).model)
    _, files = engine.train(engine.prepare())
    merge(engine, files, "float16")
    assert fingerprint(engine.bases.get(settings, {"model": str(engine.model)}).model) == before


def test_weights_that_overflow_fail_the_gate(engine: Engine) -> None:
    from safetensors.torch import load_file, save_file

    _, files = engine.train(engine.prepare())
    tensors = load_file(files["adapter_model.safetensors"])
    save_file({name: tensor * 1e4 for name, tensor in tensors.items()}, files["adapter_model.safetensors"])
    found = merge(engine, files, "float16")
    assert found["finite"] is False
    assert gate_failures(found, MergeTable()) == ["logits are not finite"]


def test_the_gate_names_what_fails() -> None:
    figures = {"finite": True, "log_loss_difference": -0.02, "argmax_agreement": 0.97, "max_logit_difference": 0.5}
    assert gate_failures(figures, MergeTable()) == [
        "the log loss changes by 0.02, more than 0.01 nats per token",
        "the argmax agrees for 97.00% of tokens, fewer than 99.00%",
    ]
    loose = MergeTable(max_log_loss_difference=None, min_argmax_agreement=None, max_logit_difference=0.4)
    assert gate_failures(figures, loose) == ["a logit differs by 0.5, more than 0.4"]


def test_a_study_merges_and_another_tolerance_merges_nothing_again(spec_file: Path) -> None:
    text = spec_file.read_text(encoding="utf-8")
    gate = '[merge]\nexamples = 4\ndtypes = ["float32", "bfloat16"]\n'
    spec_file.write_text(text + gate + '[[sweep]]\nname = "m"\nmethod = ["lora", "full"]\n', encoding="utf-8")
    study = Study.load(spec_file, spec_file.parent / ".lora")
    assert sum(change.kind == "merge" for change in study.plan().work) == 4, "what is tuned in full needs no merging"
    assert {attempt.outcome for attempt in study.apply().attempts} == {"done"}
    (found,) = [analysis for analysis in analyses(study.gather(), []) if analysis.kind == "merge"]
    assert set(found.table["gate"]) == {"passes"}  # type: ignore[index]
    strict = gate.replace("[merge]\n", "[merge]\nmax_logit_difference = 1e-12\n")
    spec_file.write_text(spec_file.read_text(encoding="utf-8").replace(gate, strict), encoding="utf-8")
    again = Study.load(spec_file, spec_file.parent / ".lora")
    assert again.plan().work == []
    (found,) = [analysis for analysis in analyses(again.gather(), []) if analysis.kind == "merge"]
    assert all(gate.startswith("fails") for gate in found.table["gate"])  # type: ignore[index]
    assert "fails the gate" in found.sentences[0]


def test_a_classification_head_is_looked_into_and_merged_with_its_adapter(tmp_path: Path, tiny_model: Path) -> None:
    from spec_fixture import BASIC

    rows = tmp_path / "rows.jsonl"
    words = ["paris", "london", "rome", "oslo", "lima", "cairo"]
    lines = [
        {"text": f"where does anna live ? {words[n % 6]}", "label": "north" if n % 2 else "south"} for n in range(40)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    text = BASIC.format(model=tiny_model, data=rows).replace("[model]\n", '[model]\ntask_type = "SEQ_CLS"\n')
    text = text.replace("max_length", 'format = "classification"\nmax_length')
    file = tmp_path / "study.toml"
    file.write_text(text + '[inspect]\n[merge]\ndtypes = ["float32", "bfloat16"]\n', encoding="utf-8")
    study = Study.load(file, tmp_path / ".lora")
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    merges = study.gather().merges
    assert merges.loc[merges["dtype"] == "float32", "max_logit_difference"].max() < 1e-4
    assert set(merges["tokens"]) == {6}, "one class for each example"
    assert "score" in set(study.gather().inspected_modules["module"])
