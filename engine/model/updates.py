"""What an adapter adds to each weight: ΔW, its norms and its ranks."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.model.loading import tensor_files

Row = dict[str, Any]
_PREFIX = "base_model.model."
LARGEST_DENSE = 2048  # rows or columns, whichever are fewer: past it a dense decomposition costs minutes a matrix


@dataclass(frozen=True)
class Decomposition:
    """A product of two thin matrices as U diag(s) Vᵀ: u [out, r], s [r] falling, v [in, r], all float64."""

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor


def decompose(b: torch.Tensor, a: torch.Tensor) -> Decomposition:
    """Return the singular value decomposition of B A, for b [out, r] and a [r, in], without forming it.

    With B = Q R and Aᵀ = P S, BA = Q (R Sᵀ) Pᵀ; the inner matrix is r × r, so the cost is O((in + out) r²).
    """
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return Decomposition(q_b @ u, s, q_a @ v.T)


def dense_values(matrix: torch.Tensor) -> torch.Tensor | None:
    """Return the singular values of a matrix that has no factors, in float64; None where it is too large for that."""
    if matrix.ndim != 2 or min(matrix.shape) > LARGEST_DENSE:
        return None
    values: torch.Tensor = torch.linalg.svdvals(matrix.double())
    return values


def effective_rank(values: torch.Tensor) -> float:
    """Return exp of the entropy of the normalised singular values (Roy & Vetterli 2007, "The effective rank")."""
    total = float(values.sum())
    if total <= 0:
        return 0.0
    shares = values[values > 0].double() / total
    return math.exp(-float((shares * shares.log()).sum()))


def stable_rank(values: torch.Tensor) -> float:
    """Return ‖·‖_F² / ‖·‖₂² (Rudelson & Vershynin 2007): at most the rank, and unmoved by tiny singular values."""
    largest = float(values.max()) if len(values) else 0.0
    return float((values.double() / largest).square().sum()) if largest > 0 else 0.0


def energy_rank(values: torch.Tensor, share: float = 0.9) -> int:
    """Return the smallest k whose first k singular values hold a share of the squared norm."""
    energy = values.double().square().sort(descending=True).values
    total = float(energy.sum())
    if total <= 0:
        return 0
    # 1e-12: a share that is met exactly must not be missed by rounding
    return int((energy.cumsum(0) < (share - 1e-12) * total).sum()) + 1


def place(module: str) -> Row:
    """Return a module's name, its type (the last part of the name) and its layer (the first number in it, or None)."""
    parts = module.split(".")
    layer = next((int(part) for part in parts if part.isdigit()), None)
    return {"module": module, "type": parts[-1], "layer": layer}


def adapter_updates(model: Any) -> Iterator[Row]:
    """Yield a row for each adapted module of a PEFT model: its place, norms of ΔW, singular values and ranks."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.integrations import dequantize_module_weight

    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and layer.active_adapters:
            with torch.no_grad():
                weight = dequantize_module_weight(layer.get_base_layer()).float()
                update = _update(layer, layer.active_adapters[0], weight)
            if update is not None:
                yield place(name.removeprefix(_PREFIX)) | update | _relative(update, weight)


def _update(layer: Any, adapter: str, weight: torch.Tensor) -> Row | None:
    """Return the figures of one update; None where the method adds nothing to the weight."""
    if adapter in getattr(layer, "lora_E", {}):  # AdaLoRA: B diag(E) A
        return _from_delta(layer.get_delta_weight(adapter).float()) | {"rank": layer.r[adapter]}
    if adapter in getattr(layer, "lora_A", {}):
        factors = _matrix(layer.lora_B[adapter]), _matrix(layer.lora_A[adapter])
    elif adapter in getattr(layer, "lora_embedding_A", {}):
        factors = layer.lora_embedding_B[adapter], layer.lora_embedding_A[adapter]
    elif adapter in getattr(layer, "ia3_l", {}):  # IA³ multiplies what is there
        return _from_delta(weight * layer.ia3_l[adapter].float() - weight)
    elif hasattr(layer, "get_delta_weight") and (_adds(layer) or not _linear(layer)):
        return _from_delta(layer.get_delta_weight(adapter).float())
    elif _linear(layer):
        delta = _answered(layer, weight)
        return _from_delta(delta) if hasattr(layer, "get_delta_weight") or delta.any() else None
    else:
        return None
    values = decompose(*factors).s * layer.scaling[adapter]
    row = _from_values(values) | {"rank": layer.r[adapter]}
    if adapter in getattr(layer, "lora_magnitude_vector", {}):
        row |= _dora_norms(layer, adapter, weight)
    return row


def _adds(layer: Any) -> bool:
    """Return whether PEFT's `get_delta_weight` is ΔW. Of OFT, BOFT and HRA it is a rotation, and MiSS wants more."""
    return type(layer).__module__.split(".")[2] in ("vera", "loha", "lokr")


