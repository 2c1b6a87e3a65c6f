"""Batches: examples of like length together, in an order that only the replicate's seed decides."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from lorafile.engine.batching.tokens import PackedExamples, Tokens, Unit, Units
from lorafile.engine.randomness import derive
from lorafile.engine.request import EXAMPLES

_FILLED = (2048, 8192)  # tokens of one: on a CPU, above which nothing is gained; on a GPU
_Unit = TypeVar("_Unit")
_BUCKET = 16  # so many batches are drawn at random before they are sorted by length


@dataclass(frozen=True)
class Batch:
    """Some examples, padded to the longest.

    :ivar input_ids: int64 [b, t]
    :ivar attention_mask: int64 [b, t], 0 where padded
    :ivar supervised: bool [b, t], true where the token is in the loss
    :ivar position_ids: int64 [b, t] of packed rows, beginning at 0 with each document: then no mask is given
    :ivar token_type_ids: int64 [b, t], which sentence of a pair each token belongs to
    :ivar labels: for a head, what it should say of each example: int64 [b], its class; float32 [b], its number
    """

    indexes: list[int]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    supervised: torch.Tensor
    position_ids: torch.Tensor | None = None
    token_type_ids: torch.Tensor | None = None
    labels: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return self._with_tensors(lambda tensor: tensor.to(device))

    def repeated(self, times: int) -> "Batch":
        """Return the batch with its examples so many times, one after another: once for each adapter."""
        many = self._with_tensors(lambda tensor: torch.cat([tensor] * times))
        return self if times == 1 else replace(many, indexes=self.indexes * times)

    def _with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in tensors.items()}
        return replace(self, **changed)

    @property
    def inputs(self) -> dict[str, Any]:
        """What a model is given: position ids separate the documents of a block only where there is no mask."""
        packed = self.position_ids is not None
        seen = {"position_ids": self.position_ids} if packed else {"attention_mask": self.attention_mask}
        return {"input_ids": self.input_ids, **seen, "use_cache": False}

    @property
    def targets(self) -> int:
        """Number of what is predicted: supervised tokens, or examples for a head."""
        return int(self.supervised[:, 1:].sum()) if self.labels is None else len(self.labels)

    @property
    def tokens(self) -> int:
        """Number of tokens that are not padding."""
        return int(self.attention_mask.sum())


def epoch_order(lengths: list[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of one pass: each example once, neighbours in length together, batches in random order."""
    rng = random.Random(derive(seed, f"order:{epoch}"))
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches = []
    for start in range(0, len(order), size * _BUCKET):
        bucket = sorted(order[start : start + size * _BUCKET], key=lambda index: lengths[index])
        batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
    rng.shuffle(batches)
    return batches


def in_micro_batches(tokens: Units, examples: list[int], size: int) -> list[list[Unit]]:
    """Return the examples of a step as micro-batches of so many rows; packed, a row holds several of them."""
    rows = tokens.rows(examples, size) if isinstance(tokens, PackedExamples) else examples
    return split_micro_batches([[*rows]], size, 1)


def split_micro_batches(group: list[list[_Unit]], size: int, parts: int) -> list[list[_Unit]]:
    """Return the micro-batches of a step in so many parts each as memory asks for; the step's loss is the same."""
    most = math.ceil(size / parts)
    return [indexes[at : at + most] for indexes in group for at in range(0, len(indexes), most)]


