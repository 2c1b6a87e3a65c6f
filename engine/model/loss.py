"""Log likelihood of the supervised tokens, with logits computed only where they are needed."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorafile.engine.batching.batches import Batch
from lorafile.engine.model.head import class_logits, takes
from lorafile.engine.model.methods import virtual_tokens

# Logits of a piece: on a CPU as many as its cache holds, on a GPU so many that launches do not count.
_CPU_PIECE, _GPU_PIECE = 2**21, 2**26


def cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return −log softmax(logits)[target] for each row, [s], computed in float32 or wider.

    :param logits: [s, v]
    :param targets: int64 [s]
    """
    each: torch.Tensor = _CrossEntropies.apply(logits, targets)  # type: ignore[no-untyped-call]
    return each


def rows_at_once(logits: torch.Tensor) -> int:
    """Return of how many rows of some logits [s, v] a piece is."""
    return max(1, (_CPU_PIECE if logits.device.type == "cpu" else _GPU_PIECE) // logits.shape[1])


class _CrossEntropies(torch.autograd.Function):
    """The rows one piece after another, each with its gradient: softmax minus one at the target."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the losses, and where they are wanted, the gradients of their sum."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        each = logits.new_empty(len(logits), dtype=wide)
        # float16 holds a small probability only after it is scaled, which autograd's cast at the end comes after.
        kept = wide if logits.dtype == torch.float16 else logits.dtype
        gradient = torch.empty_like(logits, dtype=kept) if ctx.needs_input_grad[0] else None
        size = rows_at_once(logits)
        for start in range(0, len(logits), size):
            piece, aim = slice(start, start + size), targets[start : start + size, None]
            logs = logits[piece].to(wide).log_softmax(dim=-1)
            each[piece] = -logs.gather(1, aim).squeeze(1)
            if gradient is not None:
                gradient[piece] = logs.exp_().scatter_add_(1, aim, logs.new_full(aim.shape, -1.0))
        ctx.save_for_backward(gradient)
        return each

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outward: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Weigh the kept gradient in place: a second pass would find it changed, and torch refuses it.

        In pieces, because torch multiplies bfloat16 by float32 in float32 copies of all that it is given.
        """
        (gradient,) = ctx.saved_tensors
        size = rows_at_once(gradient)
        for part, weights in zip(gradient.split(size), outward.split(size), strict=True):
            part.mul_(weights[:, None])
        return gradient, None


def supervised_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits [s, v] in the model's own type, targets [s] and rows [s] of the supervised tokens of a batch.

    The model itself computes them, scaling and caps included: its head is given only the hidden states that predict a
    supervised token. Where its output comes from no such head, it computes the columns in which any row is supervised.
    """
    predicts = torch.zeros_like(batch.supervised)
    predicts[:, :-1] = batch.supervised[:, 1:]  # position t predicts token t + 1
    columns = predicts.any(dim=0).nonzero().flatten()
    rows, places = predicts[:, columns].nonzero(as_tuple=True)
    kept = columns + virtual_tokens(model)  # they stand before every text, and are predicted by nothing
    options: dict[str, Any] = {"logits_to_keep": kept} if takes(model, "logits_to_keep") else {}
    width = len(kept) if options else batch.input_ids.shape[1] + virtual_tokens(model)
    at = places if options else kept[places]  # an older architecture shows its head every position
    with _gathered(model, rows, at, (len(batch.indexes), width)) as gathered:
        logits = model(**batch.inputs, **options).logits
    logits = logits[0] if gathered else logits[rows, at]
    return logits, batch.input_ids[rows, columns[places] + 1], rows


@contextlib.contextmanager
def _gathered(model: Any, rows: torch.Tensor, at: torch.Tensor, shape: tuple[int, int]) -> Iterator[list[bool]]:
    """While this lasts, a model's head reads only some hidden states: [1, s, d] of [b, t, d].

    :param shape: b and t; a head that reads anything else is left alone
    :return: a list that is not empty once the head has been given less
    """
    seen: list[bool] = []
    head = model.get_output_embeddings()
    if head is None:
        yield seen
        return

    def gather(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden = inputs[0] if inputs else None
        if seen or not isinstance(hidden, torch.Tensor) or hidden.ndim != 3 or hidden.shape[:2] != shape:
            return None
        seen.append(True)
        return (hidden[rows.to(hidden.device), at.to(hidden.device)][None], *inputs[1:])

    hook = head.register_forward_pre_hook(gather)
    try:
        yield seen
    finally:
        hook.remove()


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the sum of the negative log likelihood, in nats, over the supervised tokens or the classes of a batch.

    Of a regression it is the sum of squared errors.
    """
    if batch.labels is not None and batch.labels.is_floating_point():
        return functional.mse_loss(class_logits(model, batch).squeeze(1), batch.labels, reduction="sum")
    if batch.labels is not None:
        return functional.cross_entropy(class_logits(model, batch), batch.labels, reduction="sum")
    logits, targets, _ = supervised_logits(model, batch)
    return cross_entropies(logits, targets).sum()


def likelihoods(model: Any, batch: Batch) -> list[dict[str, float]]:
    """Return for each example `log_likelihood` (nats, its supervised tokens), `tokens`, and `correct` (argmax)."""
    logits, targets, rows = supervised_logits(model, batch)
    # In pieces: in double precision those of a whole batch over a large vocabulary would be most of memory and time.
    size = rows_at_once(logits)
    pieces = zip(logits.split(size), targets.split(size), strict=True)
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
