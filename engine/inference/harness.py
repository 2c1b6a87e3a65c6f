"""`predict` of one task of lm-evaluation-harness: its own prompts, metrics and figures, on the model at hand."""

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.model.adapters import tuned
from lorafile.engine.model.base import Bases
from lorafile.engine.request import Report, Request, Result, examples_at_once
from lorafile.errors import MissingExtra, NodeError
from lorafile.files.jsonl import write_lines


def evaluate_task(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Run one task or group through `lm_eval.simple_evaluate` and keep every figure that it gives.

    :raises NodeError: when the library is missing, the task is unknown, or its data cannot be had
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise NodeError(str(MissingExtra("evaluate.lm_eval_tasks", "lm-eval", "lm-eval")))
    os.environ.setdefault("TQDM_DISABLE", "1")
    task = request.settings["task"]
    name = task["task"]
    with tuned(bases, request) as (base, model), torch.inference_mode():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=request.paths.get("lm_eval"))
        if name not in manager.all_tasks:
            raise NodeError(f'evaluate.lm_eval_tasks: lm-eval knows no task "{name}".')
        size = examples_at_once(request)
        wrapped = HFLM(pretrained=model, tokenizer=base.tokenizer, backend="causal", batch_size=size)
        try:
            found = simple_evaluate(
                model=wrapped,
                tasks=[name],
                num_fewshot=task.get("num_fewshot"),
                limit=task.get("limit"),
                task_manager=manager,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (OSError, ValueError, KeyError, ConnectionError) as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NodeError(f"evaluate.lm_eval_tasks: {name} cannot be evaluated: {told}") from error
    report({"step": 1, "steps": 1})
    kept = {key: found.get(key) for key in ("results", "versions", "n-shot", "n-samples")}
    write_lines(out / "lm_eval.jsonl.gz", [kept])
    return Result(figures=_figures(found, name), files=["lm_eval.jsonl.gz"])


def _figures(found: dict[str, Any], name: str) -> dict[str, float]:
    """Return metric -> value of the task itself; `acc,none` is `acc`, another filter stays in the name."""
    row = found["results"].get(name) or found.get("groups", {}).get(name) or {}
    figures = {}
    for key, value in row.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            figures[key.removesuffix(",none")] = float(value)
    samples = found.get("n-samples", {}).get(name)
    return figures | ({"examples": samples["effective"]} if samples else {})
