"""Batches: examples of like length together, in an order that only the replicate's seed decides."""

import random
from dataclasses import dataclass

import torch

from lorafile.engine.blocks import Blocks
from lorafile.engine.randomness import derive
from lorafile.engine.request import EXAMPLES
from lorafile.engine.tokens import Tokens

_FILLED = (1024, 8192)  # tokens of one: on a CPU, above which nothing is gained; on a GPU
_BUCKET = 16  # so many batches are drawn at random before they are sorted by length


@dataclass(frozen=True)
class Batch:
    """Some examples, padded to the longest.

    :ivar input_ids: int64 [b, t]
    :ivar attention_mask: int64 [b, t], 0 where padded
    :ivar supervised: bool [b, t], true where the token is in the loss
    :ivar position_ids: int64 [b, t] of packed text, beginning at 0 with each document: then no mask is given
    :ivar classes: int64 [b], the class of each example, for a classification head
    """

    indexes: list[int]
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    supervised: torch.Tensor
    position_ids: torch.Tensor | None = None
    classes: torch.Tensor | None = None

    @property
    def targets(self) -> int:
        """Number of what is predicted: supervised tokens, or examples for a classification head."""
        return int(self.supervised[:, 1:].sum()) if self.classes is None else len(self.classes)

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


def by_length(lengths: list[int], size: int) -> list[list[int]]:
    """Return batches for evaluation: longest first, so that what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[at : at + size] for at in range(0, len(order), size)]


def filled(lengths: list[int], slices: int, device: torch.device) -> list[list[int]]:
    """Return batches for evaluation, longest first, of as many examples as fill the device.

    :param slices: how often a batch goes through the model at once: for so many adapters
    """
    most = _FILLED[device.type == "cuda"]
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    found = []
    while order:
        rows = max(EXAMPLES, most // max(lengths[order[0]], 1))
        size = max(rows // slices, 1)
        found.append(order[:size])
        order = order[size:]
    return found


def collate(tokens: Tokens | Blocks, indexes: list[int], padding: int, device: torch.device) -> Batch:
    """Return some examples padded on the right."""
    examples = [tokens.example(index) for index in indexes]
    longest = max(len(ids) for ids, _ in examples)
    input_ids = torch.full((len(examples), longest), padding)
    attention_mask = torch.zeros(len(examples), longest, dtype=torch.int64)
    supervised = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, (ids, marks) in enumerate(examples):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        supervised[row, : len(ids)] = marks.bool()
    positions = _positions(tokens, indexes, longest).to(device) if isinstance(tokens, Blocks) else None
    classes = tokens.classes[indexes].to(device) if isinstance(tokens, Tokens) and tokens.classes is not None else None
    return Batch(indexes, input_ids.to(device), attention_mask.to(device), supervised.to(device), positions, classes)


def _positions(blocks: Blocks, indexes: list[int], longest: int) -> torch.Tensor:
    """Return positions [b, t]; padding is a document of its own after the others, which nothing sees."""
    found = [blocks.positions(index) for index in indexes]
    return torch.stack([torch.cat([one, torch.arange(longest - len(one))]) for one in found])


def prompts(tokens: Tokens, indexes: list[int], padding: int, device: torch.device) -> Batch:
    """Return the prompts of some examples, padded on the left."""
    cut = [tokens.example(index)[0][: int(tokens.prompts[index])] for index in indexes]
    longest = max(len(ids) for ids in cut)
    input_ids = torch.full((len(cut), longest), padding)
    attention_mask = torch.zeros(len(cut), longest, dtype=torch.int64)
    for row, ids in enumerate(cut):
        input_ids[row, longest - len(ids) :] = ids
        attention_mask[row, longest - len(ids) :] = 1
    nothing = torch.zeros_like(attention_mask, dtype=torch.bool)
    return Batch(indexes, input_ids.to(device), attention_mask.to(device), nothing.to(device))
