"""`predict`: what a model makes of each held-out example: likelihoods, or greedy answers."""

from pathlib import Path
from typing import Any

import torch

from lorafile.engine.adapters import tuned
from lorafile.engine.base import Base, Bases
from lorafile.engine.batches import Batch, by_length, collate, prompts
from lorafile.engine.choices import choose
from lorafile.engine.lines import read_lines, write_lines
from lorafile.engine.loss import likelihoods
from lorafile.engine.request import Done, Report, Request
from lorafile.engine.tokens import Tokens

# What the metrics of an output need of an example beside what the model made of it.
_CARRIED = {
    "likelihood": ("row", "reference", "bytes"),
    "generation": ("row", "reference", "references", "unanswerable"),
    "choice": ("row", "reference"),
}


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
            elif task["output"] == "choice":
                cut = [tokens.prompt(index) for index in indexes]
                chosen = choose(base, model, cut, [examples[index] for index in indexes], len(indexes))
                found |= dict(zip(indexes, chosen, strict=True))
            else:
                batch = prompts(tokens, indexes, padding, base.device)
                answers = generate(base, model, batch, task["max_new_tokens"])
                found |= {index: {"answer": answer} for index, answer in zip(indexes, answers, strict=True)}
            report({"step": len(found), "steps": len(tokens)})
    carried = _CARRIED[task["output"]]
    rows = [
        {**{name: line[name] for name in carried if name in line}, **found[index]}
        for index, line in enumerate(examples)
    ]
    write_lines(out / "predictions.jsonl.gz", rows)
    return Done(figures={"examples": len(rows)}, files=["predictions.jsonl.gz"])


def generate(base: Base, model: Any, batch: Batch, new_tokens: int, least: int = 0) -> list[str]:
    """Return the greedy answer to each prompt, without special tokens."""
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": new_tokens, "min_new_tokens": least}
    ids = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options)
    answers: list[str] = base.tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return answers
