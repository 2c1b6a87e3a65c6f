"""Settings that change nothing change no key: what PEFT and transformers make with them is what they make without."""

from pathlib import Path
from typing import Any

import pytest
from spec_fixture import BASE

from lorafile import specs
from lorafile.graph.settings import resolved_sections
from lorafile.lock.lockfile import Lock, ModelLock
from lorafile.specs.tables.train import TrainTable

torch = pytest.importorskip("torch")

MODULES = {
    f"model.layers.{layer}.self_attn.{name}": [32, 32]
    for layer in range(2)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj")
}
MODEL = ModelLock(None, "", "", "", "float32", 0, 0, {}, MODULES)
IDLE: list[dict[str, Any]] = [
    {"layers_to_transform": [0, 1]},
    {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
    {"rank_pattern": {"q_proj": 4, "v_proj|k_proj": 4}},
    {"alpha_pattern": {"layers.0.self_attn.q_proj": 8}},
    {"exclude_modules": ["lm_head"]},
]
MEANT: list[dict[str, Any]] = [
    {"layers_to_transform": [1]},
    {"rank_pattern": {"q_proj": 4, "v_proj": 2}},
    {"rank_pattern": {"q_proj": 4, ".*_proj": 2}},  # the first that matches counts: without it all would have 2
    {"alpha_pattern": {"q_proj": 16}},
    {"exclude_modules": ["o_proj"]},
]


def adapter(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the section of an adapter of rank 4 with some settings."""
    lines = "".join(f"{name} = {_toml(value)}\n" for name, value in settings.items())
    spec = specs.parse(f"{BASE}[lora]\nr = 4\nlora_alpha = 8\ntarget_modules = 'attention'\n{lines}", Path("s.toml"))
    section: dict[str, Any] = resolved_sections(spec.configurations[0], Lock({"m": MODEL}, {}))["adapter"]
    return section


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"'{name}' = {item}" for name, item in value.items()) + " }"
    return repr(value)


def made_by_peft(settings: dict[str, Any]) -> dict[str, tuple[list[int], float]]:
    """Return the shape of each matrix that PEFT makes, and the scaling of its module."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], **settings}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
    modules = dict(model.named_modules())
    return {
        name: (list(parameter.shape), modules[name.partition(".lora_")[0]].scaling["default"])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.filterwarnings("ignore:You have passed exclude_modules", "ignore:`is_gradient_checkpointing`")
@pytest.mark.parametrize(("settings", "idle"), [(s, True) for s in IDLE] + [(s, False) for s in MEANT], ids=str)
def test_a_setting_of_an_adapter_counts_where_peft_makes_another_one_of_it(
    settings: dict[str, Any], idle: bool
) -> None:
    assert (made_by_peft(settings) == made_by_peft({})) is idle
    assert (adapter(settings) == adapter({})) is idle


def test_a_pattern_of_the_rank_still_counts_where_the_rank_is_solved() -> None:
    """Its modules keep their rank while that of the others follows another configuration's parameters."""
    sweep = '[[sweep]]\nname = "place"\nmatch = "parameters"\nlora.target_modules = ["attention", ["q_proj", "v_proj"]]'
    spec = specs.parse(f"{BASE}[lora]\nr = 8\nrank_pattern = {{ q_proj = 8 }}\n{sweep}\n", Path("s.toml"))
    first, solved = (resolved_sections(c, Lock({"m": MODEL}, {}))["adapter"] for c in spec.configurations)
    assert "rank_pattern" not in first
    assert solved["r"] == 24, "four modules of rank 8, of which q_proj keeps its own"
    assert solved["rank_pattern"] == {"q_proj": 8}


@pytest.mark.parametrize(
    ("settings", "alike"),
    [
        ({"max_steps": 5, "num_train_epochs": 1.0}, {"max_steps": 5}),
        ({"max_steps": 0}, {}),
        ({"lr_scheduler_type": "constant", "warmup_steps": 0.1}, {"lr_scheduler_type": "constant"}),
    ],
)
def test_training_settings_that_others_make_meaningless_have_their_default(
    settings: dict[str, Any], alike: dict[str, Any]
) -> None:
    assert TrainTable(**settings).results == TrainTable(**alike).results


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_other_schedules_warm_up(schedule: Any) -> None:
    assert TrainTable(lr_scheduler_type=schedule, warmup_steps=2).results["warmup_steps"] == 2


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_plus_of_ratio_1_steps_as_adamw(decay: float, dora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    from lorafile.engine.training.optimizer import make_optimizer

    settings = {"learning_rate": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.99, "adam_epsilon": 1e-8}
    after = []
    for ratio in ({}, {"loraplus_lr_ratio": 1.0}):
        torch.manual_seed(0)
        config = LoraConfig(r=2, target_modules=["0"], use_dora=dora, init_lora_weights=False)
        model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), config)
        optimizer = make_optimizer(model, {**settings, "weight_decay": decay, **ratio})
        for _ in range(3):
            model(torch.ones(1, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        after.append([p.detach().clone() for p in model.parameters() if p.requires_grad])
    assert all(map(torch.equal, *after))
