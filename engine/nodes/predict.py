"""`predict`: the likelihood, the chosen label, the number or the written answer of each held-out example."""

import contextlib
import importlib.util
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.data.hub import first_line
from lorafile.engine.inference.decoding import can_reserve
from lorafile.engine.inference.generation import decoder
from lorafile.engine.inference.predictions import CUT, Split, load_split, prediction_rows, predictions
from lorafile.engine.model.adapters import stored_adapter, tuned_model
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.methods import virtual_tokens
from lorafile.engine.request import Report, Request, Result, examples_at_once
from lorafile.engine.stacking.stack import Factors, Stack
from lorafile.engine.stacking.stored import stored_factors
from lorafile.errors import MissingExtra, NodeError
from lorafile.files.jsonl import write_lines


def predict(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Predict every example of one split and keep what came out, example by example."""
    if request.settings["task"]["output"] == "lm_eval":
        return evaluate_task(request, out, bases, report)
    split = load_split(request)
    with predicting_model(bases, request) as (base, model):
        (lines,) = predictions(base, model, split, report)
        figures = decoder_figure(base, model, split)
    return write_predictions(split, lines, out, figures)


@contextlib.contextmanager
def predicting_model(bases: Bases, request: Request) -> Iterator[tuple[Base, Any]]:
    """Yield the base and the model of a request; a plain LoRA goes without PEFT, whose layers take longer to make."""
    files = request.inputs.get("adapter", {})
    if "adapter_config.json" not in files:
        with tuned_model(bases, request) as (base, model):
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


def write_predictions(split: Split, predicted: list[dict[str, Any]], out: Path, figures: dict[str, Any]) -> Result:
    """Write what was predicted of each example, with what the metrics need of it.

    :param figures: of the result, next to the number of its examples
    """
    if split.task["output"] == "generation":
        figures = {**figures, CUT: sum(line[CUT] for line in predicted)}
    rows = prediction_rows(split, predicted)
    write_lines(out / "predictions.jsonl.gz", rows)
    return Result(figures={"examples": len(rows), **figures}, files=["predictions.jsonl.gz"])


def evaluate_task(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Run one task or group through `lm_eval.simple_evaluate` and keep every figure that it gives.

    :raises NodeError: when the library is missing, the task is unknown, or its data cannot be had
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise NodeError(str(MissingExtra("evaluate.lm_eval_tasks", "lm-eval", "lm-eval")))
    os.environ.setdefault("TQDM_DISABLE", "1")
    task = request.settings["task"]
    name = task["task"]
    with tuned_model(bases, request) as (base, model), torch.inference_mode():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=request.paths.get("lm_eval"))
        if name not in manager.all_tasks:
            raise NodeError(f'evaluate.lm_eval_tasks: lm-eval has no task "{name}".')
        size = examples_at_once(request)
        wrapped = HFLM(pretrained=model, tokenizer=base.tokenizer, backend="causal", batch_size=size)
        try:
            evaluation = simple_evaluate(
                model=wrapped,
                tasks=[name],
                num_fewshot=task.get("num_fewshot"),
                limit=task.get("limit"),
                task_manager=manager,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (OSError, ValueError, KeyError, ConnectionError) as error:
            raise NodeError(f"evaluate.lm_eval_tasks: {name} cannot be evaluated: {first_line(error)}") from error
    report({"step": 1, "steps": 1})
    kept = {key: evaluation.get(key) for key in ("results", "versions", "n-shot", "n-samples")}
    write_lines(out / "lm_eval.jsonl.gz", [kept])
    return Result(figures=_figures(evaluation, name), files=["lm_eval.jsonl.gz"])


def _figures(evaluation: dict[str, Any], name: str) -> dict[str, float]:
    """Return metric -> value of the task itself; `acc,none` is `acc`, another filter stays in the name."""
    row = evaluation["results"].get(name) or evaluation.get("groups", {}).get(name) or {}
    figures = {}
    for key, value in row.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            figures[key.removesuffix(",none")] = float(value)
    samples = evaluation.get("n-samples", {}).get(name)
    return figures | ({"examples": samples["effective"]} if samples else {})


def predict_together(requests: list[Request], outs: list[Path], bases: Bases, reports: list[Report]) -> list[Result]:
    """Predict one split with several adapters, the bare base among them; what is no plain LoRA comes after, alone."""
    first, split = requests[0], load_split(requests[0])
    done: dict[int, Result] = {}
    with bases.proven(first.settings, first.paths) as base:
        members = {number: member for number, member in enumerate(_members(base, requests)) if member is not None}
        if len(members) > 1:

            def report(progress: dict[str, Any]) -> None:
                for number in members:
                    reports[number](progress)

            with Stack(base.model, list(members.values())).attached():
                predicted = predictions(base, base.model.eval(), split, report, len(members))
            figures = decoder_figure(base, base.model, split) | {"packed": len(members)}
            for number, lines in zip(members, predicted, strict=True):
                done[number] = write_predictions(split, lines, outs[number], figures)
    for number, request in enumerate(requests):
        if number not in done:
            try:
                done[number] = predict(request, outs[number], bases, reports[number])
            except NodeError as error:
                done[number] = Result("failed", str(error))
    return [done[number] for number in range(len(requests))]


def _members(base: Base, requests: list[Request]) -> list[Factors | None]:
    """Return what each request puts on the base, and None for what cannot be stacked."""
    if not can_reserve(base.model):  # of others it is not known whether rows stay in the order of the batch
        return [None] * len(requests)
    adapters = [request.inputs.get("adapter") for request in requests]
    return [
        Factors() if files is None else stored_factors(base.model, files) if "adapter_config.json" in files else None
        for files in adapters
    ]
