"""Prepared examples: token ids of one split, flat, with what is supervised; safetensors, mapped from disk."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lorafile.engine.data.encode import Encoded


@dataclass(frozen=True)
class Tokens:
    """Examples of one split.

    :ivar input_ids: int32 [T], all examples one after another
    :ivar supervised: uint8 [T], 1 where the token is in the loss
    :ivar offsets: int64 [n + 1], where each example begins and the last one ends
    :ivar prompts: int64 [n], how many tokens of each example are its prompt
    :ivar blocks: int64 [n], the block of each example where text is packed
    :ivar classes: int64 [n], the class of each example, where a classification head reads them; never stored
    """

    input_ids: torch.Tensor
    supervised: torch.Tensor
    offsets: torch.Tensor
    prompts: torch.Tensor
    blocks: torch.Tensor | None = None
    classes: torch.Tensor | None = None

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

    def texts(self, classes: torch.Tensor) -> "Tokens":
        """Return the prompts alone, each with its class: what a classification head reads."""
        kept = [torch.arange(int(size)) + start for size, start in zip(self.prompts, self.offsets[:-1], strict=True)]
        ids = self.input_ids[torch.cat(kept)]
        offsets = torch.cat([self.offsets[:1], self.prompts.cumsum(0)])
        return Tokens(ids, torch.zeros_like(ids, dtype=torch.uint8), offsets, self.prompts, classes=classes)

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
    )
