"""Bases: types, attention, devices, older architectures; and a base that cannot be loaded harms nobody else."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import MODEL, Engine  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.apply.workers import local_executor  # noqa: E402
from lorafile.engine.model.base import load_base  # noqa: E402
from lorafile.engine.model.loading import _check_places, load_model  # noqa: E402
from lorafile.errors import NodeError, SpecError  # noqa: E402


class Based(Engine):
    """An engine whose base has settings of its own."""

    base: dict[str, Any] = MODEL

    def run(self, kind: str, settings: dict[str, Any], *rest: Any, **execution: Any) -> Any:
        return super().run(kind, {**settings, "model": self.base}, *rest, **execution)


@pytest.fixture
def engine(tiny_model: Path, rows_file: Path, tmp_path: Path) -> Based:
    return Based(tiny_model, rows_file, tmp_path)


@pytest.mark.parametrize("precision", [{}, {"bf16": True}, {"fp16": True}], ids=["plain", "bf16", "fp16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_adapters_are_float32_over_every_base(engine: Based, dtype: str, precision: dict[str, bool]) -> None:
    from safetensors.torch import load_file

    engine.base = {**MODEL, "dtype": dtype}
    prepared = engine.prepare()
    before = engine.predict(prepared, None)
    done, files = engine.train(prepared, max_steps=8, **precision)
    assert done.outcome == "done", done.message
    assert {tensor.dtype for tensor in load_file(files["adapter_model.safetensors"]).values()} == {torch.float32}
    model = engine.bases.get({"model": engine.base, "quantization": None}, {"model": str(engine.model)}).model
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    after = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)


def test_attention_is_computed_as_the_spec_says(engine: Based) -> None:
    prepared, found = engine.prepare(), {}
    for name in ("eager", "sdpa"):
        engine.base = {**MODEL, "attn_implementation": name}
        done, files = engine.train(prepared)
        assert done.outcome == "done", done.message
        model = engine.bases.get({"model": engine.base, "quantization": None}, {"model": str(engine.model)}).model
        assert model.config._attn_implementation == name
        found[name] = [row["log_likelihood"] for row in engine.predict(prepared, files)]
    assert found["eager"] == pytest.approx(found["sdpa"], abs=1e-3)


def test_attention_that_is_not_installed_is_a_sentence(engine: Based) -> None:
    if torch.cuda.is_available():
        pytest.skip("it may be installed here")
    engine.base = {**MODEL, "attn_implementation": "flash_attention_2"}
    done, _ = engine.train(engine.prepare())
    assert done.outcome == "failed"
    assert done.message.startswith('model.attn_implementation: "flash_attention_2" cannot be used here: ')
    assert "Install with: pip install flash-attn" in done.message
    assert "\n" not in done.message


def test_a_spread_base_trains_to_the_same_weights(engine: Based) -> None:
    """On one device there is nothing to spread, but the base comes through accelerate's placement all the same."""
    prepared = engine.prepare()
    settings = {"model": MODEL, "quantization": None}
    plain = load_base(settings, {"model": str(engine.model)})
    spread = load_base(settings, {"model": str(engine.model), "device_map": "auto"})
    assert spread.fingerprint == plain.fingerprint
    assert spread.device == plain.device
    first = Path(engine.train(prepared)[1]["adapter_model.safetensors"]).read_bytes()
    engine.bases._base = spread
    done, files = engine.train(prepared)
    assert done.outcome == "done", done.message
    assert engine.bases._base is spread
    assert Path(files["adapter_model.safetensors"]).read_bytes() == first


@pytest.mark.parametrize("places", [{"a": 0, "b": "cpu"}, {"a": 0, "b": 1, "c": "disk"}, {"": "disk"}])
def test_a_base_that_does_not_fit_on_the_gpus_is_refused(places: dict[str, Any]) -> None:
    with pytest.raises(NodeError, match="does not fit on this machine's GPUs"):
        _check_places(SimpleNamespace(hf_device_map=places))


def test_a_base_on_gpus_or_on_a_processor_alone_is_not() -> None:
    for places in ({"": "cpu"}, {"a": 0, "b": 1}, None):
        _check_places(SimpleNamespace(hf_device_map=places))


OLD = """
from transformers import LlamaConfig, LlamaForCausalLM

class OldLlama(LlamaForCausalLM):
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, past_key_values=None,
                position_ids=None, use_cache=None, output_attentions=None, output_hidden_states=None, return_dict=None):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask,
                               position_ids=position_ids, use_cache=use_cache)
"""


