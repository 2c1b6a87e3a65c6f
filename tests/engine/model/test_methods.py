"""Every method of PEFT and every initialisation: trained for real, loaded in plain PEFT, the base left as it was."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine  # noqa: E402
from methods_fixture import CASES, HERE, METHODS, STARTS, plain_logits  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.model.base import fingerprint  # noqa: E402
from lorafile.engine.model.initialization import initialize_adapter, restored_afterwards  # noqa: E402
from lorafile.engine.model.methods import penalty  # noqa: E402
from lorafile.engine.request import Request  # noqa: E402
from lorafile.specs.configurations import quantization_settings  # noqa: E402
from lorafile.specs.tables.train import TrainTable  # noqa: E402

# What PEFT says to whoever calls it, as the tests that compare with it do.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning", ":RuntimeWarning")
]


@pytest.mark.sampled(5)
@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:The following rank_pattern:RuntimeWarning"
)
@pytest.mark.parametrize("adapter", CASES)
def test_it_trains_loads_in_plain_peft_repeats_and_leaves_the_base(
    engine: Engine,
    adapter: dict[str, Any],
) -> None:
    prepared = engine.prepare()
    before = engine.predict(prepared, None)
    done, files = engine.train(prepared, adapter, max_steps=8)
    assert done.outcome == "done", done.message
    base = engine.bases.get(*_base(engine))
    assert fingerprint(base.model) == base.fingerprint
    after = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before
    single = engine.predict(prepared, files, size=1)
    where = Path(files["adapter_model.safetensors"]).parent
    for one, other, plain in zip(single, after, plain_logits(engine.model, where, prepared), strict=True):
        assert one["log_likelihood"] == pytest.approx(other["log_likelihood"], abs=1e-4)
        assert one["log_likelihood"] == pytest.approx(plain, abs=1e-4)
    again = engine.train(prepared, adapter, max_steps=8)[1]
    assert Path(again["adapter_model.safetensors"]).read_bytes() == (where / "adapter_model.safetensors").read_bytes()
    other_seed = engine.train(prepared, adapter, seed=2, max_steps=8)[1]["adapter_model.safetensors"]
    assert Path(other_seed).read_bytes() != (where / "adapter_model.safetensors").read_bytes()


def _base(engine: Engine) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"model": {"dtype": "float32", "trust_remote_code": False}, "quantization": None}, {
        "model": str(engine.model)
    }


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_virtual_tokens_answer_as_one_prompt_alone_does(engine: Engine, quantization: str, method: str) -> None:
    """PEFT's own generation puts them before the padding; an answer must not depend on what else is in a batch."""
    from peft import PeftModel

    prepared = engine.prepare(12)
    adapter = {"method": method, **(METHODS.get(method) or {"num_virtual_tokens": 5})}
    done, files = engine.train(prepared, adapter, max_steps=30, quantization=quantization)
    assert done.outcome == "done", done.message
    together = engine.predict(prepared, files, "generation", size=12, quantization=quantization)
    assert together == engine.predict(prepared, files, "generation", size=1, quantization=quantization)
    if quantization != "none":
        return
    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(engine.model), str(Path(files["adapter_model.safetensors"]).parent)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(engine.model)
    for row in together:
        ids = tokenizer(f"where does anna number {row['row']} live ?", return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(3):  # greedy, without PEFT's generate: one forward pass for each token
            best = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].argmax()
            ids = torch.cat([ids, best[None, None]], dim=1)
            if int(best) == tokenizer.eos_token_id:
                break
        assert row["answer"] == tokenizer.decode(ids[0, start:], skip_special_tokens=True)


@pytest.mark.parametrize("adapter", [METHODS["ia3"] | {"method": "ia3"}, METHODS["vera"] | {"method": "vera"}], ids=str)
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_other_methods_train_on_quantized_bases(
    engine: Engine,
    adapter: dict[str, Any],
    quantization: str,
) -> None:
    _learns(engine, adapter, quantization)


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:The following rank_p:RuntimeWarning"
)
@pytest.mark.parametrize("name", ["adalora", "prompt_tuning", "ln_tuning"])
def test_more_methods_train_on_a_4_bit_base(engine: Engine, name: str) -> None:
    _learns(engine, {"method": name, **METHODS[name]}, "nf4")


def _learns(engine: Engine, adapter: dict[str, Any], quantization: str) -> dict[str, str]:
    prepared = engine.prepare()
    before = engine.predict(prepared, None, quantization=quantization)
    done, files = engine.train(prepared, adapter, max_steps=8, quantization=quantization)
    assert done.outcome == "done", done.message
    after = engine.predict(prepared, files, quantization=quantization)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None, quantization=quantization) == before
    return files


def test_loftq_takes_back_as_much_of_the_quantization_error_as_its_rank_can(engine: Engine) -> None:
    """What is left is the singular values past the rank, also with an alpha of 2r (Eckart and Young)."""
    import bitsandbytes
    from peft.tuners.lora import Linear4bit

    adapter = {**LORA, "r": 8, "lora_alpha": 16, "init_lora_weights": "loftq"}
    files = _learns(engine, adapter, "nf4")
    assert json.loads(Path(files["adapter_config.json"]).read_text())["init_lora_weights"] is True
    settings = {**_base(engine)[0], "quantization": quantization_settings("nf4"), "adapter": adapter}
    base = engine.bases.get(settings, {"model": str(engine.model)})
    request = Request("key", "train", "address", settings, {"model": str(engine.model)})
    original = AutoModelForCausalLM.from_pretrained(engine.model)
    with restored_afterwards(base.model, adapter), torch.no_grad():
        model = initialize_adapter(base, request, Tokens.load(engine.prepare()["tokens.safetensors"]), 1)
        layers = [(n, x) for n, x in model.get_base_model().named_modules() if isinstance(x, Linear4bit)]
        assert len(layers) == 4
        for name, layer in layers:
            stored = layer.get_base_layer().weight
            lost = original.get_submodule(name).weight - bitsandbytes.functional.dequantize_4bit(
                stored.data, stored.quant_state
            )
            left = lost - layer.get_delta_weight("default")
            assert float(left.norm()) == pytest.approx(float(torch.linalg.svdvals(lost)[8:].norm()), rel=1e-4)


