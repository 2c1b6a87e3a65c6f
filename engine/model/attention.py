"""Attention on a CPU: transformers' sdpa in blocks of queries, narrow heads widened; equal up to rounding.

torch's CPU kernel computes every key for every query, and is slower for heads of 8 than for heads of 16. Here a block
of queries sees only the keys up to its end, and what is added to a narrow head is zero.
"""

from typing import Any

import torch
from torch.nn import functional

NAME = "sdpa_in_blocks"
_BLOCK = 64  # queries; as many as torch's kernel takes at once
_NARROWEST = 16  # width of a head


def use_blocks(model: Any) -> None:
    """Let a model that computes attention as sdpa, on a CPU, do so in blocks; others are left alone."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config = model.config.get_text_config()
    if model.device.type != "cpu" or config is not model.config or config._attn_implementation != "sdpa":
        return
    if not model._can_set_attn_implementation():
        return
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' `sdpa_attention_forward` does, whose arguments these are; return [b, t, heads, width].

    Whatever is not plain attention of a text to itself, under a causal mask or a boolean one, is left to that.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    masked = attention_mask is not None and attention_mask.dtype == torch.bool
    special = any(others.get(name) is not None for name in ("softcap", "position_bias", "cache")) or dropout
    length = query.shape[2]
    if special or not (causal or masked) or length != key.shape[2] or length == 1 or query.dtype != torch.float32:
        options: dict[str, Any] = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **others}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    width = value.shape[-1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = _widened(query), _widened(key), _widened(value)
    found = []
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        mask, seen = _mask(attention_mask, start, end, length)
        parts = query[:, :, start:end], key[:, :, :seen], value[:, :, :seen]
        found.append(functional.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale)[..., :width])
    return torch.cat(found, dim=2).transpose(1, 2).contiguous(), None


def _widened(heads: torch.Tensor) -> torch.Tensor:
    return functional.pad(heads, (0, _NARROWEST - heads.shape[-1])) if heads.shape[-1] < _NARROWEST else heads


def _mask(whole: torch.Tensor | None, start: int, end: int, length: int) -> tuple[torch.Tensor, int]:
    """Return the mask of a block of queries, true where a key is seen, and how many keys it is about.

    :param whole: of the whole text [b, 1 or heads, t, t]; None: each token sees itself and what stands before it
    """
    if whole is None:
        return torch.ones(end - start, end, dtype=torch.bool).tril(start), end
    later = bool(whole[:, :, start:end, end:].any())  # a mask that is not causal
    seen = length if later else end
    return whole[:, :, start:end, :seen], seen
