"""Weights of a model as they stand in its files, before any quantization."""

from pathlib import Path

import torch
from safetensors import safe_open

from lorafile.errors import NodeError


def original_weights(path: str, modules: list[str]) -> dict[str, torch.Tensor]:
    """Return module -> the weight of its checkpoint; files may leave the first part of a name out, as GPT-2's does.

    :raises NodeError: when the files hold no weight of that name
    """
    places: dict[str, Path] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file)
    found = {}
    for module in modules:
        name = f"{module}.weight"
        name = name if name in places else name.partition(".")[2]
        if name not in places:
            raise NodeError(f"lora.init_lora_weights: {path} holds no weight of {module}, which LoftQ begins from.")
        with safe_open(places[name], framework="pt") as opened:
            found[module] = opened.get_tensor(name)
    return found
