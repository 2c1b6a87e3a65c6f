"""`predict`: what a model makes of each held-out example: likelihoods, or greedy answers."""

from pathlib import Path
from typing import Any

import torch

from lorafile.engine.adapters import tuned
from lorafile.engine.base import Base, Bases
from lorafile.engine.batches import Batch, by_length, collate, prompts
from lorafile.engine.lines import read_lines, write_lines
from lorafile.engine.loss import supervised_logits
from lorafile.engine.request import Done, Report, Request
from lorafile.engine.tokens import Tokens

_PIECE = 1024  # supervised tokens


def predict(request: Request, out: Path, bases: Bases, report: Report) -> Done:
    """Predict every example of one split and keep what came out, example by example."""
    tokens = Tokens.load(request.inputs["data"]["tokens.safetensors"])
    examples = list(read_lines(request.inputs["data"]["examples.jsonl.gz"]))
    task = request.settings["task"]
    found: dict[int, dict[str, Any]] = {}
    with tuned(bases, request) as (base, model), torch.inference_mode():
        padding = base.tokenizer.pad_token_id or 0
        for indexes in by_length(tokens.lengths(), request.execution.get("per_device_eval_batch_size", 16)):
            if task["output"] == "likelihood":
                batch = collate(tokens, indexes, padding, base.device)
                found |= dict(zip(indexes, likelihoods(model, batch), strict=True))
            else:
                batch = prompts(tokens, indexes, padding, base.device)
                answers = generate(base, model, batch, task["max_new_tokens"])
                found |= {index: {"answer": answer} for index, answer in zip(indexes, answers, strict=True)}
            report({"step": len(found), "steps": len(tokens)})
    rows = [
        {**{"row": line["row"], "reference": line["reference"]}, **found[index]} for index, line in enumerate(examples)
    ]
    write_lines(out / "predictions.jsonl.gz", rows)
    return Done(figures={"examples": len(rows)}, files=["predictions.jsonl.gz"])


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


def generate(base: Base, model: Any, batch: Batch, new_tokens: int, least: int = 0) -> list[str]:
    """Return the greedy answer to each prompt, without special tokens."""
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": new_tokens, "min_new_tokens": least}
    ids = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options)
    answers: list[str] = base.tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return answers
