"""`truncate`: a finished LoRA cut to a smaller rank by singular value decomposition, without training anything."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lorafile.engine.model.base import Bases
from lorafile.engine.model.factors import StoredLora, read_lora, scaling
from lorafile.engine.model.spectrum import decompose
from lorafile.engine.request import Report, Request, Result
from lorafile.errors import NodeError

# Initialisations after which PEFT, unless the adapter was converted when saved, expects a rewritten base.
_REWRITE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")


def truncate(request: Request, out: Path, _bases: Bases, _report: Report) -> Result:
    """Keep the k largest singular values of each BA: by Eckart and Young the nearest update of rank k.

    :raises NodeError: for an adapter whose update is not scaling · BA
    """
    rank = request.settings["truncation"]["rank"]
    stored = read_lora(request.inputs["adapter"])
    _refuse(stored.config)
    tensors = {name: tensor.contiguous() for name, tensor in stored.others.items()}
    kept = whole = 0.0
    ranks: dict[str, int] = {}
    for module, factors in stored.modules.items():
        ranks[module] = min(rank, factors.rank)
        parts = decompose(factors.b, factors.a)
        energy = (parts.s * factors.scaling).square()
        kept, whole = kept + float(energy[: ranks[module]].sum()), whole + float(energy.sum())
        if factors.rank > rank:
            root = parts.s[:rank].sqrt()
            a, b = (parts.v[:, :rank] * root).T, parts.u[:, :rank] * root
        else:
            a, b = factors.a, factors.b
        for name, new, old in zip(factors.names, (a, b), (factors.a, factors.b), strict=True):
            tensors[name] = new.to(old.dtype).contiguous()
    config = truncated_config(stored, ranks, rank)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")
    return Result(
        figures=_figures(tensors, kept, whole, out), files=["adapter_config.json", "adapter_model.safetensors"]
    )


def _refuse(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else config.get("peft_type")
        raise NodeError(f"truncate: a {kind} adapter's update is not the product of two matrices, so it cannot be cut.")
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_REWRITE_BASE):
        raise NodeError(
            f'truncate: the adapter was saved relative to the base that init_lora_weights = "{begun}" rewrote; '
            "only one that was converted to a plain LoRA when saved can be cut."
        )


def truncated_config(stored: StoredLora, ranks: dict[str, int], rank: int) -> dict[str, Any]:
    """Return a configuration under which PEFT gives each module its new rank and the scaling that it had."""
    config = dict(stored.config)
    usual = scaling(config["lora_alpha"], config["r"], config)
    alpha = _alpha(usual, rank, config)
    alphas = {module: _alpha(stored.modules[module].scaling, own, config) for module, own in ranks.items()}
    return config | {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module: own for module, own in ranks.items() if own != rank},
        "alpha_pattern": {module: own for module, own in alphas.items() if own != alpha},
    }


def _alpha(wanted: float, rank: int, config: dict[str, Any]) -> float:
    """Return the alpha that gives a scaling at a rank; whole where it is."""
    alpha = wanted * (math.sqrt(rank) if config.get("use_rslora") else rank)
    nearest = round(alpha)
    return nearest if math.isclose(alpha, nearest, rel_tol=1e-12) else alpha


def _figures(tensors: dict[str, torch.Tensor], kept: float, whole: float, out: Path) -> dict[str, Any]:
    """Return the size, and the share of the squared norm of the update that is left (1 for an update of nothing)."""
    return {
        "kept_energy": kept / whole if whole else 1.0,
        "trainable_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "adapter_bytes": (out / "adapter_model.safetensors").stat().st_size,
    }
