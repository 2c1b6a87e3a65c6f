"""A model is what its checkpoint says: what a plan refuses of one, and what stands in the lock of the others."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from checkpoint_fixture import make_checkpoint  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from spec_fixture import BASIC  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.errors import LoraError, SpecError  # noqa: E402
from lorafile.lock import description  # noqa: E402
from lorafile.lock.lockfile import describe_changes, read_lock, write_lock  # noqa: E402
from lorafile.specs.snapshot import is_encoder, model_types  # noqa: E402

Made = Callable[..., Study]


@pytest.fixture
def study(tmp_path: Path, rows_file: Path) -> Made:
    """Return a study of a model in a directory, with more of a spec."""

    def made(model: Path, more: str = "", **of_model: str) -> Study:
        text = BASIC.format(model=model, data=rows_file) + more
        for name, value in of_model.items():
            text = text.replace("[model]\n", f'[model]\n{name} = "{value}"\n')
        (tmp_path / "study.toml").write_text(text, encoding="utf-8")
        return Study.load(tmp_path / "study.toml", tmp_path / ".lora")

    return made


def refusal(study: Study) -> str:
    with pytest.raises(SpecError) as caught:
        study.plan()
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"{study.spec.file}:")
    return str(caught.value)


def change_weights(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


# What a checkpoint must hold


def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, study: Made) -> None:
    model = make_checkpoint("llama", tmp_path / "m")
    change_weights(model, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    said = refusal(study(model))
    assert "missing, and therefore random: model.layers.1.mlp.up_proj.weight" in said
    assert "LlamaForCausalLM" in said


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path, study: Made) -> None:
    model = make_checkpoint("llama", tmp_path / "m")
    name = "model.layers.0.self_attn.q_proj.weight"
    change_weights(model, lambda tensors: tensors.update({name: torch.zeros(16, 32)}))
    assert f"with shapes other than in config.json: {name}" in refusal(study(model))


def test_a_block_that_the_config_leaves_out_is_refused(tmp_path: Path, study: Made) -> None:
    model = make_checkpoint("llama", tmp_path / "m")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}), encoding="utf-8")
    said = refusal(study(model))
    weights = "model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight"
    assert f"not part of the model in config.json: {weights}" in said
    assert "and 6 more." in said


def test_the_head_of_another_task_is_no_part_of_the_model(tmp_path: Path, study: Made) -> None:
    """A masked language model's own head is left behind, and a new classifier's is the one exception."""
    model = make_checkpoint("bert", tmp_path / "m", encoder=True)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": "a b", "label": n % 2}) + "\n" for n in range(40)), encoding="utf-8")
    made = study(model, task_type="SEQ_CLS")
    made.spec.file.write_text(
        made.spec.file.read_text(encoding="utf-8")
        .replace(str(made.spec.tables.data.path), str(rows))
        .replace('metrics = ["log_loss"]', 'metrics = ["accuracy"]'),
        encoding="utf-8",
    )
    made = Study.load(made.spec.file, made.state)
    made.lock()
    lock = read_lock(made.spec)
    assert lock is not None
    (entry,) = lock.models.values()
    assert entry.head == {
        "bert.pooler.dense.weight": [32, 32],
        "bert.pooler.dense.bias": [32],
        "classifier.weight": [0, 32],
        "classifier.bias": [0],
    }
    assert made.plan().work


# What can be trained at all


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("bert", "is an encoder (bert)"),
        ("roberta", "is an encoder (roberta)"),
        ("t5", "is an encoder-decoder model (t5)"),
        ("bart", "is an encoder-decoder model (bart)"),
        ("qwen2_vl", "transformers has no causal language model of type qwen2_vl"),
        ("distilbert", "is an encoder (distilbert)"),
    ],
)
def test_what_cannot_be_a_causal_model_is_refused_from_its_config_alone(
    tmp_path: Path, study: Made, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    """Also where nothing is installed that could load it."""
    monkeypatch.setattr(description, "find_spec", lambda name: None)
    model = tmp_path / "m"
    model.mkdir()
    config = {"model_type": kind, "is_encoder_decoder": kind in ("t5", "bart")}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = refusal(study(model))
    assert words in said
    assert "model.path:" in said
    assert "use a" in said.lower()


def test_a_bert_that_was_made_a_decoder_is_one() -> None:
    assert is_encoder({"model_type": "bert"})
    assert not is_encoder({"model_type": "bert", "is_decoder": True})


def test_the_model_types_that_ship_are_those_of_transformers() -> None:
    """A newer transformers may know more of them."""
    from lorafile.engine.write_snapshot import model_types as installed

    for name, types in installed().items():
        ours = model_types()[name]
        assert len(ours & set(types)) > 0.9 * len(ours), name


# What stands in the lock


def test_the_layers_are_those_of_the_model_that_transformers_loads(tmp_path: Path, study: Made) -> None:
    from transformers import AutoModelForCausalLM

    model = make_checkpoint("mixtral", tmp_path / "m")
    made = study(model)
    made.lock()
    (entry,) = read_lock(made.spec).models.values()  # type: ignore[union-attr]
    loaded = AutoModelForCausalLM.from_pretrained(model)
    linear = {
        name: list(module.weight.shape)
        for name, module in loaded.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }
    assert entry.modules == linear
    assert entry.parameters == sum(parameter.numel() for parameter in loaded.parameters())
    assert entry.experts == {
        name: list(parameter.shape) for name, parameter in loaded.named_parameters() if ".experts." in name
    }


def test_a_vision_tower_is_not_adapted(tmp_path: Path, study: Made) -> None:
    model = make_checkpoint("gemma3", tmp_path / "m")
    plan = study(model, '[lora]\ntarget_modules = "all-linear"\n').plan()
    (entry,) = plan.graph.lock.models.values()
    assert entry.modules
    assert not any("vision" in name for name in entry.modules)
    assert any("vision_tower" in name for name in entry.reserved)
    names = plan.graph.sections["lora"]["adapter"]["target_modules"]
    assert not any(name.endswith(tuple(f".{ending}" for ending in names)) for name in entry.reserved)


def test_what_was_adapted_is_compared_with_what_was_planned(tmp_path: Path, study: Made) -> None:
    """A lock that says something else of a model than its classes fails the run, with both numbers."""
    model = make_checkpoint("llama", tmp_path / "m")
    made = study(model)
    made.lock()
    lock = read_lock(made.spec)
    assert lock is not None
    ((name, entry),) = lock.models.items()
    wrong = {module: shape for module, shape in entry.modules.items() if not module.endswith("layers.1.mlp.up_proj")}
    write_lock(made.spec, replace(lock, models={name: replace(entry, modules=wrong)}))
    failed = [attempt for attempt in made.apply().attempts if attempt.kind == "train"]
    assert {attempt.outcome for attempt in failed} == {"failed"}
    assert "model.layers.1.mlp.up_proj is not in the plan" in failed[0].message
    assert "lora lock" in failed[0].message


def test_a_lock_of_before_that_counts_otherwise_fails_the_run(tmp_path: Path, study: Made) -> None:
    """It was told by the names in the weight files, of which experts that are one tensor now were layers."""
    made = study(make_checkpoint("mixtral", tmp_path / "m"), '[lora]\ntarget_modules = "all-linear"\n')
    made.lock()
    lock = read_lock(made.spec)
    assert lock is not None
    ((name, entry),) = lock.models.items()
    experts = {f"model.layers.0.block_sparse_moe.experts.{number}.w2": [32, 64] for number in range(4)}
    older = replace(entry, modules={**entry.modules, **experts}, experts={}, transformers=None)
    write_lock(made.spec, replace(lock, models={name: older}))
    failed = [attempt for attempt in made.apply().attempts if attempt.kind == "train"]
    assert {attempt.outcome for attempt in failed} == {"failed"}
    assert "lora lock" in failed[0].message


def test_an_existing_lock_is_enough_without_the_libraries(
    tmp_path: Path, study: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(make_checkpoint("llama", tmp_path / "m"))
    made.lock()
    monkeypatch.setattr(description, "find_spec", lambda name: None)
    assert made.plan().work
    other = study(make_checkpoint("llama", tmp_path / "other", hidden_size=64))
    with pytest.raises(LoraError, match=r"pip install .*\[train\]"):
        other.plan()


def test_a_lock_is_renewed_by_lora_lock_alone_and_says_what_changed(tmp_path: Path, study: Made) -> None:
    made = study(make_checkpoint("llama", tmp_path / "m"))
    made.lock()
    lock = read_lock(made.spec)
    assert lock is not None
    ((name, entry),) = lock.models.items()
    fewer = dict(list(entry.modules.items())[1:])
    older = replace(lock, models={name: replace(entry, modules=fewer, transformers="5.0.0")})
    write_lock(made.spec, older)
    made.plan()
    assert read_lock(made.spec) == older
    made.lock()
    new = read_lock(made.spec)
    assert new == lock
    assert "transformers 5.0.0 → " in describe_changes(older, lock)[0]
    assert "other modules" in describe_changes(older, lock)[0]


def test_what_was_described_is_kept_for_the_next_study(
    tmp_path: Path, study: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = make_checkpoint("llama", tmp_path / "m")
    study(model).plan()
    (kept,) = (tmp_path / "cache").rglob("*.json")
    monkeypatch.setattr(description, "_ask", lambda *_: pytest.fail("asked again"))
    assert study(model).plan().work
    kept.write_text("{", encoding="utf-8")
    monkeypatch.undo()
    assert study(model).plan().work
