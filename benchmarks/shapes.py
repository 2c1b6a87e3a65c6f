"""Models to measure on: real ones from a directory, and random ones of well-known shapes, made on the device itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from lorafile.engine.model.base import Base, load_base

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"


@dataclass(frozen=True)
class Shape:
    """A Llama's dimensions, or the directory of a real one.

    :ivar batch: examples of a micro-batch, of `length` tokens each
    """

    name: str
    hidden: int = 0
    intermediate: int = 0
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    path: str = ""
    tied: bool = False
    vocabulary: int = 32_000
    batch: int = 4
    length: int = 256
    dtypes: tuple[str, ...] = ("float32",)


_GPU = ("bfloat16", "nf4")
SHAPES = (
    Shape("built-in", path="builtin:facts-llama", batch=32, length=32),
    Shape("260K", path=str(SHARED / "stories260K-hf")),
    Shape("15M", 288, 768, 6, 6, 6, tied=True),  # llama2.c's stories15M
    Shape("0.1B", 768, 2048, 12, 12, 12, dtypes=_GPU),  # GPT-2 small's width and depth, as a Llama
    Shape("1.1B", 2048, 5632, 22, 32, 4, dtypes=_GPU),  # TinyLlama
    Shape("2.7B", 2560, 6912, 32, 20, 20, dtypes=_GPU),  # Sheared-LLaMA-2.7B
    Shape("7B", 4096, 11008, 32, 32, 32, dtypes=_GPU),  # Llama-2-7B
)
LLAMA_3 = {  # what `gpu.py` checks
    "1B": Shape("1B", 2048, 8192, 16, 32, 8, tied=True, vocabulary=128_256),  # Llama-3.2-1B
    "3B": Shape("3B", 3072, 8192, 28, 24, 8, tied=True, vocabulary=128_256),  # Llama-3.2-3B
    "8B": Shape("8B", 4096, 14336, 32, 32, 8, vocabulary=128_256),  # Llama-3-8B
}


def tiny(shape: Shape) -> Shape:
    """Return a shape of the same kind that a processor trains in a second."""
    sizes = {"hidden": 64, "intermediate": 128, "layers": 2, "heads": 4, "kv_heads": 2, "vocabulary": 512}
    return replace(shape, name=f"tiny {shape.name}", batch=2, length=32, **sizes)


def config_of(shape: Shape) -> LlamaConfig:
    """Return the config of a Llama of some dimensions."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
    )


def made(shape: Shape, dtype: str, device: torch.device) -> Base:
    """Return a base in memory: loaded, or drawn at random where it will stay, and never written to a disk."""
    if shape.path:
        from lorafile.engine.data.sources import find_model

        path = str(find_model(shape.path, None, Path())) if ":" in shape.path else shape.path
        settings = {"model": {"dtype": dtype, "trust_remote_code": False}, "quantization": None}
        return load_base(settings, {"model": path}, proven=False)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(
            config_of(shape), dtype=torch.bfloat16 if dtype == "nf4" else getattr(torch, dtype)
        )
    if dtype == "nf4":
        quantize(model, device)
    model.requires_grad_(False)
    return Base(model, SimpleNamespace(pad_token_id=0), device, ())


def quantize(model: Any, device: torch.device) -> None:
    """Quantize every linear layer but the head to nf4, twice, one after another, as transformers does it on loading."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    for path, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Linear) or layer is head:
            continue
        options = {"quant_type": "nf4", "compress_statistics": True}
        with torch.device("meta"):
            new = Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16, **options)
        new.weight = Params4bit(layer.weight.data, requires_grad=False, **options).to(device)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    model.is_loaded_in_4bit = True  # by which PEFT knows it


def flops(model: Any, tokens: int, supervised: int, length: int) -> float:
    """Return the floating-point operations that a step on a frozen base needs; what adapters add is left out.

    A frozen weight takes 4 for each token: 2 forward, and 2 for the gradient of what it reads (Kaplan et al. 2020,
    arXiv 2001.08361, section 2.1, whose 6 holds 2 more for the weight's own gradient). The head computes supervised
    tokens alone; embeddings are looked up. Attention takes 6 · layers · width · length for each token: half of the
    12 of PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B), because a token sees half of the others.
    """
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width, wide, narrow = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    attention = width * head_size * (2 * wide + 2 * narrow)
    weights = config.num_hidden_layers * (attention + 3 * width * config.intermediate_size)
    seen = 6 * config.num_hidden_layers * wide * head_size * length
    return float(tokens * (4 * weights + seen) + 4 * supervised * width * config.vocab_size)
