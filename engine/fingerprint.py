"""What proves a base unchanged: two sums over the bits of everything that it computes with."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_CHUNK = 1 << 22


def fingerprint(model: nn.Module, without: str = "") -> tuple[int, ...]:
    """Return two sums over the bits of each tensor of a model; any changed or swapped value changes them.

    Computed on the device in pieces, so that it costs one read of the weights and a few megabytes.

    :param without: the name of a module that is left out
    """
    return tensor_sums(held_tensors(model, without))


def tensor_sums(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Return two sums over the bits of each of some tensors."""
    sums: list[int] = []
    with torch.no_grad():
        for tensor in tensors:
            sums += _sums(tensor)
    return tuple(sums)


def held_tensors(model: nn.Module, without: str = "") -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a model computes with, those of quantized layers included.

    Beside parameters and buffers these are the parts of tensor subclasses (torchao), and the scales that bitsandbytes
    keeps in attributes of a weight and HQQ in a table of the layer.
    """
    for module in (module for name, module in model.named_modules() if not without or name != without):
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            yield from parts(tensor)
            yield from _scales(tensor, module)
        meta = getattr(module, "meta", None)
        if isinstance(meta, dict):
            yield from (value for value in meta.values() if isinstance(value, torch.Tensor))


def parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield what a tensor subclass is made of; a plain tensor is its own part."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from parts(getattr(tensor, name))
    else:
        yield tensor.detach()


def _scales(tensor: Any, module: Any) -> Iterator[torch.Tensor]:
    """Yield the constants of a weight that bitsandbytes quantized: 8-bit, 4-bit, and 4-bit quantized twice.

    Those of 8 bits move from the weight to its layer when that first computes.
    """
    state = getattr(tensor, "quant_state", None)
    inner = getattr(state, "state2", None)
    scales = getattr(tensor, "SCB", None)
    found = [getattr(getattr(module, "state", None), "SCB", None) if scales is None else scales]
    found += [getattr(one, name, None) for one in (state, inner) for name in ("absmax", "code", "offset")]
    yield from (value for value in found if isinstance(value, torch.Tensor))


def _sums(tensor: torch.Tensor) -> tuple[int, int]:
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    plain = weighted = 0
    for start in range(0, flat.numel(), _CHUNK):
        piece = flat[start : start + _CHUNK].to(torch.int64)
        plain += int(piece.sum())
        weighted += int((piece * (torch.arange(len(piece), device=piece.device) % 65521 + 1 + start % 65521)).sum())
    return plain, weighted
