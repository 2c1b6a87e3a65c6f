"""Quantized bases: what each needs, that they train, stay what they were, and are counted right."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine  # noqa: E402

from lorafile.engine.model.base import Bases, load_base  # noqa: E402
from lorafile.engine.model.fingerprint import fingerprint, held_tensors  # noqa: E402
from lorafile.engine.model.quantized import check_libraries, quantization_config  # noqa: E402
from lorafile.errors import NodeError, SpecError  # noqa: E402
from lorafile.graph.build import build  # noqa: E402
from lorafile.lock.lockfile import lock_model, resolve  # noqa: E402
from lorafile.specs import parse  # noqa: E402
from lorafile.specs.tables.quantizations import QUANTIZATIONS, quantization_name, quantization_settings, weight_bits  # noqa: E402
from lorafile.specs.tables.settings import ModelTable, SpecTables  # noqa: E402

HQQ8 = {"quant_method": "hqq", "nbits": 8, "group_size": 32}
DOUBLE = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
TABLES = {"study": {"name": "s"}, "model": {"path": "m"}, "data": {"path": "d"}}


def settings_of(quantization: str | dict[str, Any]) -> dict[str, Any] | None:
    return quantization_settings(SpecTables.model_validate({**TABLES, "quantization": quantization}).quantization)


class Quantized(Engine):
    """An engine whose base is quantized by settings of any library."""

    settings: dict[str, Any] | None = None

    def run(self, kind: str, settings: dict[str, Any], *rest: Any, **execution: Any) -> Any:
        return super().run(kind, {**settings, "quantization": self.settings}, *rest, **execution)


TRAINED: dict[str, Any] = {
    "hqq4": "hqq4",
    "hqq 8 bits, groups of 32": HQQ8,
    "torchao-int8": "torchao-int8",
    "torchao int8 in groups": {"quant_method": "torchao", "quant_type": "int8_weight_only", "group_size": 32},
    "nf4 double": DOUBLE,
    "fp4 double": {**DOUBLE, "bnb_4bit_quant_type": "fp4"},
}


@pytest.mark.parametrize("name", TRAINED)
def test_quantized_bases_train_and_stay_what_they_were(
    tiny_model: Path, rows_file: Path, tmp_path: Path, name: str
) -> None:
    engine = Quantized(tiny_model, rows_file, tmp_path)
    prepared = engine.prepare()
    engine.settings = None
    plain = engine.predict(prepared, None)
    engine.settings = settings_of(TRAINED[name])
    before = engine.predict(prepared, None)
    assert before != plain, "nothing was quantized"
    for one, other in zip(before, plain, strict=True):
        assert one["log_likelihood"] == pytest.approx(other["log_likelihood"], rel=0.1), "it is another model"
    done, files = engine.train(prepared, max_steps=8)
    assert done.outcome == "done", done.message
    assert (
        done.figures["total_parameters"] - done.figures["trainable_parameters"]
        == lock_model(ModelTable(path=str(tiny_model)), Path()).parameters
    )
    after = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before


LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
# Without biases, with biases at some layers, at all, and with GPT-2's transposed layers.
SHAPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "llama": ({**LAYERS, "intermediate_size": 128}, ["q_proj", "down_proj"]),
    "qwen2": ({**LAYERS, "intermediate_size": 128, "num_key_value_heads": 2}, ["q_proj", "down_proj"]),
    "opt": ({**LAYERS, "ffn_dim": 128, "word_embed_proj_dim": 64}, ["out_proj", "fc2"]),
    "gpt2": ({"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}, ["c_attn", "c_proj"]),
}
LINEAR_ONLY = ("hqq4", "torchao-int8")  # they leave GPT-2's transposed layers alone


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """Random models of two layers, whose biases are not the zeros that they begin as."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    special = {"vocab_size": len(tokenizer), "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
    found = {}
    for name, (shape, _) in SHAPES.items():
        found[name] = tmp_path_factory.mktemp("shapes") / name
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **special, **shape))
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("dtype", "bf16"), [("float32", False), ("float32", True), ("bfloat16", False)])
@pytest.mark.parametrize(
    ("shape", "name"),
    [(shape, name) for shape in SHAPES for name in QUANTIZATIONS if shape != "gpt2" or name not in LINEAR_ONLY],
)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")  # peft, of GPT-2's layers
def test_a_base_with_biases_stays_what_it_was(
    shapes: dict[str, Path],
    rows_file: Path,
    tmp_path: Path,
    shape: str,
    name: str,
    dtype: str,
    bf16: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bitsandbytes moves its scales when a layer computes, and casts a layer's bias to the type of what it reads."""
    monkeypatch.setitem(MODEL, "dtype", dtype)
    engine = Quantized(shapes[shape], rows_file, tmp_path)
    engine.settings = settings_of(name)
    prepared = engine.prepare(max_length=64)
    before = engine.predict(prepared, None)
    done, files = engine.train(prepared, {**LORA, "target_modules": SHAPES[shape][1]}, max_steps=8, bf16=bf16)
    assert done.outcome == "done", done.message
    after = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before


def test_a_layer_that_computes_in_another_type_keeps_its_bias(shapes: dict[str, Path]) -> None:
    chosen = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
    base = load_base({"model": MODEL, "quantization": settings_of(chosen)}, {"model": str(shapes["opt"])})
    layer = base.model.model.decoder.layers[0].fc1
    bias, x = layer.bias.detach().clone(), torch.randn(3, 64)
    expected = x.bfloat16() @ dequantized(layer).bfloat16().T + bias.bfloat16()
    torch.testing.assert_close(layer(x), expected.float(), atol=2e-2, rtol=2e-2)
    assert layer.bias.dtype == torch.float32 and torch.equal(layer.bias, bias)
    assert "bias" in dict(layer.named_parameters())
    base.check()


def dequantized(layer: Any) -> Any:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state)


