"""Prepared examples: token ids of one split, flat, with what is supervised; safetensors, mapped from disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorafile.engine.data.blocks import best_fit
from lorafile.engine.data.encode import Encoded
from lorafile.errors import NodeError
from lorafile.specs.tables.train import PACKED_ROW_LENGTH

_HALF = 8  # tokens of each of the two documents of a probe

Unit = Any  # a row of a batch: the number of an example or of a block, or the numbers of a packed row's examples


@dataclass(frozen=True)
class Tokens:
    """Examples of one split.

    :ivar input_ids: int32 [T], all examples one after another
    :ivar supervised: uint8 [T], 1 where the token is in the loss
    :ivar offsets: int64 [n + 1], where each example begins and the last one ends
    :ivar prompts: int64 [n], how many tokens of each example are its prompt
    :ivar blocks: int64 [n], the block of each example where text is packed
    :ivar types: uint8 [T], which sentence of a pair each token belongs to, where the tokenizer tells
    :ivar labels: for a head, what it should say of each example: int64 [n], its class; float32 [n], its number; never
        stored
    """

    input_ids: torch.Tensor
    supervised: torch.Tensor
    offsets: torch.Tensor
    prompts: torch.Tensor
    blocks: torch.Tensor | None = None
    types: torch.Tensor | None = None
    labels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def example(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and the supervision of one example, both int64 [t]."""
        here = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.input_ids[here].long(), self.supervised[here].long()

    def prompt(self, index: int) -> list[int]:
        """Return the ids of one example's prompt."""
        ids: list[int] = self.example(index)[0][: int(self.prompts[index])].tolist()
        return ids

    def texts(self, labels: torch.Tensor) -> "Tokens":
        """Return the prompts alone, each with its label: what a head reads."""
        kept = [torch.arange(int(size)) + start for size, start in zip(self.prompts, self.offsets[:-1], strict=True)]
        ids = self.input_ids[torch.cat(kept)]
        types = None if self.types is None else self.types[torch.cat(kept)]
        offsets = torch.cat([self.offsets[:1], self.prompts.cumsum(0)])
        unread = torch.zeros_like(ids, dtype=torch.uint8)
        return Tokens(ids, unread, offsets, self.prompts, types=types, labels=labels)

    def first(self, count: int) -> "Tokens":
        """Return the first examples."""
        end = int(self.offsets[min(count, len(self))])
        of_tokens, of_examples = ("input_ids", "supervised", "types"), ("prompts", "blocks", "labels")
        kept = {name: value[:end] for name in of_tokens if (value := getattr(self, name)) is not None}
        kept |= {name: value[:count] for name in of_examples if (value := getattr(self, name)) is not None}
        return Tokens(offsets=self.offsets[: count + 1], **kept)

    def types_of(self, index: int) -> torch.Tensor:
        """Return which sentence each token of an example belongs to, int64 [t]."""
        assert self.types is not None  # noqa: S101 (asked of pairs alone)
        return self.types[int(self.offsets[index]) : int(self.offsets[index + 1])].long()

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example."""
        lengths: list[int] = (self.offsets[1:] - self.offsets[:-1]).tolist()
        return lengths

    def save(self, file: Path) -> None:
        """Write the tensors."""
        save_file({name: tensor for name, tensor in self.__dict__.items() if tensor is not None}, file)

    @classmethod
    def load(cls, file: Path | str) -> "Tokens":
        """Map the tensors from disk."""
        return cls(**load_file(file))


def pack(examples: list[Encoded], blocks: list[int] | None = None) -> Tokens:
    """Return examples as flat tensors.

    :param blocks: the block of each example, where text is packed
    """
    return Tokens(
        input_ids=torch.tensor([token for example in examples for token in example.input_ids], dtype=torch.int32),
        supervised=torch.tensor([mark for example in examples for mark in example.supervised], dtype=torch.uint8),
        offsets=torch.tensor([0] + [len(example.input_ids) for example in examples]).cumsum(0),
        prompts=torch.tensor([example.prompt for example in examples]),
        blocks=None if blocks is None else torch.tensor(blocks),
        types=_types(examples),
    )


def _types(examples: list[Encoded]) -> torch.Tensor | None:
    types = [example.types for example in examples]
    if not any(any(row or ()) for row in types):
        return None
    return torch.tensor([number for row in types for number in row or ()], dtype=torch.uint8)


@dataclass(frozen=True)
class Blocks:
    """The examples of a split as blocks; to a batch, a block is an example."""

    tokens: Tokens

    @cached_property
    def members(self) -> list[list[int]]:
        """The examples of each block, in order."""
        assert self.tokens.blocks is not None  # noqa: S101 (made for packed tokens alone)
        members: dict[int, list[int]] = {}
        for index, block in enumerate(self.tokens.blocks.tolist()):
            members.setdefault(block, []).append(index)
        return [members[block] for block in sorted(members)]

    def __len__(self) -> int:
        return len(self.members)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each block."""
        lengths = self.tokens.lengths()
        return [sum(lengths[index] for index in block) for block in self.members]

    def example(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and the supervision of one block, both int64 [t]."""
        return _joined(self.tokens, self.members[index])

    def positions(self, index: int) -> torch.Tensor:
        """Return the place of each token in its own document, int64 [t]."""
        return _positions(self.tokens, self.members[index])


@dataclass(frozen=True)
class PackedExamples:
    """The examples of a split, of which each optimizer step puts its own into rows.

    A step has the examples that it would have without packing; to a batch, a row is an example.

    :ivar limit: the most tokens of a row
    """

    tokens: Tokens
    limit: int

    @cached_property
    def _sizes(self) -> list[int]:
        return self.tokens.lengths()

    def __len__(self) -> int:
        return len(self.tokens)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example."""
        return self._sizes

    def rows(self, examples: Sequence[int], size: int) -> list[tuple[int, ...]]:
        """Return some examples as rows, best fit decreasing: the examples of each row.

        There are as few forward passes as rows of up to `limit` tokens allow, and rows are no longer than these need:
        attention costs more in a longer row, and rows of one pass are padded to the longest of them.

        :param size: the most rows of a forward pass
        """
        sizes = [self._sizes[index] for index in examples]
        row_of = _shortest_rows(sizes, self.limit, size)
        rows: list[tuple[int, ...]] = [()] * (max(row_of, default=-1) + 1)
        for index, row in zip(examples, row_of, strict=True):
            rows[row] += (index,)
        return rows

    def example(self, row: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and the supervision of one row, both int64 [t]."""
        return _joined(self.tokens, row)

    def positions(self, row: tuple[int, ...]) -> torch.Tensor:
        """Return the place of each token in its own example, int64 [t]."""
        return _positions(self.tokens, row)


Units = Tokens | Blocks | PackedExamples


def _joined(tokens: Tokens, members: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, marks = zip(*(tokens.example(member) for member in members), strict=True)
    for part in marks:
        part[:1] = 0  # as at the beginning of a row: what stands before it is another document
    return torch.cat(ids), torch.cat(marks)


def _positions(tokens: Tokens, members: Sequence[int]) -> torch.Tensor:
    return torch.cat([torch.arange(len(tokens.example(member)[0])) for member in members])


def _shortest_rows(lengths: list[int], limit: int, size: int) -> list[int]:
    """Return for each example the number of its row: the shortest rows that take the fewest passes of `size`."""

    def passes(rows: list[int]) -> int:
        return max(rows, default=-1) // size

    best = best_fit(lengths, limit)
    fewest, low, high = passes(best), max(lengths, default=0), limit
    while low < high:
        middle = (low + high) // 2
        rows = best_fit(lengths, middle)
        if passes(rows) <= fewest:
            best, high = rows, middle
        else:
            low = middle + 1
    return best


def training_units(tokens: Tokens, model: Any, training: dict[str, Any]) -> tuple[Units, str]:
    """Return what training takes as its examples, and a sentence where packed text has to be unpacked for a model.

    :raises NodeError: when the spec asks for packed examples, and the model cannot keep them apart
    """
    limit: int | None = training.get(PACKED_ROW_LENGTH)
    if tokens.blocks is None and limit is None:
        return tokens, ""
    separate = separates_documents(model, min(training["per_device_train_batch_size"], 2))
    if separate:
        return (Blocks(tokens) if limit is None else PackedExamples(tokens, limit)), ""
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if limit is not None:
        raise NodeError(f"data.packing: {_why_together(model, kind)}; set data.packing = false.")
    return tokens, f"{kind} lets a document in a block attend to the one before it, so each document has its own row."


def _why_together(model: Any, kind: str) -> str:
    if _has_virtual_tokens(model):
        return "virtual tokens stand before a row, and not before each of the examples in it"
    return f"{kind} does not keep the examples of a row apart, so each would be trained on the one before it"


def _has_virtual_tokens(model: Any) -> bool:
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def separates_documents(model: Any, rows: int = 2) -> bool:
    """Return whether a second document has the same logits whatever the first one is, and the same as alone.

    :param rows: of the batch: flash attention reads where documents begin in a single row alone
    """
    if _has_virtual_tokens(model):
        return False  # PEFT drops position ids where it puts them in front
    embeddings = model.get_input_embeddings().weight
    first = torch.arange(_HALF) % embeddings.shape[0]
    second = (first + 3) % embeddings.shape[0]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            before, after = (_logits(model, [prefix, second], rows) for prefix in (first, first.flip(0)))
            alone = _logits(model, [second], rows)
    except TypeError:
        return False  # it takes no position ids
    finally:
        model.train(training)
    scale = float(alone.abs().max())
    near = 1e-4 if embeddings.dtype == torch.float32 else 5e-2
    return float((before - after).abs().max()) <= 1e-5 * scale and float((before - alone).abs().max()) <= near * scale


def _logits(model: Any, documents: list[torch.Tensor], rows: int) -> torch.Tensor:
    """Return the logits of the last document of a block in a batch of such rows, float32 [t, v]."""
    device = model.get_input_embeddings().weight.device
    ids = torch.cat(documents)[None].repeat(rows, 1).to(device)
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None].repeat(rows, 1).to(device)
    output = model(input_ids=ids, position_ids=positions, use_cache=False)
    logits: torch.Tensor = output.logits[0, -len(documents[-1]) :].float()
    return logits
