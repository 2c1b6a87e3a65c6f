"""Small random models of the common architectures: placements by name, training, plain PEFT, merging, counting."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from architectures_fixture import save_model  # noqa: E402
from engine_fixture import Engine  # noqa: E402
from methods_fixture import METHODS, STARTS, plain_logits  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from lorafile.graph.parameter_count import adapter_parameters  # noqa: E402
from lorafile.graph.target_modules import placed  # noqa: E402
from lorafile.lock.lockfile import ModelLock, lock_model  # noqa: E402
from lorafile.specs.tables.settings import ModelTable  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning", ":RuntimeWarning")
]
QKVO = {"q_proj", "k_proj", "v_proj", "o_proj"}
GATED = {"gate_proj", "up_proj", "down_proj"}
# What the words stand for: the last parts of the modules' names, under attention and under feed-forward.
PARTS: dict[str, tuple[str, set[str], set[str]]] = {
    "llama": ("model.layers.{}.self_attn.", QKVO, GATED),
    "gpt2": ("transformer.h.{}.attn.", {"c_attn", "c_proj"}, {"c_fc", "c_proj"}),
    "phi": ("model.layers.{}.self_attn.", {"q_proj", "k_proj", "v_proj", "dense"}, {"fc1", "fc2"}),
    "qwen2": ("model.layers.{}.self_attn.", QKVO, GATED),
    "qwen3": ("model.layers.{}.self_attn.", QKVO, GATED),
    "gemma2": ("model.layers.{}.self_attn.", QKVO, GATED),
    "gemma3_text": ("model.layers.{}.self_attn.", QKVO, GATED),
    "mistral": ("model.layers.{}.self_attn.", QKVO, GATED),
    "phi3": ("model.layers.{}.self_attn.", {"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of three layers for each architecture, with the built-in tokenizer."""
    found = {name: tmp_path_factory.mktemp("architectures") / name for name in PARTS}
    for name, where in found.items():
        save_model(name, where, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 3})
    return found


@pytest.fixture
def engine(models: dict[str, Path], rows_file: Path, tmp_path: Path, name: str) -> Engine:
    return Engine(models[name], rows_file, tmp_path)


def locked(where: Path) -> ModelLock:
    return lock_model(ModelTable(path=str(where)), where)


def expected(name: str, word: str, layers: tuple[int, ...]) -> set[str]:
    """Return the whole names of the modules that a word stands for, as the model itself calls them."""
    start, attention, mlp = PARTS[name]
    found = set()
    for layer in layers:
        inside = start.format(layer)
        if word != "mlp":
            found |= {inside + part for part in attention}
        if word != "attention":
            found |= {inside.rsplit(".", 2)[0] + ".mlp." + part for part in mlp}
    return found


@pytest.mark.sampled(5)
@pytest.mark.parametrize("layers", [None, "last-third", [0, 2]], ids=str)
@pytest.mark.parametrize("word", ["attention", "mlp", "all-linear"])
@pytest.mark.parametrize("name", PARTS)
def test_a_word_is_the_right_modules_and_their_parameters_are_counted(
    models: dict[str, Path], name: str, word: str, layers: Any
) -> None:
    from peft import LoraConfig, get_peft_model

    lock = locked(models[name])
    adapter = {"r": 3, "target_modules": word, "use_dora": True}
    adapter |= {} if layers is None else {"layers_to_transform": layers}
    adapter = placed("lora", adapter, lock)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(models[name]), LoraConfig(**adapter, task_type="CAUSAL_LM")
    )
    found = {
        module.removeprefix("base_model.model.")
        for module, layer in model.named_modules()
        if hasattr(layer, "lora_A") and hasattr(layer, "base_layer")
    }
    which = {"last-third": (2,), "[0, 2]": (0, 2)}.get(str(layers), (0, 1, 2))
    assert found == expected(name, word, which)
    assert adapter_parameters({"method": "lora", **adapter}, lock) == model.get_nb_trainable_parameters()[0]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("word", ["attention", "mlp", "all-linear"])