def test_an_architecture_that_computes_all_logits_trains_the_same(engine: Based, tmp_path: Path) -> None:
    """As architectures do that know no `logits_to_keep`; its code comes with the checkpoint."""
    prepared = engine.prepare()
    expected = engine.predict(prepared, engine.train(prepared)[1])
    old = tmp_path / "old"
    shutil.copytree(engine.model, old)
    (old / "modeling_old.py").write_text(OLD, encoding="utf-8")
    config = json.loads((old / "config.json").read_text(encoding="utf-8"))
    config |= {"auto_map": {"AutoModelForCausalLM": "modeling_old.OldLlama"}, "architectures": ["OldLlama"]}
    (old / "config.json").write_text(json.dumps(config), encoding="utf-8")
    engine.model, engine.base = old, {**MODEL, "trust_remote_code": True}
    done, files = engine.train(prepared)
    assert done.outcome == "done", done.message
    model = engine.bases.get({"model": engine.base, "quantization": None}, {"model": str(old)}).model
    assert type(model).__name__ == "OldLlama"
    found = engine.predict(prepared, files)
    for one, other in zip(found, expected, strict=True):
        assert one["log_likelihood"] == pytest.approx(other["log_likelihood"], abs=1e-4)


def test_a_checkpoint_that_is_none_is_a_sentence(engine: Based, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")
    with pytest.raises(NodeError, match=r"^model\.path: .* cannot be loaded: "):
        load_model(str(tmp_path), {"model": MODEL, "quantization": None})


# As studies


@pytest.fixture
def strangers(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer knows more tokens than it has embeddings."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where = tmp_path / "strangers"
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=100, **shape)).save_pretrained(where)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(where)
    return where


def test_a_base_that_cannot_be_loaded_harms_nobody_else(
    spec_file: Path, strangers: Path, tiny_model: Path, tmp_path: Path
) -> None:
    points = [
        f'{{ name = "other tokenizer", model.path = "{strangers}" }}',
        '{ name = "no library", quantization = { quant_method = "gptq", dataset = ["a text"] } }',
        '{ name = "no kernel", model.attn_implementation = "flash_attention_2" }',
        '{ name = "too large", lora.r = 2147483647 }',
        '{ name = "good" }',
    ]
    text = spec_file.read_text(encoding="utf-8").replace("seeds = [1, 2]", "seeds = [1]")
    spec_file.write_text(f'{text}\n[[sweep]]\nname = "b"\nconfigurations = [{", ".join(points)}]\n', encoding="utf-8")
    study = Study.load(spec_file, tmp_path / "state")
    applied = study.apply(workers=1)
    ends = {a.address: (a.outcome, a.message) for a in applied.attempts if a.kind == "train"}
    told = {name.split("/")[1]: end for name, end in ends.items()}
    assert told["good"] == ("done", "")
    assert told["other tokenizer"][0] == "failed"
    assert "embeddings for 100; they do not match." in told["other tokenizer"][1]
    assert told["no library"] == (
        "failed",
        "quantization: a gptq base needs gptqmodel and optimum, not installed here. "
        "Install with: pip install gptqmodel optimum",
    )
    assert told["no kernel"][0] == "failed"
    assert told["no kernel"][1].startswith('model.attn_implementation: "flash_attention_2"')
    assert told["too large"][0] == "out-of-memory"
    scored = {a.address.split("/")[1] for a in applied.attempts if a.kind == "score" and a.outcome == "done"}
    assert scored == {"good"}
    assert not any("Traceback" in message or "\n" in message for _, message in ends.values())


def test_how_a_base_lies_on_devices_changes_no_key(spec_file: Path, tmp_path: Path) -> None:
    plain = Study.load(spec_file, tmp_path / "state")
    keys = set(plain.plan().graph.nodes)
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace("[data]", 'device_map = "auto"\n[data]'), encoding="utf-8")
    spread = Study.load(spec_file, tmp_path / "state")
    plan = spread.plan()
    assert set(plan.graph.nodes) == keys
    assert local_executor(plan, spread.state, 4, "auto").pool.workers == 4, "without several GPUs nothing is spread"
    applied = spread.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    spec_file.write_text(text.replace("[data]", 'attn_implementation = "eager"\n[data]'), encoding="utf-8")
    eager = set(Study.load(spec_file, tmp_path / "state").plan().graph.nodes)
    assert len(eager & keys) < len(keys)
    spec_file.write_text(text + '\n[[sweep]]\nmodel.device_map = ["auto"]\n', encoding="utf-8")
    with pytest.raises(SpecError, match="the placement of a base on this machine's GPUs does not affect results"):
        Study.load(spec_file, tmp_path / "state")


def test_attention_can_be_swept(spec_file: Path, tmp_path: Path) -> None:
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text + '\n[[sweep]]\nmodel.attn_implementation = ["auto", "eager"]\n', encoding="utf-8")
    sections = Study.load(spec_file, tmp_path / "state").plan().graph.sections
    assert [section["model"].get("attn_implementation") for section in sections.values()] == [None, "eager"]
