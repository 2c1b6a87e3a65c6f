"""`truncate`: a finished LoRA cut to a smaller rank by singular value decomposition, without training anything."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorafile.engine.model.base import Bases
from lorafile.engine.model.initialization import stored_settings
from lorafile.engine.model.updates import decompose
from lorafile.engine.request import Report, Request, Result
from lorafile.engine.stacking.stored import lora_scaling, pattern_value
from lorafile.errors import NodeError
from lorafile.specs.tables.lora import REWRITING

_PREFIX = "base_model.model."
_SIDES = {"lora_A.weight": "a", "lora_B.weight": "b", "lora_embedding_A": "a", "lora_embedding_B": "b"}


@dataclass(frozen=True)
class LoraPair:
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
    modules: dict[str, LoraPair]
    others: dict[str, torch.Tensor]


def read_lora(files: dict[str, str]) -> StoredLora:
    """Read a stored LoRA.

    :param files: file name -> path
    :raises NodeError: when it holds no pairs of matrices
    """
    config = stored_settings(files)
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
    modules = {module: _pair(module, names, tensors, config) for module, names in sides.items()}
    if not modules:
        raise NodeError("The adapter has no pairs of LoRA matrices.")
    return StoredLora(config, modules, others)


def _pair(module: str, names: dict[str, str], tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> LoraPair:
    if names.keys() != {"a", "b"}:
        raise NodeError(f"The adapter has only one of the two LoRA matrices of {module}.")
    a, b = tensors[names["a"]], tensors[names["b"]]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise NodeError(f"The LoRA matrices of {module} are {list(b.shape)} and {list(a.shape)}: no product of rank r.")
    alpha = pattern_value(config.get("alpha_pattern"), module, config["lora_alpha"])
    return LoraPair(a, b, (names["a"], names["b"]), lora_scaling(alpha, a.shape[0], config.get("use_rslora")))


def truncate(request: Request, out: Path, _bases: Bases, _report: Report) -> Result:
    """Keep the k largest singular values of each BA: by Eckart and Young the nearest update of rank k.

    Of the squared norm of all updates the figures have the share that is left (`kept_energy`).

    :raises NodeError: for an adapter whose update is not scaling · BA
    """
    rank = request.settings["truncation"]["rank"]
    stored = read_lora(request.inputs["adapter"])
    _refuse(stored.config)
    tensors = {name: tensor.contiguous() for name, tensor in stored.others.items()}
    kept = whole = 0.0
    ranks: dict[str, int] = {}
    for module, pair in stored.modules.items():
        ranks[module] = min(rank, pair.rank)
        parts = decompose(pair.b, pair.a)
        energy = (parts.s * pair.scaling).square()
        kept, whole = kept + float(energy[: ranks[module]].sum()), whole + float(energy.sum())
        if pair.rank > rank:
            root = parts.s[:rank].sqrt()
            a, b = (parts.v[:, :rank] * root).T, parts.u[:, :rank] * root
        else:
            a, b = pair.a, pair.b
        for name, new, old in zip(pair.names, (a, b), (pair.a, pair.b), strict=True):
            tensors[name] = new.to(old.dtype).contiguous()
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps(truncated_config(stored, ranks, rank), indent=2, sort_keys=True) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")
    figures = {
        "kept_energy": kept / whole if whole else 1.0,  # of an update of nothing, all is left
        "trainable_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "adapter_bytes": (out / "adapter_model.safetensors").stat().st_size,
    }
    return Result(figures=figures, files=["adapter_config.json", "adapter_model.safetensors"])


# Variants whose update is more, or other, than the product of the two matrices that are stored.
_VARIANTS = {"use_dora": "DoRA", "use_bdlora": "BD-LoRA"}


def _refuse(config: dict[str, Any]) -> None:
    variant = next((name for setting, name in _VARIANTS.items() if config.get(setting)), "")
    if config.get("peft_type") != "LORA" or variant:
        kind = variant or config.get("peft_type")
        raise NodeError(
            f"truncate: a {kind} adapter's update is not the product of two matrices, so it cannot be truncated."
        )
    # PEFT expects a rewritten base after these initialisations, unless the adapter was converted when saved.
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith((*REWRITING, "loftq")):
        raise NodeError(
            f'truncate: the adapter was saved relative to the base that init_lora_weights = "{begun}" rewrote; '
            "only one that was converted to plain LoRA when saved can be truncated."
        )


def truncated_config(stored: StoredLora, ranks: dict[str, int], rank: int) -> dict[str, Any]:
    """Return a configuration under which PEFT gives each module its new rank and the scaling that it had."""
    config = dict(stored.config)
    usual = lora_scaling(config["lora_alpha"], config["r"], config.get("use_rslora"))
    alpha = _alpha(usual, rank, config)
    alphas = {module: _alpha(stored.modules[module].scaling, kept, config) for module, kept in ranks.items()}
    return config | {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module: kept for module, kept in ranks.items() if kept != rank},
        "alpha_pattern": {module: kept for module, kept in alphas.items() if kept != alpha},
    }


def _alpha(wanted: float, rank: int, config: dict[str, Any]) -> float:
    """Return the alpha that gives a scaling at a rank; whole where it is."""
    alpha = wanted * (math.sqrt(rank) if config.get("use_rslora") else rank)
    nearest = round(alpha)
    return nearest if math.isclose(alpha, nearest, rel_tol=1e-12) else alpha