@pytest.mark.parametrize("name", LINEAR_ONLY)
def test_a_base_of_which_nothing_would_be_quantized_is_refused(shapes: dict[str, Path], name: str) -> None:
    with pytest.raises(NodeError, match=r"(HQQ|torchao) finds no linear layer in GPT2LMHeadModel"):
        load_base({"model": MODEL, "quantization": settings_of(name)}, {"model": str(shapes["gpt2"])})


@pytest.mark.parametrize("name", ["hqq4", "torchao-int8", "nf4"])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's own
def test_adapters_of_quantized_bases_load_in_plain_peft(
    tiny_model: Path, rows_file: Path, tmp_path: Path, name: str
) -> None:
    from peft import PeftModel

    from lorafile.engine.batching.batches import collate
    from lorafile.engine.batching.tokens import Tokens
    from lorafile.engine.model.loss import summed_loss

    engine = Quantized(tiny_model, rows_file, tmp_path)
    engine.settings = settings_of(name)
    prepared = engine.prepare()
    _, files = engine.train(prepared)
    ours = engine.predict(prepared, files, size=1)
    base = load_base({"model": MODEL, "quantization": engine.settings}, {"model": str(tiny_model)}).model
    plain = PeftModel.from_pretrained(base, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    tokens = Tokens.load(prepared["tokens.safetensors"])
    with torch.no_grad():
        theirs = [-summed_loss(plain, collate(tokens, [n], 3, torch.device("cpu"))).item() for n in range(len(ours))]
    assert [row["log_likelihood"] for row in ours] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["none", "int8", "nf4", "hqq4", "torchao-int8"])
