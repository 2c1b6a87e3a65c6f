"""One layer of a stack: the base's layer once, and K low-rank updates by batched products."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn


class Rows(Protocol):
    """Which rows of a batch belong to which adapter."""

    width: int
    rows: list[tuple[int, int]]


class StackedLinear(nn.Module):
    """W x + s_k B_k A_k drop(x_k) for each slice k of a batch, in the types that PEFT's own layers compute in.

    :ivar a: [K, r, in]; `b`: [K, out, r]
    :ivar scaling: [K, 1, 1]
    :ivar gradients: where those of A and B are added, of the same sizes
    :ivar drawn: the dropout of each adapter and what it is drawn from; None where it has none at this layer
    """

    def __init__(
        self,
        base_layer: nn.Module,
        a: nn.Parameter,
        b: nn.Parameter,
        scaling: torch.Tensor,
        drawn: Sequence[tuple[float, torch.Generator] | None],
        stack: Rows,
        gradients: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.base_layer, self.a, self.b, self.drawn, self._stack = base_layer, a, b, drawn, stack
        self.gradients = gradients
        self.scaling = scaling[:, None, None].to(a)
        # PEFT computes over bitsandbytes and HQQ in what autocast says, and casts to the type of a bitsandbytes layer
        # before it adds.
        library = type(base_layer).__module__.partition(".")[0]
        self._as_autocast, self._cast_first = library in ("bitsandbytes", "hqq"), library == "bitsandbytes"
        self.training = base_layer.training

    @property
    def weight(self) -> Any:
        """The base's weight, which some models look at."""
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        """The base's bias."""
        return self.base_layer.bias

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output for rows [K·b, t, in] or [K·b·t, in], of which each adapter has its own K-th."""
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        dtype, device = result.dtype, x.device.type
        if not (self._as_autocast and torch.is_autocast_enabled()):
            x = x.to(self.a.dtype)
        x = self._dropped(x.reshape(self._stack.width, -1, x.shape[-1]))
        x = x.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.a.dtype)
        if dtype == x.dtype:
            flat = result.reshape(*x.shape[:2], -1)
            return _updated(flat, x, self.a, self.b, self.scaling, self.gradients).view_as(result)
        update = _updated(None, x, self.a, self.b, self.scaling, self.gradients).view_as(result)
        if self._cast_first:
            update = update.to(dtype)
        return (result + update).to(dtype)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Drop from each slice [n, in] what its adapter's own generator draws for its own rows, without the padding."""
        if not self.training or not any(self.drawn):
            return x
        rows = self._stack.rows
        longest = max(tokens for _, tokens in rows)
        keep = torch.ones_like(x)
        for slices, (examples, tokens), drawn in zip(keep, rows, self.drawn, strict=True):
            if drawn is None or not examples:
                continue
            share, generator = drawn
            own = slices.view(-1, longest, x.shape[-1])[:examples, :tokens]
            own.copy_(torch.empty(own.shape, dtype=x.dtype, device=x.device).bernoulli_(1 - share, generator=generator))
            own.div_(1 - share)
        return x * keep


class _Update(torch.autograd.Function):
    """result + (s x Aᵀ) Bᵀ for each slice; gradients of A and B are added where they belong, without a copy."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor | None,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: torch.Tensor,
        gradients: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Compute in the type of x [K, n, in]; the result, where there is one, has it, too."""
        with torch.autocast(x.device.type, enabled=False):
            hidden, found = _products(result, x, a, b, scaling)
        ctx.save_for_backward(x, hidden, a, b, scaling)
        ctx.gradients = gradients
        return found

    @staticmethod
    def backward(ctx: Any, *outward: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Add to the gradients of A and B; return those of the result and of x."""
        (above,) = outward
        x, hidden, a, b, scaling = ctx.saved_tensors
        within = (torch.bmm(above, b.to(x.dtype)) * scaling).to(x.dtype)
        if ctx.gradients is not None:
            _add_product(ctx.gradients[0], within, x)
            _add_product(ctx.gradients[1], above, hidden)
        below = torch.bmm(within, a.to(x.dtype)) if ctx.needs_input_grad[1] else None
        return above if ctx.needs_input_grad[0] else None, below, None, None, None, None


def _products(
    result: torch.Tensor | None, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return s x Aᵀ, and the result with (s x Aᵀ) Bᵀ added to it."""
    hidden = (torch.bmm(x, a.to(x.dtype).transpose(1, 2)) * scaling).to(x.dtype)
    last = b.to(x.dtype).transpose(1, 2)
    return hidden, torch.bmm(hidden, last) if result is None else torch.baddbmm(result, hidden, last)


def _updated(result: torch.Tensor | None, x: torch.Tensor, *rest: Any) -> torch.Tensor:
    if not (torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)):
        return _products(result, x, *rest[:3])[1]  # small steps of answers would wait for autograd's bookkeeping
    found: torch.Tensor = _Update.apply(result, x, *rest)  # type: ignore[no-untyped-call]
    return found


def _add_product(to: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add leftᵀ right to a part of the flat gradients."""
    if to.dtype == right.dtype:
        to.baddbmm_(left.transpose(1, 2), right)
    else:
        to.add_(torch.bmm(left.transpose(1, 2), right))