def _linear(layer: Any) -> bool:
    """Return whether a layer multiplies what comes in by a matrix: no norm, no table of embeddings."""
    return hasattr(layer, "in_features") and not isinstance(layer.get_base_layer(), torch.nn.Embedding)


def _answered(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return ΔW, or its transpose, as what an adapter changes in its layer's answers to the unit vectors, in float32.

    :param weight: that of the base, dequantized
    """
    base = layer.base_layer
    plain = _plain(base, weight)
    units = torch.eye(layer.in_features, device=weight.device)[None]
    zero = torch.zeros_like(units[:, :1])
    layer.base_layer = plain
    try:
        with torch.autocast(weight.device.type, enabled=False):
            delta: torch.Tensor = (layer(units) - layer(zero)) - (plain(units) - plain(zero))
    finally:
        layer.base_layer = base
    return delta[0].float()


def _plain(base: Any, weight: torch.Tensor) -> Any:
    """Return a layer of the base as one in float32, with the dequantized weight."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(base, Conv1D):  # its weight lies the other way around
        plain: Any = Conv1D(weight.shape[1], weight.shape[0])
    else:
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    plain.bias = None if base.bias is None else torch.nn.Parameter(base.bias.detach().float(), requires_grad=False)
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    return plain


def _matrix(side: Any) -> torch.Tensor:
    """Return A or B; of BD-LoRA with its blocks on the diagonal."""
    blocks = hasattr(side, "weight_as_blockdiagonal_matrix")
    matrix: torch.Tensor = side.weight_as_blockdiagonal_matrix() if blocks else side.weight
    return matrix


def _dora_norms(layer: Any, adapter: str, weight: torch.Tensor) -> Row:
    """Return the norms of DoRA's ΔW = m (W + sBA) / ‖W + sBA‖ - W; the singular values stay those of its sBA."""
    moved = weight + layer.get_delta_weight(adapter).float()
    if getattr(layer, "fan_in_fan_out", False):
        moved, weight = moved.T, weight.T
    delta = layer.lora_magnitude_vector[adapter].weight.float().view(-1, 1) * moved / moved.norm(dim=1, keepdim=True)
    delta = delta - weight
    values = dense_values(delta)
    return {"frobenius": float(delta.norm()), "spectral": None if values is None else float(values[0])}


def full_updates(model: Any, base: Path) -> Iterator[Row]:
    """Yield a row for each matrix of a model that was fine-tuned in full: ΔW is what it has now less what it had.

    :param base: the directory of the model that it was before
    """
    from safetensors import safe_open

    files = tensor_files(base)
    for name, tensor in model.named_parameters():
        if name in files and tensor.ndim == 2:
            with safe_open(files[name], framework="pt") as stream:
                weight = stream.get_tensor(name).to(tensor.device).float()
            row = _from_delta(tensor.detach().float() - weight)
            yield place(name.removesuffix(".weight")) | row | _relative(row, weight)


def _from_delta(delta: torch.Tensor) -> Row:
    values = dense_values(delta)
    if values is None:  # too large a matrix to be decomposed: its Frobenius norm is all that is cheap
        empty = dict.fromkeys(("spectral", "singular_values", "effective_rank", "stable_rank", "energy_rank"))
        return {"frobenius": float(delta.norm()), **empty}
    return _from_values(values)


def _from_values(values: torch.Tensor) -> Row:
    return {
        "frobenius": float(values.norm()),
        "spectral": float(values[0]),
        "singular_values": values.tolist(),
        "effective_rank": effective_rank(values),
        "stable_rank": stable_rank(values),
        "energy_rank": energy_rank(values),
    }


def _relative(row: Row, weight: torch.Tensor) -> Row:
    norm = float(weight.double().norm())
    return {"relative_norm": row["frobenius"] / norm if norm > 0 else math.nan}
