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
    each = torch.log_softmax(logits.double(), dim=-1).gather(1, targets[:, None]).squeeze(1)
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
    options = {
        "do_sample": False,
        "num_beams": 1,
        "max_new_tokens": new_tokens,
        "min_new_tokens": least,
        "pad_token_id": base.tokenizer.pad_token_id,
        "eos_token_id": end_tokens(base),
        "temperature": None,
        "top_p": None,
        "top_k": None,
    }
    ids = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options)
    answers: list[str] = base.tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return answers


def end_tokens(base: Base) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's own, and those of the model's generation settings."""
    stored = getattr(base.model, "generation_config", None)
    ends = stored.eos_token_id if stored is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    return sorted({token for token in [*listed, base.tokenizer.eos_token_id] if token is not None})
