"""`predict`: what a model makes of each held-out example: likelihoods, chosen labels, or answers."""

from pathlib import Path
from typing import Any

import torch

from lorafile.engine.adapters import tuned
from lorafile.engine.base import Bases
from lorafile.engine.batches import by_length, collate, prompts
from lorafile.engine.choices import choose
from lorafile.engine.generation import answer
from lorafile.engine.harness import evaluate_task
from lorafile.engine.head import class_choices, load_tokens
from lorafile.engine.lines import read_lines, write_lines
from lorafile.engine.loss import likelihoods
from lorafile.engine.request import Done, Report, Request

# What the metrics of an output need of an example beside what the model made of it.
_CARRIED = {
    "likelihood": ("row", "reference", "bytes"),
    "generation": ("row", "reference", "references", "unanswerable"),
    "choice": ("row", "reference"),
}


def predict(request: Request, out: Path, bases: Bases, report: Report) -> Done:
    """Predict every example of one split and keep what came out, example by example."""
    if request.settings["task"]["output"] == "lm_eval":
        return evaluate_task(request, out, bases, report)
    tokens = load_tokens(request, "data")
    examples = list(read_lines(request.inputs["data"]["examples.jsonl.gz"]))
    task = request.settings["task"]
    found: dict[int, dict[str, Any]] = {}
    with tuned(bases, request) as (base, model), torch.inference_mode():
        padding = base.tokenizer.pad_token_id or 0
        for indexes in by_length(tokens.lengths(), request.execution.get("per_device_eval_batch_size", 16)):
            if task["output"] == "likelihood":
                batch = collate(tokens, indexes, padding, base.device)
                found |= dict(zip(indexes, likelihoods(model, batch), strict=True))
            elif tokens.classes is not None:
                batch = collate(tokens, indexes, padding, base.device)
                names = request.settings["model"]["labels"]
                found |= dict(zip(indexes, class_choices(model, batch, names), strict=True))
            elif task["output"] == "choice":
                cut = [tokens.prompt(index) for index in indexes]
                chosen = choose(base, model, cut, [examples[index] for index in indexes], len(indexes))
                found |= dict(zip(indexes, chosen, strict=True))
            else:
                batch = prompts(tokens, indexes, padding, base.device)
                answers = answer(base, model, batch, task, [examples[index]["row"] for index in indexes])
                found |= {index: {"answer": text} for index, text in zip(indexes, answers, strict=True)}
            report({"step": len(found), "steps": len(tokens)})
    carried = _CARRIED[task["output"]]
    rows = [
        {**{name: line[name] for name in carried if name in line}, **found[index]}
        for index, line in enumerate(examples)
    ]
    write_lines(out / "predictions.jsonl.gz", rows)
    return Done(figures={"examples": len(rows)}, files=["predictions.jsonl.gz"])
