"""The fingerprint by which a base is proven unchanged: two sums over the bits of everything that it computes with."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lorafile.engine.model.head import is_in

_WORD = 4  # bytes
_PERIOD = 65521  # a prime: weights begin again after so many words


def fingerprint(model: nn.Module, without: tuple[str, ...] = ()) -> tuple[int, ...]:
    """Return two sums over the bits of each tensor of a model; any changed or swapped value changes them.

    Computed on the device in pieces, so that it costs one read of the weights and a few megabytes.

    :param without: the names of modules that are left out, with all that is in them
    """
    return tensor_sums(held_tensors(model, without))


def tensor_sums(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Return two sums over the bits of each of some tensors."""
    sums: list[int] = []
    with torch.no_grad():
        for tensor in tensors:
            sums += _sums(tensor)
    return tuple(sums)


def held_tensors(model: nn.Module, without: tuple[str, ...] = ()) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a model computes with, those of quantized layers included.

    Next to parameters and buffers these are the parts of tensor subclasses (torchao), and the scales that bitsandbytes
    keeps in attributes of a weight and HQQ in a table of the layer.
    """
    for module in (module for name, module in model.named_modules() if not is_in(name, without)):
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            yield from parts(tensor)
            yield from _four_bit_constants(tensor)
        yield from _eight_bit_scales(module)
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


def _four_bit_constants(tensor: Any) -> Iterator[torch.Tensor]:
    """Yield the constants of a weight that bitsandbytes quantized to 4 bits, once or twice."""
    state = getattr(tensor, "quant_state", None)
    values = [
        getattr(level, name, None)
        for level in (state, getattr(state, "state2", None))
        for name in ("absmax", "code", "offset")
    ]
    yield from (value for value in values if isinstance(value, torch.Tensor))


def _eight_bit_scales(module: Any) -> Iterator[torch.Tensor]:
    """Yield the scales of a layer that bitsandbytes quantized to 8 bits, once, whatever else the layer holds.

    They move from the weight to the layer's state when the layer first computes.
    """
    before = getattr(getattr(module, "weight", None), "SCB", None)
    scales = getattr(getattr(module, "state", None), "SCB", None) if before is None else before
    if isinstance(scales, torch.Tensor):
        yield scales


def _sums(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the sum of a tensor's words of four bytes, and their sum weighted by place, both modulo 2^64."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    whole = flat.numel() // _WORD * _WORD
    words = flat[:whole]
    if words.storage_offset() % _WORD:  # a view into the middle of something
        words = words.clone()
    plain = weighted = torch.zeros((), dtype=torch.int64, device=flat.device)
    # Words differ by less than 2^32, weights by less than 2^17: the modulus hides no single change or exchange.
    size = _piece(flat.device)
    for number, piece in enumerate(words.view(torch.int32).split(size)):
        wide, start = piece.to(torch.int64), number * size
        sum_ = wide.sum()
        plain = plain + sum_
        weighted = weighted + (wide * _weights(flat.device)[: len(wide)]).sum() + sum_ * (start % _PERIOD)
    rest = flat[whole:].tolist()
    return int(plain) + sum(rest), int(weighted) + sum(place * byte for place, byte in enumerate(rest, 1))


def _piece(device: torch.device) -> int:
    """Return the words of a piece: as many as a processor's cache holds, and so many that launches do not count."""
    return 1 << (18 if device.type == "cpu" else 22)


@cache
def _weights(device: torch.device) -> torch.Tensor:
    return torch.arange(_piece(device), device=device) % _PERIOD + 1
