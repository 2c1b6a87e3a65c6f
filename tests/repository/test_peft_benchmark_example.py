"""The example of PEFT's comparison: its protocol, its published figures, and a plan of every configuration."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lorafile import Study
from lorafile.graph.build import build
from lorafile.graph.parameter_count import adapter_parameters, trained_adapter
from lorafile.lock.lockfile import ModelLock, identity, resolve
from lorafile.specs import load
from lorafile.specs.tables.methods import METHODS

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "peft-benchmark"
EXAMPLE = FOLDER / "study.toml"
# What the built-in model has no room for: 28 layers, these tokens, and vectors that long.
STAND_IN = {
    "adapter_layers = 28": "adapter_layers = 4",
    "[128000, 128001]": "[1, 2]",
    "vector_length = 256": "vector_length = 64",
}
LAYERS, WIDTH = 28, 3072  # of Llama-3.2-3B
SHAPES = {
    **{"self_attn.q_proj": [3072, 3072], "self_attn.k_proj": [1024, 3072], "self_attn.v_proj": [1024, 3072]},
    **{"self_attn.o_proj": [3072, 3072], "mlp.gate_proj": [8192, 3072], "mlp.up_proj": [8192, 3072]},
    "mlp.down_proj": [3072, 8192],
}


def test_its_protocol_is_that_of_the_published_runs() -> None:
    spec = load(EXAMPLE)
    assert spec.tables.study.seeds == [0, 1, 2]
    by_name = {configuration.name.partition("/")[2]: configuration for configuration in spec.configurations}
    for name, configuration in by_name.items():
        if configuration.train is None:
            continue
        train = configuration.train
        assert (train.max_steps, train.per_device_train_batch_size, train.gradient_accumulation_steps) == (5000, 4, 1)
        assert (train.lr_scheduler_type, train.warmup_steps, train.max_grad_norm) == ("cosine", 0.1, 1.0), name
        assert configuration.data.max_length == 768
    plain = by_name["lora-r32"].train
    assert plain is not None
    assert (plain.learning_rate, plain.weight_decay) == (1e-4, 0.1)
    full = by_name["full"].train
    assert full is not None
    assert (full.learning_rate, full.weight_decay) == (1e-5, 0.01), "torch's own decay where a run names none"


def test_every_trained_configuration_has_a_published_figure() -> None:
    tables, trained = load(EXAMPLE).tables, [c for c in load(EXAMPLE).configurations if c.train is not None]
    assert len(tables.reference) == len(trained) == 59
    for reference in tables.reference:
        assert reference.n == 1319
        right = reference.value * reference.n
        assert abs(right - round(right)) < 1e-3, reference.name
        assert (reference.sd, reference.seeds) == (0.0117, 86)
        assert "peft 0.19" in reference.source or "peft 0.2" in reference.source


def written(folder: Path, stand_in: dict[str, str]) -> Path:
    """Write the spec with the built-in model and a few rows of its data."""
    for split, count in (("train", 40), ("test", 8)):
        rows = ({"query": f"What is {n} + 1?", "response": f"{n + 1}\n#### {n + 1}"} for n in range(count))
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    text = EXAMPLE.read_text(encoding="utf-8")
    here = {"meta-llama/Llama-3.2-3B": "builtin:facts-llama", "../data/metamathqa-gsm8k": "."}
    for old, new in {**here, **stand_in}.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    return folder / "study.toml"


def test_every_configuration_can_be_planned(tmp_path: Path) -> None:
    plan = Study.load(written(tmp_path, STAND_IN), tmp_path / ".lora").plan()
    kinds = Counter(plan.graph.nodes[change.key].kind for change in plan.work)
    assert (kinds["train"], kinds["predict"], kinds["score"]) == (59 * 3, 59 * 3 + 1, 59 * 3 + 1)


def llama_3b(model: ModelLock) -> ModelLock:
    """Return a lock of Llama-3.2-3B's linear layers and norms."""
    layers = [f"model.layers.{layer}" for layer in range(LAYERS)]
    norms = [f"{layer}.{name}" for layer in layers for name in ("input_layernorm", "post_attention_layernorm")]
    return replace(
        model,
        parameters=3_212_749_824,
        settings=model.settings
        | {"hidden_size": WIDTH, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128}
        | {"num_hidden_layers": LAYERS, "intermediate_size": 8192, "vocab_size": 128_256},
        modules={f"{layer}.{name}": shape for layer in layers for name, shape in SHAPES.items()},
        tensors={f"{name}.weight": [WIDTH] for name in [*norms, "model.norm"]}
        | {"model.embed_tokens.weight": [128_256, WIDTH]},
    )


def test_each_trains_as_many_parameters_as_its_published_run(tmp_path: Path) -> None:
    spec = load(written(tmp_path, {}))
    lock = resolve(spec, None)[0]
    models = {identity(c.model): llama_3b(lock.models[identity(c.model)]) for c in spec.configurations}
    graph = build(spec, replace(lock, models=models))
    trained = [c for c in spec.configurations if c.train is not None]
    for configuration, reference in zip(trained, spec.tables.reference, strict=True):
        adapter = trained_adapter(graph.sections[configuration.name])
        counted = adapter_parameters(adapter, models[identity(configuration.model)])
        assert counted == reference.costs["trainable_parameters"], (configuration.name, reference.name)


def test_the_small_study_plans_every_method_against_lora(tmp_path: Path) -> None:
    """A method that is new in METHODS is to be added to it."""
    study = Study.load(FOLDER / "study-small.toml", tmp_path / ".lora")
    methods = [c.method for c in study.spec.configurations]
    assert sorted(methods) == sorted([*METHODS, "none", "full"])
    assert len(study.spec.tables.study.seeds) == 3
    plan = study.plan()
    kinds = Counter(plan.graph.nodes[change.key].kind for change in plan.work)
    assert (kinds["train"], kinds["profile"]) == (3 * (len(METHODS) + 1), 0)


def test_the_study_of_a_real_model_compares_six_methods() -> None:
    spec = load(FOLDER / "study-smollm2.toml")
    trained = [c for c in spec.configurations if c.train is not None]
    assert len({c.method for c in trained}) == len(trained) == 6
    assert all(c.train is not None and c.train.max_steps <= 30 for c in trained)
    assert not spec.tables.profile.enabled
