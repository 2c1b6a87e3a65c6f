"""Cross entropy over a large vocabulary, in pieces: its gradient is all that is kept of it, in the logits' own type.

torch keeps the log probabilities of every token until the backward pass, in float32 beside the logits, and makes the
gradient then. Here a piece's gradient is made while the piece is at hand (as Liger's kernels do, arXiv 2410.10989), by
torch's own operations, so that it works on every device.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

# Logits of a piece: on a CPU as many as its cache holds, on a GPU so many that launches do not count.
_CPU_PIECE, _GPU_PIECE = 2**21, 2**26


def cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return −log softmax(logits)[target] for each row, [s], computed in float32 or wider.

    :param logits: [s, v]
    :param targets: int64 [s]
    """
    each: torch.Tensor = _CrossEntropies.apply(logits, targets)  # type: ignore[no-untyped-call]
    return each


def rows_at_once(logits: torch.Tensor) -> int:
    """Return of how many rows of some logits [s, v] a piece is."""
    return max(1, (_CPU_PIECE if logits.device.type == "cpu" else _GPU_PIECE) // logits.shape[1])


class _CrossEntropies(torch.autograd.Function):
    """The rows one piece after another, each with its gradient: softmax minus one at the target."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the losses, and where they are wanted, the gradients of their sum."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        each = logits.new_empty(len(logits), dtype=wide)
        # float16 holds a small probability only after it is scaled, which autograd's cast at the end comes after.
        kept = wide if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=kept) if ctx.needs_input_grad[0] else None
        size = rows_at_once(logits)
        for start in range(0, len(logits), size):
            piece, aim = slice(start, start + size), targets[start : start + size, None]
            found = logits[piece].to(wide).log_softmax(dim=-1)
            each[piece] = -found.gather(1, aim).squeeze(1)
            if gradient is not None:
                found.exp_().scatter_add_(1, aim, found.new_full(aim.shape, -1.0))
                gradient[piece] = found
        ctx.save_for_backward(gradient)
        return each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outward: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Weigh the kept gradient in place: a second pass would find it changed, and torch refuses it.

        In pieces, because torch multiplies bfloat16 by float32 in float32 copies of all that it is given.
        """
        (gradient,) = ctx.saved_tensors
        size = rows_at_once(gradient)
        for part, weights in zip(gradient.split(size), outward.split(size), strict=True):
            part.mul_(weights[:, None])
        return gradient, None
