"""Packed text: several documents in a row of tokens, none of which sees another; proven on the model before it is used.

In transformers 5 position ids that restart separate documents where no attention mask and no cache is given, and in
models that build their mask from them; elsewhere they are accepted and separate nothing. So the model is asked.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lorafile.engine.batching.tokens import Tokens

_HALF = 8  # tokens of each of the two documents of a probe


@dataclass(frozen=True)
class Blocks:
    """The examples of a split as blocks; to a batch, a block is an example."""

    tokens: Tokens

    @cached_property
    def members(self) -> list[list[int]]:
        """The examples of each block, in order."""
        assert self.tokens.blocks is not None  # noqa: S101 (made for packed tokens alone)
        found: dict[int, list[int]] = {}
        for index, block in enumerate(self.tokens.blocks.tolist()):
            found.setdefault(block, []).append(index)
        return [found[block] for block in sorted(found)]

    def __len__(self) -> int:
        return len(self.members)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each block."""
        lengths = self.tokens.lengths()
        return [sum(lengths[index] for index in block) for block in self.members]

    def example(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and the supervision of one block, both int64 [t]."""
        ids, marks = zip(*(self.tokens.example(one) for one in self.members[index]), strict=True)
        return torch.cat(ids), torch.cat(marks)

    def positions(self, index: int) -> torch.Tensor:
        """Return the place of each token in its own document, int64 [t]."""
        return torch.cat([torch.arange(len(self.tokens.example(one)[0])) for one in self.members[index]])


def units(tokens: Tokens, model: Any) -> tuple[Tokens | Blocks, str]:
    """Return what training takes as its examples, and a sentence where packed text has to be unpacked for a model."""
    if tokens.blocks is None:
        return tokens, ""
    if isolates(model):
        return Blocks(tokens), ""
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    return tokens, f"{kind} lets a document of a block see the one before it, so each document was a row of its own."


def isolates(model: Any) -> bool:
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
            one, other = (_logits(model, [prefix, second]) for prefix in (first, first.flip(0)))
            alone = _logits(model, [second])
    except TypeError:
        return False  # it takes no position ids
    finally:
        model.train(training)
    scale = float(alone.abs().max())
    near = 1e-4 if embeddings.dtype == torch.float32 else 5e-2
    return float((one - other).abs().max()) <= 1e-5 * scale and float((one - alone).abs().max()) <= near * scale


def _logits(model: Any, documents: list[torch.Tensor]) -> torch.Tensor:
    """Return the logits of the last document of a block, float32 [t, v]."""
    device = model.get_input_embeddings().weight.device
    ids = torch.cat(documents)[None].to(device)
    positions = torch.cat([torch.arange(len(document)) for document in documents])[None].to(device)
    output = model(input_ids=ids, position_ids=positions, use_cache=False)
    found: torch.Tensor = output.logits[0, -len(documents[-1]) :].float()
    return found