def test_checkpointing_gives_the_same_weights_on_every_base(
    tiny_model: Path, rows_file: Path, tmp_path: Path, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setitem(MODEL, "dtype", dtype)
    engine = Quantized(tiny_model, rows_file, tmp_path)
    engine.settings = settings_of(name)
    prepared, adapter = engine.prepare(), {**LORA, "lora_dropout": 0.2}
    plain = load_file(engine.train(prepared, adapter)[1]["adapter_model.safetensors"])
    done, files = engine.train(prepared, adapter, gradient_checkpointing=True)
    assert done.outcome == "done", done.message
    again = load_file(files["adapter_model.safetensors"])
    assert any(tensor.abs().max() > 1e-3 for key, tensor in plain.items() if "lora_B" in key), "nothing was learned"
    for key, tensor in plain.items():
        torch.testing.assert_close(again[key], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["int8", "nf4", "nf4 double", "hqq4", "torchao-int8"])
def test_every_part_of_a_quantized_base_is_proven(tiny_model: Path, name: str) -> None:
    chosen = settings_of(TRAINED.get(name, name))
    model = load_base({"model": MODEL, "quantization": chosen}, {"model": str(tiny_model)}, proven=False).model
    before = fingerprint(model)
    changed = 0
    for tensor in held_tensors(model):
        bytes_ = tensor.view(-1).view(torch.uint8)
        bytes_[0] ^= 1
        changed += fingerprint(model) != before
        bytes_[0] ^= 1
    assert fingerprint(model) == before
    assert changed == len(list(held_tensors(model)))


def test_memory_of_a_quantized_base_is_what_its_tensors_take(tiny_model: Path) -> None:
    """Counted from the settings, as a forecast does it, and from the tensors of the loaded model."""
    lock = lock_model(ModelTable(path=str(tiny_model)), Path())
    linear = sum(rows * columns for rows, columns in lock.modules.values())
    for name in ("int8", "nf4", "nf4 double", "hqq4", "hqq 8 bits, groups of 32", "torchao-int8"):
        chosen = settings_of(TRAINED.get(name, name))
        assert chosen is not None
        model = load_base({"model": MODEL, "quantization": chosen}, {"model": str(tiny_model)}, proven=False).model
        held = sum(
            tensor.nbytes
            for module in model.model.layers.modules()
            if "Norm" not in type(module).__name__
            for tensor in held_tensors(_alone(module))
            if "nf4" not in name or tensor.numel() not in (16, 256)  # its tables of values
        )
        assert sum(weight_bits(chosen, 32)) / 8 * linear == pytest.approx(held, rel=0.08), name


def _alone(module: Any) -> Any:
    """Return a module without its children."""
    copy = torch.nn.Module()
    copy.__dict__.update({**module.__dict__, "_modules": {}})
    return copy


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        ({"quant_method": "hqq", "nbits": 4, "group_size": 64}, "hqq4"),
        ({"quant_method": "hqq", "nbits": 3, "group_size": 64}, "hqq 3-bit"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao-int8"),
        ({"quant_method": "gptq", "bits": 4, "dataset": "c4"}, "gptq 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
    ],
)
def test_settings_that_mean_a_short_name_are_it(chosen: dict[str, Any], name: str) -> None:
    assert quantization_name(settings_of(chosen)) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{ quant_method = "hqq", nbist = 4 }', 'quantization.nbist: unknown setting; did you mean "nbits"?'),
        ('{ quant_method = "hqq", nbits = 5 }', "quantization.nbits: should be one of"),
        ('{ quant_method = "hqqq", nbits = 4 }', 'did you mean "hqq"?'),
        ('{ quant_method = "torchao" }', "quantization.quant_type: is required"),
        ('{ quant_method = "torchao", quant_type = "Int8WeightOnly" }', 'did you mean "Int8WeightOnlyConfig"?'),
        ('"hqq5"', 'did you mean "hqq4"?'),
    ],
)
def test_misspelt_settings_are_told(text: str, message: str) -> None:
    head = 'study.name = "s"\nmodel.path = "m"\ndata.path = "d"\n'
    for spec in (f"quantization = {text}\n{head}", f"{head}[[sweep]]\nquantization = [{text}]\n"):
        with pytest.raises(SpecError) as caught:
            parse(spec, Path("study.toml"))
        told = str(caught.value)
        assert message.removeprefix("quantization.") in told
        assert "quantization" in told


