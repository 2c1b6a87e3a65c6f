"""Words for parts of a model, against the names that PEFT finds them by."""

import re
from typing import Any

import pytest

from lorafile.errors import NodeError
from lorafile.specs import bounded_regex
from lorafile.specs.target_modules import Inventory, layer_indexes, target_names

LAYERS = range(2)


def inventory(prefix: str, *modules: str) -> Inventory:
    return {f"{prefix}.{layer}.{module}": [4, 4] for layer in LAYERS for module in modules}


LLAMA = inventory(
    "model.layers",
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
GPT2 = inventory("transformer.h", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
NEOX = inventory(
    "gpt_neox.layers",
    "attention.query_key_value",
    "attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
)
FALCON = inventory("transformer.h", "self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h")
PHI = inventory("model.layers", "self_attn.q_proj", "self_attn.dense", "mlp.fc1", "mlp.fc2")
PHI3 = inventory("model.layers", "self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
OPT = inventory("model.decoder.layers", "self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2")

BERT = inventory(
    "bert.encoder.layer",
    *("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"),
)


@pytest.mark.parametrize("layers", range(1, 50))
def test_thirds_cover_every_layer_once_in_order(layers: int) -> None:
    thirds = [layer_indexes(f"{word}-third", layers) for word in ("first", "middle", "last")]
    assert [*thirds[0], *thirds[1], *thirds[2]] == list(range(layers))
    sizes = sorted(map(len, thirds))
    assert sizes[2] - sizes[0] <= 1
    assert len(thirds[0]) == len(thirds[2])


def test_alternate_is_every_second_layer() -> None:
    assert layer_indexes("alternate", 5) == [0, 2, 4]


@pytest.mark.parametrize(
    ("model", "attention", "mlp"),
    [
        (LLAMA, ["k_proj", "o_proj", "q_proj", "v_proj"], ["down_proj", "gate_proj", "up_proj"]),
        (GPT2, ["attn.c_proj", "c_attn"], ["c_fc", "mlp.c_proj"]),
        (NEOX, ["dense", "query_key_value"], ["dense_4h_to_h", "dense_h_to_4h"]),
        (FALCON, ["dense", "query_key_value"], ["dense_h_to_4h"]),
        (PHI, ["dense", "q_proj"], ["fc1", "fc2"]),
        (PHI3, ["o_proj", "qkv_proj"], ["down_proj", "gate_up_proj"]),
        (OPT, ["out_proj", "q_proj"], ["fc1", "fc2"]),
        (BERT, ["attention.output.dense", "query"], [*(f"{n}.output.dense" for n in LAYERS), "intermediate.dense"]),
    ],
)
def test_groups_are_named_as_the_model_names_them(model: Inventory, attention: list[str], mlp: list[str]) -> None:
    assert target_names("attention", model) == attention
    assert target_names("mlp", model) == mlp
    assert target_names(["attention", "mlp"], model) == target_names("all-linear", model)


def test_all_linear_needs_no_more_than_last_names() -> None:
    assert target_names("all-linear", GPT2) == ["c_attn", "c_fc", "c_proj"]


def test_the_same_modules_written_differently_are_the_same_names() -> None:
    expected = ["q_proj", "v_proj"]
    for written in (["v_proj", "q_proj"], ["self_attn.q_proj", "v_proj"], r".*\.(q|v)_proj"):
        assert target_names(written, LLAMA) == expected


def test_a_single_module_keeps_as_much_of_its_path_as_it_needs() -> None:
    assert target_names(["model.layers.1.self_attn.q_proj"], LLAMA) == ["1.self_attn.q_proj"]


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (
            ["q_prj"],
            'no linear layer of the model is named "q_prj"; did you mean "q_proj"? The model\'s linear layers: down',
        ),
        (["q_proj", "lm_head"], 'named "lm_head". The model\'s linear layers: down_proj, gate_proj, k_proj'),
        ("atention", 'did you mean "attention"?'),
        ("q_proj", 'write ["q_proj"] for the modules with that name'),
        ("(", '"(" is not a valid regular expression'),
    ],
)
def test_a_target_that_is_nowhere_is_told_with_what_there_is(targets: Any, told: str) -> None:
    with pytest.raises(NodeError, match=re.escape(told)):
        target_names(targets, LLAMA)


def test_a_pattern_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_regex, "SECONDS", 0.5)
    with pytest.raises(NodeError, match=r"takes longer than 0\.5 s to match"):
        target_names("(a+)+b", {"layers.0." + "a" * 60: [1, 1], "a" * 60: [1, 1]})


def test_a_group_that_a_model_does_not_have() -> None:
    with pytest.raises(NodeError, match='"attention" matches nothing in this model'):
        target_names("attention", inventory("backbone.layers", "mixer.in_proj"))


# Against PEFT itself, on tiny random models

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "n_embd": 16,
    "n_layer": 3,
    "n_head": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize("targets", ["attention", "mlp", "all-linear"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi", "phi3", "qwen2", "gemma", "mistral", "gpt_neox"])
def test_peft_wraps_exactly_the_wanted_modules(kind: str, targets: str) -> None:
    pytest.importorskip("torch")
    import peft
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **(GPT2_SIZES if kind == "gpt2" else SIZES))
    model = AutoModelForCausalLM.from_config(config)
    linear = {
        name: list(module.weight.shape)
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not model.get_output_embeddings()
    }
    wanted = {
        name
        for name in linear
        if targets == "all-linear" or ("attn" in name or "attention" in name) == (targets == "attention")
    }
    layers = [0, 2]
    settings = peft.LoraConfig(
        r=1,
        target_modules=target_names(targets, linear),
        layers_to_transform=layers,
        fan_in_fan_out=kind == "gpt2",
    )
    wrapped = peft.inject_adapter_in_model(settings, model)
    found = {name for name, module in wrapped.named_modules() if hasattr(module, "lora_A")}
    assert found == {name for name in wanted if int(re.findall(r"\.(\d+)\.", name)[0]) in layers}
