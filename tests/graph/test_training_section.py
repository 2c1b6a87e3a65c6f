"""What decays, and rates of single modules, in a key: only what changes a result stands there."""

import json
from typing import Any

import pytest
from spec_fixture import parse

from lorafile.errors import ModelError
from lorafile.graph.settings import resolved_sections
from lorafile.lock.lockfile import Lock, ModelLock

MODULES = {
    f"model.layers.{layer}.self_attn.{name}": [32, 32]
    for layer in range(2)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj")
} | {f"model.layers.{layer}.mlp.down_proj": [32, 64] for layer in range(2)}
LLAMA = {
    "model.embed_tokens.weight": [80, 32],
    "model.layers.0.input_layernorm.weight": [32],
    "model.layers.0.self_attn.q_norm.weight": [32],
    "model.norm.weight": [32],
}
GPT2 = {"transformer.wte.weight": [80, 32], "transformer.ln_f.weight": [32], "transformer.ln_f.bias": [32]}
MAMBA = {**LLAMA, "model.layers.0.mixer.D": [64]}
T5 = {**LLAMA, "decoder.relative_attention_bias.weight": [32, 4]}


def section(text: str, tensors: dict[str, list[int]] = LLAMA, as_written: bool = False) -> dict[str, Any]:
    spec = parse(text)
    model = ModelLock(None, "", "", "", "float32", 0, 0, {}, MODULES, tensors)
    lock = Lock({"m": model}, {}, as_written=as_written)
    training: dict[str, Any] = resolved_sections(spec.configurations[0], lock)["training"]
    return training


@pytest.mark.parametrize("as_written", [False, True])
@pytest.mark.parametrize(
    ("text", "tensors", "protocol"),
    [
        ("[train]\nweight_decay = 0.1", LLAMA, None),
        ("[train]\nweight_decay = 0.1\n[lora]\nuse_dora = true", LLAMA, 2),
        ("[lora]\nuse_dora = true", LLAMA, None),
        ("method = 'ia3'\n[train]\nweight_decay = 0.1", LLAMA, 2),
        ("method = 'vera'\n[train]\nweight_decay = 0.1", LLAMA, 2),
        ("method = 'adalora'\n[train]\nweight_decay = 0.1", LLAMA, None),
        ("method = 'ln_tuning'\n[train]\nweight_decay = 0.1", LLAMA, None),
        ("[train]\nweight_decay = 0.1\n[lora]\nmodules_to_save = ['norm', 'embed_tokens']", LLAMA, None),
        ("method = 'full'\n[train]\nweight_decay = 0.1", LLAMA, None),
        ("method = 'full'\n[train]\nweight_decay = 0.1", GPT2, None),
        ("method = 'full'\n[train]\nweight_decay = 0.1", MAMBA, 2),
        ("method = 'full'\n[train]\nweight_decay = 0.1", T5, 2),
        ("[train]\nweight_decay = 0.1\noptim = 'sgd'\n[lora]\nuse_dora = true", LLAMA, None),  # it never was otherwise
        ("[train]\nweight_decay = 0.1\nloraplus_lr_ratio = 2\n[lora]\nuse_dora = true", LLAMA, None),  # PEFT's groups
    ],
)
def test_runs_whose_decay_changed_have_a_protocol_of_their_own(
    text: str, tensors: dict[str, list[int]], protocol: int | None, as_written: bool
) -> None:
    assert section(text, tensors, as_written).get("decay_protocol") == protocol


def test_a_ratio_of_1_is_no_setting_with_dora_either() -> None:
    dora = "[train]\nweight_decay = 0.1\n{}\n[lora]\nuse_dora = true"
    assert section(dora.format("loraplus_lr_ratio = 1")) == section(dora.format(""))


@pytest.mark.parametrize("name", ["q_proj", "self_attn.q_proj", "layers.0", "self_attn"])
def test_a_rate_may_be_that_of_any_part_of_a_path(name: str) -> None:
    assert section(f"[train]\nlearning_rates = {{ '{name}' = 1e-3 }}")["learning_rates"] == {name: 1e-3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rates = { q_prj = 1e-3 }", 'no trained module is named "q_prj"; did you mean "q_proj"?'),
        (
            "learning_rates = { down_proj = 1e-3 }\n[lora]\ntarget_modules = 'attention'",
            'no trained module is named "down_proj"; did you mean "o_proj"?',
        ),
        ("learning_rates = { proj = 1e-3 }\n[lora]\ntarget_modules = ['q_proj']", 'did you mean "q_proj"'),
        ("learning_rates = { experts = 1e-3 }\n[lora]\ntarget_modules = ['q_proj']", "it trains q_proj."),
    ],
)
def test_a_rate_of_what_is_not_trained_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        section(f"[train]\n{text}")
    assert message in str(caught.value)


def test_all_weights_may_have_rates_of_their_own() -> None:
    rates = {"embed_tokens": 1e-5, "q_proj": 1e-4}
    text = f"method = 'full'\n[train]\nlearning_rates = {json.dumps(rates).replace(':', ' =')}"
    assert section(text)["learning_rates"] == rates