def test_configs_are_transformers_own() -> None:
    from transformers import AwqConfig, GPTQConfig

    gptq = quantization_config_of({"quant_method": "gptq", "bits": 8, "dataset": ["a text"], "group_size": 32})
    assert isinstance(gptq, GPTQConfig)
    assert (gptq.bits, gptq.group_size, gptq.dataset, gptq.desc_act) == (8, 32, ["a text"], False)
    awq = quantization_config_of({"quant_method": "awq", "backend": "torch_awq"})
    assert isinstance(awq, AwqConfig)
    assert awq.backend == "torch_awq"
    double = quantization_config_of(DOUBLE)
    assert double.bnb_4bit_use_double_quant
    assert double.bnb_4bit_compute_dtype == torch.bfloat16


def quantization_config_of(chosen: dict[str, Any]) -> Any:
    """Return the config as it would be where the library is installed."""
    from lorafile.engine.model import quantized

    settings = settings_of(chosen)
    assert settings is not None
    given = {key: value for key, value in settings.items() if value is not None and key != "quant_method"}
    return quantized.CONFIGS[settings.get("quant_method", "bitsandbytes")](given, torch.bfloat16)


@pytest.mark.parametrize(
    ("method", "package"), [("gptq", "gptqmodel"), ("awq", "gptqmodel"), ("compressed-tensors", "compressed-tensors")]
)
def test_a_missing_library_is_named(method: str, package: str) -> None:
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(NodeError, match=f"pip install .*{package}"):
        check_libraries(method, "quantization")


def test_a_missing_library_fails_its_node_in_a_sentence(engine: Engine) -> None:
    if importlib.util.find_spec("gptqmodel"):
        pytest.skip("gptqmodel is installed here")
    prepared = engine.prepare()
    quantized = Quantized(engine.model, engine.rows, engine.root)
    quantized.count = engine.count
    quantized.settings = settings_of({"quant_method": "gptq", "bits": 4, "dataset": ["a text"]})
    done, _ = quantized.train(prepared)
    assert done.outcome == "failed"
    assert done.message == (
        "quantization: a gptq base needs gptqmodel and optimum, not installed here. "
        "Install with: pip install gptqmodel optimum"
    )


def test_groups_that_do_not_fit_are_told(engine: Engine) -> None:
    chosen = settings_of({"quant_method": "hqq", "group_size": 24})
    with pytest.raises(
        NodeError, match=r"HQQ cannot quantize model\.layers\.0\.self_attn\.q_proj, of shape \(64, 64\)"
    ):
        load_base({"model": MODEL, "quantization": chosen}, {"model": str(engine.model)})
    assert quantization_config(settings_of("hqq4") or {}, torch.float32).quant_method == "hqq"


# Checkpoints that were quantized before


