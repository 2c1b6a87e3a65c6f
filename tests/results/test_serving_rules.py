"""What servers take of an adapter, on files as PEFT writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lorafile.lock.lockfile import ModelLock
from lorafile.results.serving_rules import problems

LAYERS = (0, 1)
PROJECTION = "model.layers.{}.self_attn.q_proj"
BASE = ModelLock(None, "", "", "", "float32", 0, 0, {}, {PROJECTION.format(layer): [4, 4] for layer in LAYERS})


def adapter(folder: Path, modules: list[str], **settings: Any) -> dict[str, str]:
    tensors = {f"base_model.model.{name}.lora_A.weight": np.zeros((2, 4), np.float32) for name in modules}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "bias": "none"} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return {name: str(folder / name) for name in ("adapter_config.json", "adapter_model.safetensors")}


@pytest.mark.parametrize("server", ["vllm", "tgi"])
def test_a_plain_adapter_is_taken_and_what_changes_it_is_refused(server: str, tmp_path: Path) -> None:
    everywhere = [PROJECTION.format(layer) for layer in LAYERS]
    assert problems(server, adapter(tmp_path, everywhere), BASE) == []
    assert "DoRA" in problems(server, adapter(tmp_path, everywhere, use_dora=True), BASE)[0]
    assert "this one is IA3" in problems(server, adapter(tmp_path, everywhere, peft_type="IA3"), BASE)[0]


def test_tgi_leaves_out_what_not_every_layer_has(tmp_path: Path) -> None:
    some = adapter(tmp_path, [PROJECTION.format(0)])
    assert problems("vllm", some, BASE) == []
    assert problems("tgi", some, BASE) == ["it ignores modules that are not adapted in every layer (self_attn.q_proj)"]


def test_tgi_knows_the_modules_of_llama_alone(tmp_path: Path) -> None:
    other = ModelLock(None, "", "", "", "float32", 0, 0, {}, {"transformer.h.0.attn.c_attn": [4, 4]})
    files = adapter(tmp_path, ["transformer.h.0.attn.c_attn"])
    assert "not c_attn" in problems("tgi", files, other)[0]
