"""Greedy decoding: one forward pass for each token, from which rows that have ended are left out.

The same tokens as transformers' `generate` without beams, which keeps every row to the end of the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, GenerationMixin, LogitsProcessor, StoppingCriteria
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lorafile.engine.batching.batches import Batch
from lorafile.engine.model.head import takes
from lorafile.engine.model.methods import cached_tokens
from lorafile.specs.tables.methods import METHODS

_WORTH = 0.8  # of the rows: when fewer go on, the others leave


class ReservedLayer(DynamicLayer):
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
            self._room = [states.new_empty(*states.shape[:2], self._length, states.shape[3]) for states in new]
        after = before + key_states.shape[2]
        for room, states in zip(self._room, new, strict=True):
            room[:, :, before:after] = states
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


def cache_argument(model: Any) -> str | None:
    """Return the name of the forward argument that takes a cache: `cache` since transformers 5.24; None without one."""
    return next((name for name in ("cache", "past_key_values") if takes(model, name)), None)


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


@dataclass(frozen=True)
class Rules:
    """What decides a token and ends a row.

    :ivar limit: the most tokens of an answer; `ends`: the tokens that end one, which it contains
    :ivar processors: of logits; one that has something for each row has `keep(rows)`, to forget all rows but some
    :ivar slices: the rows are so many groups of equal size, and stay so
    """

    limit: int
    ends: list[int]
    processors: Sequence[LogitsProcessor]
    stopping: Sequence[StoppingCriteria] = ()
    slices: int = 1


def can_decode(model: Any) -> bool:
    """Return whether `decode` reads a model as transformers' `generate` would, whatever PEFT put around it."""
    config = getattr(model, "active_peft_config", None)
    if config is None:
        return can_reserve(model)
    supported = str(config.peft_type.value).lower() in METHODS or cached_tokens(model) > 0
    plain = not getattr(config, "alora_invocation_tokens", None)
    return supported and plain and can_reserve(model.get_base_model())


@torch.inference_mode()
def decode(model: Any, batch: Batch, rules: Rules, embeddings: torch.Tensor | None = None) -> list[list[int]]:
    """Return the new tokens of each row, up to and with the one that ended it.

    :param batch: prompts, padded on the left
    :param embeddings: [b, t, h], what stands for the prompts' tokens where some are virtual
    """
    ids = batch.input_ids
    made: list[list[int]] = [[] for _ in ids]
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    ahead = cached_tokens(model)
    cache, length = _cache(inner), ahead + ids.shape[1] + rules.limit
    # layers that attend through a window keep their own
    cache.layers = [ReservedLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if ahead:
        for layer, prefix in zip(cache.layers, model.get_prompt(batch_size=len(ids)).layers, strict=True):
            assert isinstance(layer, DynamicLayer)  # noqa: S101 (as `can_reserve` saw)
            layer.update(prefix.keys.to(inner.dtype), prefix.values.to(inner.dtype))
        model = inner
    state = _State(batch, rules.limit, takes(model, "position_ids"), ahead)
    options: dict[str, Any] = {str(cache_argument(inner)): cache, "use_cache": True}
    options |= {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    ends = torch.tensor(rules.ends, dtype=torch.int64, device=ids.device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    row_of = list(range(len(ids)))  # the row of `made` that each row of `ids` is
    reads = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
    for _ in range(rules.limit):
        scores = model(**reads, **state.arguments(ids.shape[1]), **options).logits[:, -1].float()
        for processor in rules.processors:
            scores = processor(ids, scores)
        tokens = scores.argmax(dim=-1)
        ids = torch.cat([ids, tokens[:, None]], dim=1)
        for row, token, over in zip(row_of, tokens.tolist(), ended.tolist(), strict=True):
            made[row] += [] if over else [token]
        ended |= torch.isin(tokens, ends)
        for criterion in rules.stopping:
            ended |= criterion(ids, scores)
        kept = rows_to_keep(ended, rules.slices)
        if kept is None:
            break
        if len(kept) < _WORTH * len(ids):
            ids, ended, row_of = ids[kept], ended[kept], [row_of[row] for row in kept.tolist()]
            for layer in cache.layers:
                assert isinstance(layer, DynamicLayer)  # noqa: S101 (as `can_reserve` saw)
                layer.batch_select_indices(kept)
            for holder in (state, *rules.processors):
                if hasattr(holder, "keep"):
                    holder.keep(kept)
        reads = {"input_ids": ids[:, -1:]}
    return made


def rows_to_keep(ended: torch.Tensor, slices: int) -> torch.Tensor | None:
    """Return the rows that go on, the same number of each slice: ended ones fill up what is short; None if none do."""
    each = ended.view(slices, -1)
    most = int((~each).sum(dim=1).max())
    if most == 0:
        return None
    first = each.to(torch.uint8).argsort(dim=1, stable=True)[:, :most].sort(dim=1).values
    starts = torch.arange(slices, device=ended.device)[:, None] * each.shape[1]
    return (first + starts).flatten()


class _State:
    """Which tokens of a row are its own, and where in its text they stand, behind `ahead` that are in the cache."""

    def __init__(self, batch: Batch, limit: int, positions: bool, ahead: int = 0) -> None:
        mask = batch.attention_mask
        room = torch.cat([mask.new_ones(len(mask), ahead), mask, mask.new_ones(len(mask), limit)], dim=1)
        # Without padding there is nothing to hide, and attention is faster without a mask.
        self._mask = None if bool(mask.all()) else room
        self._positions = (room.cumsum(dim=1) - 1).clamp_min(0) if positions else None
        self._ahead = self._read = ahead

    def arguments(self, length: int) -> dict[str, torch.Tensor]:
        """Return the mask and the positions of a forward pass over the tokens up to `length`."""
        length += self._ahead
        arguments = {} if self._mask is None else {"attention_mask": self._mask[:, :length]}
        if self._positions is not None:
            arguments["position_ids"] = self._positions[:, self._read : length]
        self._read = length
        return arguments

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but some."""
        self._mask = None if self._mask is None else self._mask[rows]
        self._positions = None if self._positions is None else self._positions[rows]