def by_length(lengths: list[int], size: int) -> list[list[int]]:
    """Return batches for evaluation: longest first, so that what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[at : at + size] for at in range(0, len(order), size)]


def fill_device(lengths: list[int], slices: int, device: torch.device) -> list[list[int]]:
    """Return batches for evaluation, longest first, of as many examples as fill the device.

    :param slices: how often a batch goes through the model at once: for so many adapters
    """
    most = _FILLED[device.type == "cuda"]
    order = [index for (index,) in by_length(lengths, 1)]
    batches = []
    while order:
        rows = max(EXAMPLES, most // max(lengths[order[0]], 1))
        size = max(rows // slices, 1)
        batches.append(order[:size])
        order = order[size:]
    return batches


def collate(tokens: Units, indexes: list[Unit], padding: int, device: torch.device) -> Batch:
    """Return some examples, blocks or packed rows, padded on the right."""
    rows, marks = zip(*(tokens.example(index) for index in indexes), strict=True)
    input_ids = pad_sequence(list(rows), batch_first=True, padding_value=padding)
    attention_mask = pad_sequence([torch.ones_like(part) for part in rows], batch_first=True)
    supervised = pad_sequence(list(marks), batch_first=True).bool()
    positions = None
    if not isinstance(tokens, Tokens):  # each token of padding is a document of its own, which nothing sees
        places = [tokens.positions(index) for index in indexes]
        positions = pad_sequence(places, batch_first=True).to(device)
    labels = types = None
    if isinstance(tokens, Tokens) and tokens.labels is not None:
        labels = tokens.labels[indexes].to(device)
    if isinstance(tokens, Tokens) and tokens.types is not None:
        types = pad_sequence([tokens.types_of(index) for index in indexes], batch_first=True).to(device)
    ids, mask, marked = (tensor.to(device) for tensor in (input_ids, attention_mask, supervised))
    numbers = [*range(len(indexes))] if isinstance(tokens, PackedExamples) else indexes
    return Batch(numbers, ids, mask, marked, positions, types, labels)


def join_batches(batches: Sequence[Batch | None], padding: int) -> Batch:
    """Return some batches as one: each takes as many rows and columns as the largest has.

    Rows that fill it up attend to themselves, so that nothing of them is no number, and are not supervised.
    """
    present = [batch for batch in batches if batch is not None]
    b, t = (max(sizes) for sizes in zip(*(batch.input_ids.shape for batch in present), strict=True))
    packed = present[0].position_ids is not None
    shape, device = (len(batches), b, t), present[0].input_ids.device
    input_ids = torch.full(shape, padding, device=device)
    attention_mask = torch.ones(shape, dtype=torch.int64, device=device)
    supervised = torch.zeros(shape, dtype=torch.bool, device=device)
    positions = torch.zeros(shape, dtype=torch.int64, device=device)  # what fills up sees itself, as padding does
    for number, batch in enumerate(batches):
        if batch is None:
            continue
        rows, columns = batch.input_ids.shape
        input_ids[number, :rows, :columns] = batch.input_ids
        attention_mask[number, :rows] = 0
        attention_mask[number, :rows, :columns] = batch.attention_mask
        supervised[number, :rows, :columns] = batch.supervised
        if batch.position_ids is not None:
            positions[number, :rows, :columns] = batch.position_ids
    flat = [tensor.flatten(0, 1) for tensor in (input_ids, attention_mask, supervised, positions)]
    return Batch(list(range(len(batches) * b)), flat[0], flat[1], flat[2], flat[3] if packed else None)


def collate_prompts(tokens: Tokens, indexes: list[int], padding: int, device: torch.device) -> Batch:
    """Return the prompts of some examples, padded on the left."""
    prompts = [tokens.example(index)[0][: int(tokens.prompts[index])] for index in indexes]
    input_ids = pad_sequence(prompts, batch_first=True, padding_value=padding, padding_side="left")
    attention_mask = pad_sequence([torch.ones_like(ids) for ids in prompts], batch_first=True, padding_side="left")
    nothing = torch.zeros_like(attention_mask, dtype=torch.bool)
    return Batch(indexes, input_ids.to(device), attention_mask.to(device), nothing.to(device))


def prompt_batch(ids: torch.Tensor) -> Batch:
    """Return one prompt [t] as a batch, where it lies."""
    return Batch([0], ids[None], torch.ones_like(ids[None]), torch.zeros_like(ids[None], dtype=torch.bool))
