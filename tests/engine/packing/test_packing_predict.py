"""Predictions of adapters together against PEFT's own forward pass and transformers' own `generate` of each alone."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import MODEL, Engine  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402

from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.nodes.predict import predict_together  # noqa: E402
from lorafile.engine.request import Request, Result  # noqa: E402
from lorafile.engine.stacking.compatible import prediction_class  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.specs.configurations import quantization_settings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft itself, used here
PLAIN: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.5},
    {"r": 7, "lora_alpha": 3, "target_modules": ["v_proj", "down_proj"], "use_rslora": True},
    {"r": 2, "target_modules": ["q_proj", "up_proj"], "rank_pattern": {"q_proj": 5}, "alpha_pattern": {"up_proj": 9}},
    {"r": 3, "target_modules": ["k_proj", "gate_proj", "o_proj"], "layers_to_transform": [1]},
]
DORA = {"r": 4, "target_modules": ["q_proj"], "use_dora": True}
LIKELIHOOD = {"output": "likelihood"}
ANSWERS = {"output": "generation", "max_new_tokens": 8, "do_sample": False}


def train_of_known_rank(engine: Engine, settings: dict[str, Any], number: int) -> dict[str, str]:
    """Store an adapter of which both matrices are drawn at random, as PEFT stores it."""
    where = engine.root / f"adapter{number}"
    torch.manual_seed(number)
    model = get_peft_model(bare(engine), LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(3)  # far enough from the base to say something else
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(where)
    return {name: str(where / name) for name in ("adapter_config.json", "adapter_model.safetensors")}


def bare(engine: Engine, dtype: str = "float32") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(engine.model, dtype=dtype).eval()


def together(
    engine: Engine,
    prepared: dict[str, str],
    adapters: list[dict[str, str] | None],
    task: dict[str, Any],
    dtype: str = "float32",
    quantization: str = "none",
) -> tuple[list[Result], list[list[dict[str, Any]]]]:
    model = {**MODEL, "dtype": dtype}
    settings = {"model": model, "quantization": quantization_settings(quantization), "task": task}
    paths = {"model": str(engine.model), "model_name": "tiny"}
    plain = Request("key", "predict", "address", settings, paths, {"data": prepared})
    requests = [
        replace(plain, inputs=plain.inputs | ({"adapter": files} if files is not None else {})) for files in adapters
    ]
    outs = [engine.root / f"together{number}" for number in range(len(requests))]
    for out in outs:
        out.mkdir(exist_ok=True)
    told: list[list[dict[str, Any]]] = [[] for _ in requests]
    done = predict_together(requests, outs, engine.bases, [one.append for one in told])
    assert all(progress[-1]["step"] == progress[-1]["steps"] for progress in told)
    return done, [list(read_lines(str(out / "predictions.jsonl.gz"))) for out in outs]


def loaded(engine: Engine, files: dict[str, str] | None, dtype: str) -> Any:
    base = bare(engine, dtype)
    return base if files is None else PeftModel.from_pretrained(base, Path(files["adapter_config.json"]).parent).eval()


@torch.no_grad()
def by_peft(model: Any, prepared: dict[str, str]) -> list[float]:
    """Return each example's log likelihood, computed alone and without padding."""
    tokens, found = Tokens.load(prepared["tokens.safetensors"]), []
    for index in range(len(tokens)):
        ids, marks = tokens.example(index)
        each = model(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        found.append(float(each[marks[1:].bool()].sum()))
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_likelihoods_are_those_of_peft_alone(engine: Engine, dtype: str, tolerance: float) -> None:
    """Ranks, alphas, targets, layers and patterns differ; the untuned base is among them."""
    prepared = engine.prepare(10)
    adapters = [*(train_of_known_rank(engine, settings, number) for number, settings in enumerate(PLAIN)), None]
    done, found = together(engine, prepared, adapters, LIKELIHOOD, dtype)
    assert [one.figures["packed"] for one in done] == [5] * 5
    sums = []
    for files, rows in zip(adapters, found, strict=True):
        expected = by_peft(loaded(engine, files, dtype), prepared)
        assert [row["log_likelihood"] for row in rows] == pytest.approx(expected, rel=tolerance)
        sums.append(round(sum(expected), 2))
    assert len({*sums}) == 5


def test_answers_are_those_of_transformers_and_what_is_no_plain_lora_is_done_alone(engine: Engine) -> None:
    prepared = engine.prepare(10)
    adapters = [train_of_known_rank(engine, settings, number) for number, settings in enumerate([*PLAIN[:2], DORA])]
    done, found = together(engine, prepared, [*adapters, None], ANSWERS)
    assert [one.figures.get("packed") for one in done] == [3, 3, None, 3]
    tokens = Tokens.load(prepared["tokens.safetensors"])
    tokenizer = engine.bases.get({"model": MODEL, "quantization": None}, {"model": str(engine.model)}).tokenizer
    for files, rows in zip([*adapters, None], found, strict=True):
        model = loaded(engine, files, "float32")
        for index, row in enumerate(rows):
            ids = torch.tensor([tokens.prompt(index)])
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
            assert row["answer"] == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert len({row["answer"] for rows in found for row in rows}) > 4


DRAWN = {"output": "generation", "max_new_tokens": 6, "do_sample": True, "temperature": 1.5, "top_p": 0.95, "top_k": 40}


@pytest.mark.parametrize(
    "task", [{**DRAWN, "seed": 7}, {**ANSWERS, "num_beams": 2}, {**ANSWERS, "repetition_penalty": 1.5}]
)
def test_drawn_and_searched_answers_are_those_of_each_alone(engine: Engine, task: dict[str, Any]) -> None:
    """The adapters alone go through PEFT: with a bias of nothing they are no plain LoRA to the stack."""
    prepared = engine.prepare(6)
    adapters = [train_of_known_rank(engine, settings, number) for number, settings in enumerate(PLAIN[:2])]
    _, found = together(engine, prepared, adapters, task)
    for files, rows in zip(adapters, found, strict=True):
        config = Path(files["adapter_config.json"])
        config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "bias": "all"}), encoding="utf-8")
        done, alone = together(engine, prepared, [files, files], task)
        assert "packed" not in done[0].figures
        assert rows == alone[0]


