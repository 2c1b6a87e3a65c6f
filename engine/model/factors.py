"""A stored LoRA as matrices: the two factors of each adapted module, and how they are scaled."""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file

from lorafile.errors import NodeError

_PREFIX = "base_model.model."
_SIDES = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_embedding_A": "a", "lora_embedding_B": "b"}


@dataclass(frozen=True)
class Factors:
    """One adapted module: its update is scaling · b a.

    :ivar a: [r, in]; `b`: [out, r]
    :ivar names: the names of the two tensors in the file
    """

    a: torch.Tensor
    b: torch.Tensor
    names: tuple[str, str]
    scaling: float

    @property
    def rank(self) -> int:
        """The rank that it is stored at."""
        return self.a.shape[0]


@dataclass(frozen=True)
class StoredLora:
    """A LoRA as PEFT saves it: its configuration, the factors by module, and whatever else it holds."""

    config: dict[str, Any]
    modules: dict[str, Factors]
    others: dict[str, torch.Tensor]


def read_lora(files: dict[str, str]) -> StoredLora:
    """Read a stored LoRA.

    :param files: file name -> path
    :raises NodeError: when it holds no pairs of matrices
    """
    with open(files["adapter_config.json"], encoding="utf-8") as stream:  # noqa: PTH123 (a stored path)
        config = json.load(stream)
    tensors = load_file(files["adapter_model.safetensors"])
    sides: dict[str, dict[str, str]] = {}
    others: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        ending = next((ending for ending in _SIDES if name.endswith(f".{ending}")), None)
        if ending is None:
            others[name] = tensor
        else:
            module = name.removeprefix(_PREFIX).removesuffix(f".{ending}")
            sides.setdefault(module, {})[_SIDES[ending]] = name
    modules = {}
    for module, names in sides.items():
        modules[module] = _factors(module, names, tensors, config)
    if not modules:
        raise NodeError("The adapter holds no pairs of LoRA matrices.")
    return StoredLora(config, modules, others)


def _factors(module: str, names: dict[str, str], tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Factors:
    if names.keys() != {"a", "b"}:
        raise NodeError(f"The adapter holds one LoRA matrix of {module} without the other.")
    a, b = tensors[names["a"]], tensors[names["b"]]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise NodeError(f"The LoRA matrices of {module} are {list(b.shape)} and {list(a.shape)}: no product of rank r.")
    alpha = pattern_value(config.get("alpha_pattern"), module, config["lora_alpha"])
    return Factors(a, b, (names["a"], names["b"]), scaling(alpha, a.shape[0], config))


def scaling(alpha: float, rank: int, config: dict[str, Any]) -> float:
    """Return what PEFT multiplies an update by: alpha / r, or alpha / √r with rsLoRA."""
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def pattern_value(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """Return a module's own value among patterns, as PEFT finds it, or the default."""
    from peft.utils.other import get_pattern_key

    patterns = patterns or {}
    return patterns.get(get_pattern_key(list(patterns), module), default)
