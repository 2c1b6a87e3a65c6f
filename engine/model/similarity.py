"""Similarity of representations: linear CKA."""

import torch


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the linear centred kernel alignment of x [n, p] and y [n, q]: 1 for equal, 0 for unrelated.

    ‖YᵀX‖_F² / (‖XᵀX‖_F ‖YᵀY‖_F) with centred columns (Kornblith et al. 2019, "Similarity of Neural Network
    Representations Revisited", eq. 5). Computed in float64 with whichever Gram matrices are smaller. NaN where one
    side does not vary at all.
    """
    x, y = (side.double() - side.double().mean(dim=0) for side in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):
        k, m = x @ x.T, y @ y.T
        cross, own = float((k * m).sum()), float(k.norm() * m.norm())
    else:
        cross, own = float((y.T @ x).square().sum()), float((x.T @ x).norm() * (y.T @ y).norm())
    return min(cross / own, 1.0) if own > 0 else float("nan")
