"""Prepared examples: token ids of one split, flat, with what is supervised; safetensors, mapped from disk."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorafile.engine.data.encode import Encoded

_HALF = 8  # tokens of each of the two documents of a probe


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
        ids, marks = zip(*(self.tokens.example(member) for member in self.members[index]), strict=True)
        return torch.cat(ids), torch.cat(marks)

    def positions(self, index: int) -> torch.Tensor:
        """Return the place of each token in its own document, int64 [t]."""
        return torch.cat([torch.arange(len(self.tokens.example(member)[0])) for member in self.members[index]])


def training_units(tokens: Tokens, model: Any) -> tuple[Tokens | Blocks, str]:
    """Return what training takes as its examples, and a sentence where packed text has to be unpacked for a model."""
    if tokens.blocks is None:
        return tokens, ""
    if separates_documents(model):
        return Blocks(tokens), ""
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    return tokens, f"{kind} lets a document in a block attend to the one before it, so each document has its own row."


def separates_documents(model: Any) -> bool:
    """Return whether a second document has the same logits whatever the first one is, and the same as alone."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False  # PEFT drops position ids where it puts virtual tokens in front
    embeddings = model.get_input_embeddings().weight
    first = torch.arange(_HALF) % embeddings.shape[0]
    second = (first + 3) % embeddings.shape[0]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            before, after = (_logits(model, [prefix, second]) for prefix in (first, first.flip(0)))
            alone = _logits(model, [second])
    except TypeError:
        return False  # it takes no position ids
    finally:
        model.train(training)
    scale = float(alone.abs().max())
    near = 1e-4 if embeddings.dtype == torch.float32 else 5e-2
    return float((before - after).abs().max()) <= 1e-5 * scale and float((before - alone).abs().max()) <= near * scale


def _logits(model: Any, documents: list[torch.Tensor]) -> torch.Tensor:
    """Return the logits of the last document of a block, float32 [t, v]."""
    device = model.get_input_embeddings().weight.device
    ids = torch.cat(documents)[None].to(device)
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None].to(device)
    output = model(input_ids=ids, position_ids=positions, use_cache=False)
    logits: torch.Tensor = output.logits[0, -len(documents[-1]) :].float()
    return logits
