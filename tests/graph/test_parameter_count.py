"""How many parameters each method trains, by its formula, and as PEFT itself makes them."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lorafile import specs
from lorafile.engine.model.methods import peft_config
from lorafile.engine.request import Request
from lorafile.graph.build import build
from lorafile.graph.parameter_count import adapter_parameters
from lorafile.lock.lockfile import identity, resolve
from lorafile.specs.tables.methods import METHODS

SIZES: dict[str, Any] = {
    **{"vocab_size": 563, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3},
    **{"num_attention_heads": 6, "num_key_value_heads": 2},
}
SETTINGS = {  # what a method needs, and settings that change its number of parameters
    "trainable_tokens": ["token_indices = [7, 5, 5, 9]"],
    "lora": ["", "use_dora = true", "lora_bias = true", 'init_lora_weights = "mica"', "rank_pattern = { q_proj = 3 }"],
    "lokr": ["", "r = 2\ndecompose_both = true\ndecompose_factor = 4"],
    "p_tuning": ["", 'encoder_hidden_size = 24\nencoder_reparameterization_type = "LSTM"'],
    "prefix_tuning": ["", "prefix_projection = true\nencoder_hidden_size = 24"],
    "cartridge": ["", "num_frozen_tokens = 3"],
    "oft": ["", "oft_block_size = 17", "block_share = true"],
    "boft": ["", "boft_block_size = 8"],
    "osf": ["", "effective_rank = 20"],
    "glora": ["", 'config_A_B = "vector"\nconfig_C = "vector"\nconfig_D_E = "vector"', 'config_A_B = "constant"'],
    "miss": ["r = 8", 'r = 16\ninit_weights = "bat"', 'r = 8\nmini_r = 4\ninit_weights = "mini"'],
    "psoft": ["", "psoft_orth = false\npsoft_mag_a = false"],
    "road": ["", 'variant = "road_4"'],
    "tinylora": ["", "weight_tying = 0.9", "weight_tying = 0.35"],
    "gralora": ["r = 8", "r = 8\nhybrid_r = 4"],
    "supertuning": ["", "r = 4\nlora_alpha = 8.0"],
    "shira": ["r = 4"],
    "delora": ["", "rank_pattern = { down_proj = 3 }"],
    "peanut": ["", "r = 4\ndepth = 2"],
    "frod": ["", "sparse_rate = 0.0001"],
    "adamss": ["", "r = 16\nnum_subspaces = 3"],
}
CASES = [(method, settings) for method in METHODS for settings in SETTINGS.get(method, [""])]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """Two models of three layers with tied embeddings, one of which has biases."""
    root = tmp_path_factory.mktemp("shapes")
    for name, kind, config in (("llama", LlamaForCausalLM, LlamaConfig), ("qwen2", Qwen2ForCausalLM, Qwen2Config)):
        torch.manual_seed(0)
        kind(config(**SIZES, tie_word_embeddings=True)).save_pretrained(root / name)
        for file in tiny_model.glob("*token*"):
            (root / name / file.name).write_bytes(file.read_bytes())
    return {name: root / name for name in ("llama", "qwen2")}


@pytest.mark.sampled(12)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("method", "settings"), CASES)
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_the_plan_counts_what_peft_trains(
    method: str, settings: str, model: str, models: dict[str, Path], rows_file: Path, tmp_path: Path
) -> None:
    from peft import get_peft_model

    if METHODS[method].model_types and model not in METHODS[method].model_types:
        pytest.skip("PEFT does not know the method for this type of model")
    text = f"""
        method = "{method}"
        study.name = "count"
        model.path = {json.dumps(str(models[model]))}
        data.path = {json.dumps(str(rows_file))}
        [{method}]
        {settings}
    """
    spec = specs.parse(text, tmp_path / "s.toml")
    graph = build(spec, resolve(spec, None)[0])
    (configuration,) = spec.configurations
    sections = graph.sections[configuration.name]
    counted = adapter_parameters(sections["adapter"], graph.lock.models[identity(configuration.model)])
    request = Request("key", "train", "count", sections, {"model": str(models[model])})
    made: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(models[model]), peft_config(request, 10))
    assert counted == made.get_nb_trainable_parameters()[0]
