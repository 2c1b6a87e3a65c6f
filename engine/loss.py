"""Log likelihood of the supervised tokens, with logits computed only where they are needed."""

from typing import Any

import torch
from torch.nn import functional

from lorafile.engine.batches import Batch
from lorafile.engine.cross_entropy import cross_entropies
from lorafile.engine.head import class_logits
from lorafile.engine.loading import takes
from lorafile.engine.methods import virtual_tokens

_PIECE = 1024  # supervised tokens


def supervised_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits [s, v] in float32 or wider, targets [s] and rows [s] of the supervised tokens of a batch.

    The model's own head computes them (scaling and caps included), at the columns in which any row is supervised.
    """
    predicts = torch.zeros_like(batch.supervised)
    predicts[:, :-1] = batch.supervised[:, 1:]  # position t predicts token t + 1
    columns = predicts.any(dim=0).nonzero().flatten()
    kept = columns + virtual_tokens(model)  # they stand before every text, and are predicted by nothing
    options: dict[str, Any] = {"logits_to_keep": kept} if takes(model, "logits_to_keep") else {}
    # Position ids separate the documents of a block only where there is no mask (engine/blocks.py).
    packed = batch.position_ids is not None
    where = {"position_ids": batch.position_ids} if packed else {"attention_mask": batch.attention_mask}
    logits = model(input_ids=batch.input_ids, **where, use_cache=False, **options).logits
    if not options:  # an older architecture, which computes them all
        logits = logits[:, kept]
    rows, kept = predicts[:, columns].nonzero(as_tuple=True)
    targets = batch.input_ids[rows, columns[kept] + 1]
    found = logits[rows, kept]
    return found.to(torch.promote_types(found.dtype, torch.float32)), targets, rows


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the sum of the negative log likelihood, in nats, over the supervised tokens or the classes of a batch."""
    if batch.classes is not None:
        return functional.cross_entropy(class_logits(model, batch), batch.classes, reduction="sum")
    logits, targets, _ = supervised_logits(model, batch)
    return cross_entropies(logits, targets).sum()


def likelihoods(model: Any, batch: Batch) -> list[dict[str, float]]:
    """Return for each example `log_likelihood` (nats, its supervised tokens), `tokens`, and `correct` (argmax)."""
    logits, targets, rows = supervised_logits(model, batch)
    # In pieces: in double precision a whole batch's logits over a large vocabulary would be most of the memory.
    pieces = zip(logits.split(_PIECE), targets.split(_PIECE), strict=True)
    each = torch.cat([piece.double().log_softmax(-1).gather(1, aim[:, None]).squeeze(1) for piece, aim in pieces])
    hits = logits.argmax(dim=-1) == targets
    count = len(batch.indexes)
    sums = torch.zeros(count, dtype=torch.float64, device=each.device).index_add_(0, rows, each)
    tokens = torch.bincount(rows, minlength=count)
    correct = torch.bincount(rows[hits], minlength=count)
    return [
        {"log_likelihood": total, "tokens": number, "correct": right}
        for total, number, right in zip(sums.tolist(), tokens.tolist(), correct.tolist(), strict=True)
    ]