def test_adalora_has_the_regularisation_of_pefts_own_forward(engine: Engine) -> None:
    from peft import AdaLoraConfig, get_peft_model

    torch.manual_seed(3)
    config = AdaLoraConfig(**HERE, init_r=4, target_r=2, total_step=10, task_type="CAUSAL_LM", orth_reg_weight=0.3)
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(engine.model), config).eval()
    ids = torch.arange(4, 20)[None]
    theirs = model(input_ids=ids, labels=ids).loss - model.base_model.model(input_ids=ids, labels=ids).loss
    ours = penalty(model)
    assert ours is not None
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:The following rank_p:RuntimeWarning"
)
def test_adalora_trains_no_rank_on_a_half_precision_base(engine: Engine) -> None:
    """PEFT makes the ranks trainable where it casts them; the plan counts A, B and the singular values."""
    adapter = {"method": "adalora", **METHODS["adalora"]}
    counts = []
    for dtype in ("float32", "bfloat16"):
        training = TrainTable(max_steps=4).model_dump()
        settings = {"model": MODEL | {"dtype": dtype}, "quantization": None, "adapter": adapter, "seed": 1}
        done, _ = engine.run("train", settings | {"training": training}, {"train": engine.prepare()})
        counts.append(done.figures["trainable_parameters"])
    assert counts[0] == counts[1]


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:The following rank_p:RuntimeWarning"
)
def test_adalora_ends_with_its_budget(engine: Engine) -> None:
    adapter = {"method": "adalora", **METHODS["adalora"]}
    done, files = engine.train(engine.prepare(), adapter, max_steps=20)
    assert done.outcome == "done", done.message
    config = json.loads(Path(files["adapter_config.json"]).read_text())
    assert config["total_step"] == 20
    assert sum(sum(kept) for kept in config["rank_pattern"].values()) == 2 * 4, "a mean rank of 2 over four modules"


def test_loraplus_gives_b_a_rate_of_its_own(engine: Engine) -> None:
    """Adam's first step moves every element by its group's rate, whatever the gradient's size."""
    prepared = engine.prepare()
    plain, plus = (
        load_file(
            engine.train(prepared, max_steps=1, learning_rate=1e-3, max_grad_norm=0.0, **more)[1][
                "adapter_model.safetensors"
            ]
        )
        for more in ({}, {"loraplus_lr_ratio": 16.0})
    )
    for name, tensor in plain.items():
        if "lora_A" in name:
            torch.testing.assert_close(plus[name], tensor)
        else:
            torch.testing.assert_close(plus[name], 16 * tensor, atol=1e-4, rtol=1e-3)


def test_what_peft_refuses_is_a_sentence_with_the_methods_name(engine: Engine) -> None:
    done, _ = engine.train(engine.prepare(), {"method": "loha", "r": 4, "target_modules": ["input_layernorm"]})
    assert done.outcome == "failed"
    assert done.message.startswith("loha: PEFT rejects these settings on this model: ")
    assert not done.files, "no traceback"


def test_eva_with_too_few_tokens_says_what_to_change(engine: Engine) -> None:
    adapter = {**LORA, "r": 32, "init_lora_weights": "eva", "eva_config": {"rho": 2.0, "use_label_mask": True}}
    done, _ = engine.train(engine.prepare(2), adapter)
    assert done.outcome == "failed"
    assert "lora.eva_config.use_label_mask = false" in done.message


@pytest.mark.sampled(3)
@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:The following rank_p:RuntimeWarning"
)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_profiled(engine: Engine, name: str) -> None:
    training = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
    }
    protocol = {"warmup_steps": 1, "steps": 2, "new_tokens": 3, "repeats": 2}
    settings = {**_base(engine)[0], "adapter": {"method": name, **METHODS[name]}}
    settings |= {"training": training, "profile": protocol}
    done, _ = engine.run("profile", settings, {"train": engine.prepare()})
    assert done.outcome == "done", done.message
    assert ("merged_first_token_seconds" in done.figures) is (name != "prompt_tuning")


@pytest.mark.sampled(6)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "adapter",
    [
        *(pytest.param({"method": name, **settings}, id=name) for name, settings in METHODS.items()),
        pytest.param({**LORA, "modules_to_save": ["lm_head", "embed_tokens"]}, id="modules_to_save"),
        pytest.param({**LORA, **STARTS["pissa"]}, id="pissa"),
    ],
)
def test_what_is_trained_is_float32_over_a_half_precision_base(
    engine: Engine,
    adapter: dict[str, Any],
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PEFT leaves norms and modules_to_save in the base's type, in which Adam's steps vanish or overflow."""
    monkeypatch.setitem(MODEL, "dtype", dtype)
    prepared = engine.prepare()
    done, files = engine.train(prepared, adapter, max_steps=8)
    assert done.outcome == "done", done.message
    assert {tensor.dtype for tensor in load_file(files["adapter_model.safetensors"]).values()} == {torch.float32}
    before, after = engine.predict(prepared, None), engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before