def test_it_trains_loads_in_plain_peft_and_merges(engine: Engine, name: str, word: str) -> None:
    from peft import PeftModel

    prepared = engine.prepare(max_length=64)  # Qwen's own tokenizer cuts words smaller
    adapter = placed("lora", {"r": 4, "lora_alpha": 8, "target_modules": word}, locked(engine.model))
    before = engine.predict(prepared, None)
    done, files = engine.train(prepared, {"method": "lora", **adapter}, max_steps=8)
    assert done.outcome == "done", done.message
    after = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before
    where = Path(files["adapter_model.safetensors"]).parent
    for row, single, plain in zip(
        after,
        engine.predict(prepared, files, size=1),
        plain_logits(engine.model, where, prepared),
        strict=True,
    ):
        assert row["log_likelihood"] == pytest.approx(single["log_likelihood"], abs=1e-4)
        assert row["log_likelihood"] == pytest.approx(plain, abs=1e-4)
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(engine.model), str(where)).eval()
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        attached = model(ids).logits
        merged = model.merge_and_unload()(ids).logits
    assert float((attached - merged).abs().max()) < 1e-4
    answers = engine.predict(prepared, files, "generation", size=16)
    assert answers == engine.predict(prepared, files, "generation", size=1)


CONV1D = ("loha", "lokr")  # which PEFT has for plain linear layers only


@pytest.mark.sampled(5)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "phi", "phi3", "gemma3_text"])
def test_every_method_is_counted_as_peft_counts_it_and_trains(engine: Engine, name: str, method: str) -> None:
    settings = {key: value for key, value in METHODS[method].items() if key not in ("target_modules", "r")}
    if method == "ln_tuning":
        settings["target_modules"] = "all-norms"
    elif method != "prompt_tuning":
        settings["target_modules"] = "all-linear"
        settings |= {"feedforward_modules": "mlp"} if method == "ia3" else {}
        settings |= {"r": 3} if "r" in METHODS[method] else {}
    lock = locked(engine.model)
    adapter = {"method": method, **placed(method, settings, lock)}
    done, files = engine.train(engine.prepare(), adapter, max_steps=8)
    if name == "gpt2" and method in CONV1D:
        assert done.outcome == "failed"
        assert done.message.startswith(f"{method}: PEFT rejects these settings on this model: ")
        return
    assert done.outcome == "done", done.message
    assert done.figures["trainable_parameters"] == adapter_parameters(adapter, lock)
    after = engine.predict(engine.prepare(), files)
    # Vectors that PEFT draws at random begin below the bare model; how far depends on its version.
    begun = engine.train(engine.prepare(), adapter, max_steps=1)[1] if method == "prompt_tuning" else None
    before = engine.predict(engine.prepare(), begun)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)


@pytest.mark.parametrize("start", ["pissa", "olora", "corda", "lora_ga", "mica", "eva", "orthogonal"])
def test_initialisations_know_a_layer_that_stores_in_by_out(
    models: dict[str, Path], rows_file: Path, tmp_path: Path, start: str
) -> None:
    """OLoRA does not: PEFT takes the weight of a Conv1D for that of a linear layer."""
    engine = Engine(models["gpt2"], rows_file, tmp_path)
    prepared = engine.prepare()
    adapter = placed(
        "lora", {"r": 4, "lora_alpha": 4, "target_modules": ["c_attn"], **STARTS[start]}, locked(engine.model)
    )
    done, files = engine.train(prepared, {"method": "lora", **adapter}, max_steps=8)
    if start == "olora":
        assert done.outcome == "failed"
        assert done.message.startswith("lora.init_lora_weights: PEFT's OLoRA expects a layer's weight")
        return
    assert done.outcome == "done", done.message
    where = Path(files["adapter_model.safetensors"]).parent
    for row, plain in zip(engine.predict(prepared, files), plain_logits(engine.model, where, prepared), strict=True):
        assert row["log_likelihood"] == pytest.approx(plain, abs=1e-4)


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "extra",
    [
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["ln_f", "wte"]},
        {"lora_bias": True},
        {"trainable_token_indices": [4, 9]},
        {"rank_pattern": {"attn.c_proj": 1, "c_fc": 7}},
        {"exclude_modules": ["mlp.c_proj"]},
    ],
    ids=str,
)
def test_what_is_trained_beside_the_matrices_is_counted(
    models: dict[str, Path], rows_file: Path, tmp_path: Path, extra: dict[str, Any]
) -> None:
    """GPT-2 has biases everywhere, and a head that is tied to its embedding."""
    engine = Engine(models["gpt2"], rows_file, tmp_path)
    lock = locked(engine.model)
    adapter = {"method": "lora", **placed("lora", {"r": 3, "target_modules": "all-linear", **extra}, lock)}
    done, _ = engine.train(engine.prepare(), adapter, max_steps=1)
    assert done.outcome == "done", done.message
    assert done.figures["trainable_parameters"] == adapter_parameters(adapter, lock)
