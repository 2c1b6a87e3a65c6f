"""Log likelihood of the supervised tokens, with logits computed only where they are needed."""

from typing import Any

import torch
from torch.nn import functional

from lorafile.engine.batches import Batch
from lorafile.errors import NodeError


def supervised_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits [s, v] in float32, targets [s] and rows [s] of the supervised tokens of a batch.

    The model's own head computes them (scaling and caps included), at the columns in which any row is supervised.
    """
    predicts = torch.zeros_like(batch.supervised)
    predicts[:, :-1] = batch.supervised[:, 1:]  # position t predicts token t + 1
    columns = predicts.any(dim=0).nonzero().flatten()
    output = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, logits_to_keep=columns
    )
    if output.logits.shape[1] != len(columns):
        raise NodeError(f"{type(model).__name__} has no `logits_to_keep`, which this version needs to compute a loss.")
    rows, kept = predicts[:, columns].nonzero(as_tuple=True)
    targets = batch.input_ids[rows, columns[kept] + 1]
    return output.logits[rows, kept].float(), targets, rows


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the sum of the negative log likelihood, in nats, over the supervised tokens of a batch."""
    logits, targets, _ = supervised_logits(model, batch)
    return functional.cross_entropy(logits, targets, reduction="sum")
