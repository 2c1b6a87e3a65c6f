"""Singular values of an update, and what they say of its rank."""

import math
from dataclasses import dataclass

import torch

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
