"""A model whose weights are not here: what config.json alone tells, from a directory and from a hub."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from click.testing import CliRunner
from hub_server import Hub, running
from test_fetch import lora

from lorafile import specs
from lorafile.cli.main import main
from lorafile.errors import LoraError, SpecError
from lorafile.lock.lockfile import resolve
from lorafile.study.study import Study

LLAMA_31_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}
SPEC = """
[study]
name = "fit"
seeds = [1]
[model]
path = "model"
[data]
path = "{rows}"
max_length = 32
[profile]
enabled = false
"""


@pytest.fixture
def spec(tmp_path: Path, rows_file: Path) -> Path:
    """A study of Llama-3.1-8B, of which there is nothing but a config.json."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(LLAMA_31_8B), encoding="utf-8")
    file = tmp_path / "study.toml"
    file.write_text(SPEC.format(rows=rows_file), encoding="utf-8")
    return file


def test_whether_it_fits_is_told_from_a_config_alone(spec: Path) -> None:
    done = CliRunner().invoke(main, ["plan", str(spec), "--gpu", "RTX 4090", "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    train = next(change for change in plan["changes"] if change["kind"] == "train")
    assert {change["key"] for change in plan["changes"]} == {None}
    assert train["forecast"]["peak_memory_bytes"] > 2 * 8_030_261_248  # its published number of parameters
    assert train["forecast"]["fits"] is True
    assert "The weights of model are missing" in plan["warnings"][0]
    assert "Its tokenizer is missing too" in plan["warnings"][0]


@pytest.mark.parametrize("named", [None, "float64"])
def test_a_type_that_is_assumed_is_said(spec: Path, named: str | None) -> None:
    config = {**LLAMA_31_8B, "dtype": named}
    (spec.parent / "model/config.json").write_text(json.dumps(config), encoding="utf-8")
    assumed = "names no usable dtype, so float32 is assumed; if that is wrong, set model.dtype."
    assert assumed in Study.load(spec).plan("H100").warnings[0]
    spec.write_text(spec.read_text(encoding="utf-8").replace("[data]", 'dtype = "bfloat16"\n[data]'), encoding="utf-8")
    assert assumed not in Study.load(spec).plan("H100").warnings[0]


def test_its_modules_and_parameters_are_those_of_the_published_model(spec: Path) -> None:
    lock, _ = resolve(specs.load(spec), None, without_weights=True)
    (model,) = lock.models.values()
    assert (model.parameters, len(model.modules), model.dtype) == (8_030_261_248, 7 * 32, "bfloat16")
    assert not model.is_locked


def test_without_a_gpu_to_compare_with_it_is_said_that_there_are_no_weights(spec: Path) -> None:
    with pytest.raises(SpecError, match=r"no weights.*lora plan --gpu"):
        Study.load(spec).plan()
    (spec.parent / "model/pytorch_model.bin").write_bytes(b"")
    with pytest.raises(SpecError, match=r"pytorch_model\.bin is not loaded, because it can run code"):
        Study.load(spec).plan()


def test_a_plan_that_only_estimates_can_be_neither_saved_nor_applied(spec: Path, tmp_path: Path) -> None:
    study = Study.load(spec, tmp_path / "state")
    plan = study.plan("24GB")
    with pytest.raises(LoraError, match="the weights of model are missing"):
        study.save_plan(plan, tmp_path / "plan.json")
    with pytest.raises(LoraError, match="the weights of model are missing"):
        study.apply(plan)


def test_a_packed_checkpoint_has_the_size_of_its_files_which_are_not_here(spec: Path) -> None:
    packed = LLAMA_31_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (spec.parent / "model/config.json").write_text(json.dumps(packed), encoding="utf-8")
    with pytest.raises(SpecError, match="is a quantized checkpoint"):
        Study.load(spec).plan("24GB")


def test_of_a_hub_only_the_small_files_are_downloaded(tiny_model: Path, rows_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(SPEC.format(rows=rows_file).replace('"model"', '"org/tiny"'), encoding="utf-8")
    with running(Hub({"models/org/tiny": {file.name: file for file in tiny_model.iterdir()}})) as hub:
        done = lora(hub, tmp_path, "plan", "--gpu", "H100")
        assert (done.returncode, done.stderr) == (0, "")
        assert "The weights of org/tiny are missing" in done.stdout.replace("\n", " ")
        assert "tokenizer is missing" not in done.stdout
        assert not [line for line in hub.asked if line.endswith(".safetensors")]
