"""A user's function that initializes adapters: what it is given, what becomes of what it returns, and how it fails."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine  # noqa: E402
from methods_fixture import plain_logits  # noqa: E402
from pack_runs_fixture import Runs, assert_agree  # noqa: E402
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel  # noqa: E402

from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.model.adapters import new_adapter  # noqa: E402
from lorafile.engine.request import Request  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning", ":RuntimeWarning")
]
TENSORS = "adapter_model.safetensors"
SPECTRAL = """
import torch
from helper import half

def spectral(name, A, B, weight, generator):
    assert weight.shape == (len(B), A.shape[1]), name
    assert weight.dtype == A.dtype == B.dtype == torch.float32
    print("a line on the standard output")
    U, S, V = torch.linalg.svd(weight, full_matrices=False)
    return half(V[: len(A)]), half(U[:, : len(A)])
"""
HELPER = "def half(matrix):\n    return matrix / 2\n"
DRAWN = """
import random
import numpy as np
import torch

def drawn(name, A, B, weight, generator):
    A = torch.randn(A.shape, generator=generator) + torch.rand(1) + random.random() + np.random.rand()
    return A / A.norm(), B
"""
BY_FUNCTION = {**LORA, "init_lora_weights": {"function": "spectral", "digest": "0"}}


def code(source: str = SPECTRAL, function: str = "spectral", **modules: list[str]) -> dict[str, Any]:
    modules = modules or ({"helper": ["helper.py", HELPER]} if "helper" in source else {})
    return {"file": "code/init.py", "function": function, "source": source, "modules": modules}


def begun(engine: Engine, adapter: dict[str, Any], model: Path, seed: int = 3) -> dict[str, torch.Tensor]:
    """Return the trainable tensors of an adapter before the first step, by PEFT's names."""
    settings = {"model": MODEL, "quantization": None, "adapter": adapter, "seed": seed}
    paths = {"model": str(model), "model_name": "tiny", "initializer": engine.initializer}
    request = Request("key", "train", "run", settings, paths)
    tokens = Tokens.load(engine.prepare()["tokens.safetensors"])
    with engine.bases.proven(settings, paths) as base, new_adapter(base, request, tokens, 1) as begins:
        return {name: p.detach().clone() for name, p in begins.named_parameters() if p.requires_grad}


def test_a_and_b_are_what_the_function_returns(engine: Engine) -> None:
    engine.initializer = code()
    tensors = begun(engine, BY_FUNCTION, engine.model)
    weights = AutoModelForCausalLM.from_pretrained(engine.model).state_dict()
    for module in ("self_attn.q_proj", "mlp.down_proj"):
        name = f"model.layers.1.{module}"
        left, _, right = torch.linalg.svd(weights[f"{name}.weight"], full_matrices=False)
        for side, expected in (("A", right[:4] / 2), ("B", left[:, :4] / 2)):
            found = tensors[f"base_model.model.{name}.lora_{side}.default.weight"]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_doras_magnitudes_follow(engine: Engine) -> None:
    engine.initializer = code()
    tensors = begun(engine, {**BY_FUNCTION, "use_dora": True}, engine.model)
    weights = AutoModelForCausalLM.from_pretrained(engine.model).state_dict()
    name = "model.layers.0.self_attn.q_proj"
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.default.weight"] for side in "AB")
    expected = (weights[f"{name}.weight"] + 2 * b @ a).norm(dim=1)
    found = tensors[f"base_model.model.{name}.lora_magnitude_vector.default.weight"]
    torch.testing.assert_close(found, expected)


def test_layers_that_store_their_weights_otherwise(engine: Engine, tmp_path: Path) -> None:
    """An embedding, and GPT-2's layers; the function itself checks the shapes that it is given."""
    engine.initializer = code()
    assert begun(engine, {**BY_FUNCTION, "target_modules": ["embed_tokens"]}, engine.model)
    config = GPT2Config(vocab_size=1024, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    for file in engine.model.glob("*token*"):
        (tmp_path / "gpt2" / file.name).write_bytes(file.read_bytes())
    settings = {**BY_FUNCTION, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
    engine.bases.drop()
    tensors = begun(engine, settings, tmp_path / "gpt2")
    assert {tuple(tensor.shape) for name, tensor in tensors.items() if "lora_A" in name} == {(4, 32)}


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_it_trains_repeats_and_loads_in_plain_peft(engine: Engine, quantization: str) -> None:
    prepared = engine.prepare()
    engine.initializer = code(DRAWN, "drawn")
    done, files = engine.train(prepared, BY_FUNCTION, quantization=quantization)
    assert done.outcome == "done", done.message
    again = engine.train(prepared, BY_FUNCTION, quantization=quantization)[1]
    assert Path(files[TENSORS]).read_bytes() == Path(again[TENSORS]).read_bytes()
    other = engine.train(prepared, BY_FUNCTION, quantization=quantization, seed=2)[1]
    assert Path(files[TENSORS]).read_bytes() != Path(other[TENSORS]).read_bytes()
    if quantization == "none":
        ours = [row["log_likelihood"] for row in engine.predict(prepared, files, size=1)]
        assert ours == pytest.approx(plain_logits(engine.model, Path(files[TENSORS]).parent, prepared), abs=1e-4)


def test_runs_together_begin_as_alone(engine: Engine) -> None:
    runs = Runs(engine)
    runs.initializer = code(DRAWN, "drawn")
    mix: list[dict[str, Any]] = [{"adapter": BY_FUNCTION}, {"adapter": BY_FUNCTION, "seed": 2}, {"seed": 3}]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))


FAILS = {
    "    return A / 0 if len(B) else missing": "the A that f returns for model.layers.0.self_attn.q_proj has numbers",
    "    return A, B[1:]": "the B that f returns for model.layers.0.self_attn.q_proj should be 64×4, not 63×4",
    "    return A": "TypeError: f should return (A, B), not Tensor",
    "    return 1, B": "should be a tensor, not int",
    "    x = 1\n    return A[x, 'y'], B": "init_lora_weights: f of code/init.py, line 3: ",
    "    raise SystemExit(4)": "line 2: SystemExit: 4",
    "    import helper\n    return A, B": "line 2: ModuleNotFoundError: No module named 'helper'",
    "    import os\n    os._exit(3)": "f of code/init.py ended its process with code 3 at model.layers.0.self_attn.q_p",
}


@pytest.mark.parametrize("body", FAILS)
def test_a_function_that_fails_is_one_sentence(engine: Engine, body: str) -> None:
    source = f"def f(name, A, B, weight, generator):\n{body}\n".replace("A / 0 if len(B) else missing", "A / 0, B")
    engine.initializer = {"file": "code/init.py", "function": "f", "source": source, "modules": {}}
    done, _ = engine.train(engine.prepare(), BY_FUNCTION)
    assert done.outcome == "failed"
    assert FAILS[body] in done.message
    assert "\n" not in done.message