def test_adapters_go_together_over_a_base_of_four_bits(engine: Engine) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM

    from lorafile.engine.model.quantized import quantization_config

    prepared = engine.prepare(6)
    adapters = [train_of_known_rank(engine, settings, number) for number, settings in enumerate(PLAIN[:2])]
    done, found = together(engine, prepared, [*adapters, None], LIKELIHOOD, quantization="nf4")
    assert done[0].figures["packed"] == 3
    base = engine.bases.get(
        {"model": MODEL, "quantization": quantization_settings("nf4")}, {"model": str(engine.model)}
    )
    settings = quantization_settings("nf4")
    assert settings is not None
    for files, rows in zip(adapters, found[:2], strict=True):
        model = AutoModelForCausalLM.from_pretrained(
            engine.model, quantization_config=quantization_config(settings, torch.float32), device_map={"": base.device}
        )
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False  # bitsandbytes would compute in bfloat16
        peft = PeftModel.from_pretrained(model, Path(files["adapter_config.json"]).parent).eval()
        assert [row["log_likelihood"] for row in rows] == pytest.approx(by_peft(peft, prepared), rel=1e-5)


def test_an_adapter_that_does_not_fit_says_so_and_the_others_are_done(engine: Engine) -> None:
    prepared = engine.prepare(4)
    adapters = [train_of_known_rank(engine, settings, number) for number, settings in enumerate(PLAIN[:3])]
    config = Path(adapters[2]["adapter_config.json"])
    config.write_text(config.read_text("utf-8").replace('"r": 2', '"r": 3'), encoding="utf-8")
    settings = {"model": MODEL, "quantization": None, "task": LIKELIHOOD}
    paths = {"model": str(engine.model), "model_name": "tiny"}
    requests = [
        Request("key", "predict", "address", settings, paths, {"data": prepared, "adapter": files})
        for files in adapters
    ]
    outs = [engine.root / str(number) for number in range(90, 93)]
    for out in outs:
        out.mkdir()
    done = predict_together(requests, outs, engine.bases, [lambda _: None] * 3)
    assert [one.outcome for one in done] == ["done", "done", "failed"]
    assert done[2].message.startswith("The adapter does not match this model: size mismatch")


def test_which_predictions_may_go_together() -> None:
    settings = {"model": MODEL, "quantization": None, "task": LIKELIHOOD}
    assert prediction_class(settings, "a") == prediction_class({**settings, "seed": 3}, "a") != ""
    others = [
        {**settings, "task": ANSWERS},
        {**settings, "model": {**MODEL, "dtype": "bfloat16"}},
        {**settings, "quantization": quantization_settings("nf4")},
    ]
    assert prediction_class(settings, "a") not in [prediction_class(other, "a") for other in others]
    assert prediction_class(settings, "b") != prediction_class(settings, "a")
    for alone in (
        {**settings, "task": {"output": "lm_eval", "task": "arc"}},
        {**settings, "model": {**MODEL, "task_type": "SEQ_CLS"}},
        {**settings, "quantization": {"load_in_8bit": True, "llm_int8_threshold": 6.0}},
    ):
        assert prediction_class(alone, "a") == ""
