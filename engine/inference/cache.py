"""A key-value cache that is allocated once: a token's keys are written in place, and rows that have ended leave it."""

from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lorafile.engine.model.loading import takes


class Reserved(DynamicLayer):
    """One layer's keys and values, [b, heads, t, d] views of room for `length` tokens.

    transformers' growing layer copies all that it holds for every token, and its static one attends to all its room.
    """

    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._length = length
        self._room: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values [b, heads, t, d] behind those that are there; return all of them."""
        new = (key_states, value_states)
        before = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room = [one.new_empty(*one.shape[:2], self._length, one.shape[3]) for one in new]
        after = before + key_states.shape[2]
        for room, one in zip(self._room, new, strict=True):
            room[:, :, before:after] = one
        keys, values = (room[:, :, :after] for room in self._room)
        self.keys, self.values = keys, values
        return new if before == 0 else (keys, values)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows, without more room than there is."""
        filled = self.get_seq_length()
        for number, room in enumerate(self._room):
            kept = room[indices, :, :filled]
            self._room[number] = room[: len(indices)]
            self._room[number][:, :, :filled] = kept
        self.keys, self.values = (room[:, :, :filled] for room in self._room)


def reserved_cache(model: Any, length: int) -> DynamicCache:
    """Return an empty cache for `length` tokens; layers that attend through a window keep transformers' own."""
    cache = _cache(model)
    cache.layers = [Reserved(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_argument(model: Any) -> str | None:
    """Return the name of the forward argument that takes a cache: `cache` since transformers 5.24; None without one."""
    return next((name for name in ("cache", "past_key_values") if takes(model, name)), None)


def keep_rows(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Forget all rows of a cache but some."""
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)  # noqa: S101 (as `can_reserve` saw)
        layer.batch_select_indices(rows)


def can_reserve(model: Any) -> bool:
    """Return whether all that a model remembers of a text is keys and values, and its forward pass needs no more.

    Recurrent and hybrid models, and those that prepare their inputs in a way of their own, are left to transformers.
    """
    kind = type(model)
    return (
        kind.__module__.startswith("transformers.")
        and kind.prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
        and not getattr(model, "_is_stateful", False)
        and set(getattr(model.config, "layers_block_type", ())) <= {"attention"}  # of recurrent Gemma before 5.24
        and not model.config.is_encoder_decoder
        and takes(model, "attention_mask")
        and cache_argument(model) is not None
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in _cache(model).layers)
    )


def _cache(model: Any) -> DynamicCache:
    return DynamicCache(config=model.config.get_text_config(decoder=True))
