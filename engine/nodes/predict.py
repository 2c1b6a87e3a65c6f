"""`predict`: what a model makes of each held-out example: likelihoods, chosen labels, or answers."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafile.engine.inference.generation import decoder
from lorafile.engine.inference.harness import evaluate_task
from lorafile.engine.inference.predictions import Split, load_split, predictions
from lorafile.engine.model.adapters import stored_adapter, tuned
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.methods import virtual_tokens
from lorafile.engine.request import Report, Request, Result
from lorafile.engine.stacking.stack import Stack
from lorafile.engine.stacking.stored import stored_factors
from lorafile.files.jsonl import write_lines

# What the metrics of an output need of an example beside what the model made of it.
_CARRIED = {
    "likelihood": ("row", "reference", "bytes"),
    "generation": ("row", "reference", "references", "unanswerable"),
    "choice": ("row", "reference"),
}


def predict(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Predict every example of one split and keep what came out, example by example."""
    if request.settings["task"]["output"] == "lm_eval":
        return evaluate_task(request, out, bases, report)
    split = load_split(request)
    with _plain(bases, request) as (base, model):
        (found,) = predictions(base, model, split, report)
        figures = decoder_figure(base, model, split)
    return kept(split, found, out, figures)


@contextlib.contextmanager
def _plain(bases: Bases, request: Request) -> Iterator[tuple[Base, Any]]:
    """Yield the base and the model of a request; a plain LoRA goes without PEFT, whose layers take longer to make."""
    files = request.inputs.get("adapter", {})
    if "adapter_config.json" not in files:
        with tuned(bases, request) as (base, model):
            yield base, model
        return
    with bases.proven(request.settings, request.paths) as base:
        factors = stored_factors(base.model, files)
        if factors is None:
            with stored_adapter(base, files) as model:
                yield base, model
        else:
            with Stack(base.model, [factors]).attached():
                yield base, base.model.eval()


def decoder_figure(base: Base, model: Any, split: Split) -> dict[str, str]:
    """Return, as a figure of the result, which decoder wrote the answers; nothing where none were asked for."""
    if split.task["output"] != "generation":
        return {}
    return {"decoder": decoder(base.model if virtual_tokens(model) else model, split.task)}


def kept(split: Split, found: list[dict[str, Any]], out: Path, figures: dict[str, Any]) -> Result:
    """Write what was predicted of each example, with what the metrics need of it.

    :param figures: of the result, next to the number of its examples
    """
    carried = _CARRIED[split.task["output"]]
    rows = [
        {**{name: line[name] for name in carried if name in line}, **one}
        for line, one in zip(split.lines, found, strict=True)
    ]
    write_lines(out / "predictions.jsonl.gz", rows)
    return Result(figures={"examples": len(rows), **figures}, files=["predictions.jsonl.gz"])
