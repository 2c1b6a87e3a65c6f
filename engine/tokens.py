"""Prepared examples: token ids of one split, flat, with what is supervised; safetensors, mapped from disk."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Tokens:
    """Examples of one split.

    :ivar input_ids: int32 [T], all examples one after another
    :ivar supervised: uint8 [T], 1 where the token is in the loss
    :ivar offsets: int64 [n + 1], where each example begins and the last one ends
    """

    input_ids: torch.Tensor
    supervised: torch.Tensor
    offsets: torch.Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def example(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and the supervision of one example, both int64 [t]."""
        here = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.input_ids[here].long(), self.supervised[here].long()

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example."""
        lengths: list[int] = (self.offsets[1:] - self.offsets[:-1]).tolist()
        return lengths

    def save(self, file: Path) -> None:
        """Write the tensors."""
        save_file({"input_ids": self.input_ids, "supervised": self.supervised, "offsets": self.offsets}, file)

    @classmethod
    def load(cls, file: Path | str) -> "Tokens":
        """Map the tensors from disk."""
        return cls(**load_file(file))
