"""A model that sees what follows a token is not trained to predict it."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from checkpoint_fixture import make_checkpoint  # noqa: E402

from lorafile.engine.model.base import load_base  # noqa: E402
from lorafile.errors import NodeError  # noqa: E402
from lorafile.specs.tables.quantizations import quantization_settings  # noqa: E402

MODEL = {"dtype": "float32", "trust_remote_code": False}


def load(path: Path, quantization: str = "none", **of_model: Any) -> Any:
    settings = {"model": MODEL | of_model, "quantization": quantization_settings(quantization)}
    return load_base(settings, {"model": str(path), "model_name": "org/name"}).model


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_two_sided_attention_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NodeError, match=r"org/name is not a causal language model.*SEQ_CLS"):
        load(make_checkpoint(kind, tmp_path / kind, encoder=True))


def test_the_same_class_as_a_decoder_is_taken(tmp_path: Path) -> None:
    load(make_checkpoint("bert", tmp_path / "bert", is_decoder=True))


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decoder_is_taken_however_it_is_loaded(tmp_path: Path, quantization: str, dtype: str) -> None:
    load(make_checkpoint("llama", tmp_path / "llama", hidden_size=64), quantization, dtype=dtype)


def test_random_weights_are_refused_when_a_base_is_loaded(tmp_path: Path) -> None:
    """Also where no plan has looked: a file that was exchanged since."""
    from safetensors.torch import load_file, save_file

    path = make_checkpoint("llama", tmp_path / "llama")
    tensors = load_file(path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NodeError, match=r"lacks model\.norm\.weight of a LlamaForCausalLM"):
        load(path)
