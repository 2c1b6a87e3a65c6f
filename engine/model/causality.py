"""Proof that a model sees nothing of what follows: else it would be trained and tested on answers that it has read."""

from typing import Any

import torch

from lorafile.errors import NodeError

_LENGTH = 12  # tokens
_SHARE = 0.2  # of what the first token changes in later logits: quantization makes rows depend on each other by less


@torch.inference_mode()
def check_causal(model: Any, path: str) -> None:
    """Check that no logit moves when a later token changes.

    What the last token changes before it is compared with what the first one changes after it, because the arithmetic
    of a quantized base may let any row of a batch look at all others a little.

    :raises NodeError: when earlier logits move
    """
    device = model.get_input_embeddings().weight.device
    rows = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(_LENGTH, device=device) * 7 + 3) % rows
    before = _logits(model, ids)
    leaked = float((_logits(model, _changed(ids, -1, rows)) - before)[:-1].abs().max())
    if leaked == 0.0:
        return
    carried = float((_logits(model, _changed(ids, 0, rows)) - before)[1:].abs().max())
    if leaked > _SHARE * carried:
        raise NodeError(
            f"model.path: {path} is not a causal language model: as {type(model).__name__} it reads a token before it "
            "predicts it, so it would see the answers it is evaluated on. To classify with it, set "
            'model.task_type = "SEQ_CLS"; to generate, use a decoder.'
        )


def _changed(ids: torch.Tensor, place: int, rows: int) -> torch.Tensor:
    other = ids.clone()
    other[place] = (other[place] + 5) % rows
    return other


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of one text, float32 [t, v]."""
    logits: torch.Tensor = model(input_ids=ids[None]).logits[0].float()
    return logits