@pytest.fixture(scope="module", params=["nf4", "nf4 double", "int8", "torchao-int8"])
def checkpoint(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers has saved in quantized form."""
    from transformers import AutoTokenizer

    where = tmp_path_factory.mktemp("quantized") / "model"
    chosen = settings_of(TRAINED.get(request.param, request.param))
    load_base({"model": MODEL, "quantization": chosen}, {"model": str(tiny_model)}).model.save_pretrained(where)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(where)
    return where


def test_the_inventory_of_a_quantized_checkpoint_is_that_of_its_original(checkpoint: Path, tiny_model: Path) -> None:
    original = lock_model(ModelTable(path=str(tiny_model)), Path())
    found = lock_model(ModelTable(path=str(checkpoint)), Path())
    assert found.modules == original.modules
    assert found.parameters == original.parameters
    assert found.weights != original.weights


def test_a_quantized_checkpoint_trains_as_it_is(checkpoint: Path, rows_file: Path, tmp_path: Path) -> None:
    engine = Quantized(checkpoint, rows_file, tmp_path)
    prepared = engine.prepare()
    before = engine.predict(prepared, None)
    done, files = engine.train(prepared, max_steps=8)
    assert done.outcome == "done", done.message
    after = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before


def test_a_new_head_on_a_quantized_checkpoint_is_drawn_from_the_seed(checkpoint: Path) -> None:
    """Its own report of what is missing has the packed tensors' names in it."""

    def head(seed: int) -> torch.Tensor:
        model = {**MODEL, "task_type": "SEQ_CLS", "labels": ["a", "b", "c"], "head": "new"}
        base = load_base({"model": model, "quantization": None}, {"model": str(checkpoint)}, proven=False)
        base.draw_head(seed)
        assert base.drawn == ("score",)
        drawn: torch.Tensor = base.model.get_submodule("score").weight.detach().clone()
        return drawn

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


SPEC = """
[study]
name = "q"
[model]
path = "{model}"
[data]
path = "{data}"
{more}
"""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[[sweep]]\nquantization = ["int8"]', "is already quantized"),
        ('[[sweep]]\nmethod = ["full"]', "cannot be fully fine-tuned"),
    ],
)
def test_a_quantized_checkpoint_is_not_quantized_again(
    checkpoint: Path, rows_file: Path, tmp_path: Path, more: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        _build(SPEC.format(model=checkpoint, data=rows_file, more=more), tmp_path)
    graph = _build(SPEC.format(model=checkpoint, data=rows_file, more=""), tmp_path)
    assert graph.sections["lora"]["quantization"] is None
    assert "q_proj" in graph.sections["lora"]["adapter"]["target_modules"]


def test_awq_needs_a_checkpoint(tiny_model: Path, rows_file: Path, tmp_path: Path) -> None:
    more = '[[sweep]]\nquantization = [{ quant_method = "awq" }]'
    with pytest.raises(SpecError, match="a model cannot be quantized with AWQ when it is loaded"):
        _build(SPEC.format(model=tiny_model, data=rows_file, more=more), tmp_path)


def test_hqq_is_not_spread(tiny_model: Path, rows_file: Path, tmp_path: Path) -> None:
    text = SPEC.format(model=tiny_model, data=rows_file, more='[[sweep]]\nquantization = ["hqq4"]')
    with pytest.raises(SpecError, match="an HQQ base is created on one GPU"):
        _build(text.replace("[data]", 'device_map = "auto"\n[data]'), tmp_path)


def _build(text: str, tmp_path: Path) -> Any:
    spec = parse(text, tmp_path / "study.toml")
    return build(spec, resolve(spec, None)[0])


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_packed_checkpoint_has_the_layers_of_what_it_was(method: str, tiny_model: Path, tmp_path: Path) -> None:
    """Its library need not be here to plan it: packed tensors are not read."""
    from safetensors.torch import save_file

    path = tmp_path / "model"
    shutil.copytree(tiny_model, path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    packed = {"model.layers.0.self_attn.q_proj.qweight": torch.zeros(8, 64, dtype=torch.int32)}
    save_file(packed, path / "model.safetensors", metadata={"format": "pt"})
    original = lock_model(ModelTable(path=str(tiny_model)), Path())
    found = lock_model(ModelTable(path=str(path)), Path())
    assert found.modules == original.modules
    assert found.parameters == original.parameters


def test_bases_of_different_quantizations_are_not_shared(engine: Engine) -> None:
    bases = Bases()
    kinds = set()
    for name in ("none", "hqq4", "torchao-int8"):
        base = bases.get({"model": MODEL, "quantization": settings_of(name)}, {"model": str(engine.model)})
        layer = base.model.model.layers[0].self_attn.q_proj
        kinds.add((type(layer).__name__, type(getattr(layer, "weight", None)).__name__))
    assert len(kinds) == 3
