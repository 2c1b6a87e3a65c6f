"""Validation while a run trains: the curve of its evaluations, the best step so far, and whether training should stop.

An evaluation disturbs nothing: dropout is off, every generator is put back, and no gradient is touched.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from lorafile.engine.inference.predictions import Line, Split, predict_split, prediction_rows
from lorafile.engine.metrics.extraction import without_reasoning
from lorafile.engine.metrics.registry import Metric, built_in
from lorafile.engine.model.adapters import changed_tensors
from lorafile.engine.model.base import Base
from lorafile.engine.model.head import is_head, load_tokens
from lorafile.engine.model.methods import allocation, restore_allocation
from lorafile.engine.randomness import seeded
from lorafile.engine.request import EXAMPLES, Report, Request
from lorafile.files.jsonl import read_lines

FILE = "validation.jsonl.gz"


@dataclass
class Best:
    """The best step so far.

    :ivar value: of the metric that decides
    :ivar tensors: name -> a copy of what the run changes, as it was then; empty where the last step is kept anyway
    :ivar ranks: what AdaLoRA had left of its ranks
    """

    step: int
    value: float
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    ranks: dict[str, torch.Tensor] = field(default_factory=dict)


class Validation:
    """The evaluations of one run.

    :ivar rows: one for each evaluation: `step`, `epoch`, and each metric
    :ivar waited: evaluations in a row without an improvement that counts
    :ivar seconds: what the evaluations took
    """

    def __init__(self, base: Base, request: Request) -> None:
        self.base, self.request = base, request
        self.settings = request.settings["validation"]
        head = is_head(request.settings)
        self._metrics = {name: built_in(name, head) for name in self.settings["metrics"]}
        self._splits = self._load_splits()
        self.rows: list[dict[str, Any]] = []
        self.best: Best | None = None
        self.steps, self.waited, self.seconds = 0, 0, 0.0

    def _load_splits(self) -> dict[str, Split]:
        """Return output -> the examples that it is predicted for."""
        count = int(self.settings["max_eval_samples"])
        tokens = load_tokens(self.request, "validation").first(count)
        lines = list(read_lines(self.request.inputs["validation"]["examples.jsonl.gz"]))[:count]
        labels = self.request.settings["model"].get("labels", [])
        # Of a constant size, because the size of a batch changes the last bits of a result, and so may the choice.
        return {output: Split(tokens, lines, task, labels, EXAMPLES) for output, task in self.settings["tasks"].items()}

    @property
    def metric(self) -> Metric:
        """The metric that decides which step is the best."""
        return self._metrics[self.settings["metric_for_best_model"]]

    @property
    def keeps_best(self) -> bool:
        """Whether the result has the weights of the best step."""
        return bool(self.settings.get("load_best_model_at_end"))

    @property
    def stopped(self) -> bool:
        """Whether training should stop early."""
        patience = self.settings.get("early_stopping_patience")
        return patience is not None and self.waited >= patience

    def is_due(self, step: int) -> bool:
        """Return whether a step is to be evaluated, and has not been."""
        if step == 0 or (self.rows and self.rows[-1]["step"] == step):
            return False
        return step % int(self.settings["eval_steps"]) == 0 or step == self.steps

    def evaluate(self, model: Any, step: int, epoch: int, report: Report) -> str:
        """Evaluate a step; return why training diverged, or nothing.

        :raises Stopped: when the run is asked to stop; the step is then still due
        """
        began = time.monotonic()
        training = model.training
        try:
            with torch.no_grad(), seeded(self.request.settings["seed"], "validation"):
                values = self._values(model.eval(), report)
        finally:
            model.train(training)
        self.seconds += time.monotonic() - began
        self.rows.append({"step": step, "epoch": epoch, **values})
        bad = next((name for name, value in values.items() if not math.isfinite(value)), None)
        if bad is not None:
            return f"{bad} on validation was no longer a number at step {step}"
        self._judge(model, step, values[self.settings["metric_for_best_model"]])
        return ""

    def _values(self, model: Any, report: Report) -> dict[str, float]:
        def check(_: dict[str, Any]) -> None:
            report({})

        predicted = {
            output: self._scored_rows(split, predict_split(self.base, model, split, check)[0])
            for output, split in self._splits.items()
        }
        values = {}
        for name, metric in self._metrics.items():
            options = self.settings["metrics"][name].get("options", {})
            values[name] = float(metric.compute(predicted[metric.needs], **options)[0])
        return values

    def _scored_rows(self, split: Split, lines: list[Line]) -> list[Line]:
        """Return predictions as a `score` node reads them."""
        rows = prediction_rows(split, lines)
        return [without_reasoning(row) for row in rows] if self.settings.get("reasoning") else rows

    def _judge(self, model: Any, step: int, value: float) -> None:
        """Count an evaluation as transformers' `EarlyStoppingCallback` does, and keep the step if it is the best."""
        sign = 1 if self.metric.more_is_better else -1
        gain = math.inf if self.best is None else sign * (value - self.best.value)
        self.waited = 0 if gain > self.settings.get("early_stopping_threshold", 0.0) else self.waited + 1
        if gain > 0:
            self.best = Best(step, value, *(_copies(model) if self.keeps_best else ()))

    def restore_best(self, model: Any, step: int) -> None:
        """Give a model the weights of the best step, where the result has these.

        :param step: the one that it is at
        """
        if self.keeps_best and self.best is not None and self.best.step != step:
            with torch.no_grad():
                for name, tensor in changed_tensors(model):
                    tensor.copy_(self.best.tensors[name])
            if allocation(model):
                model.active_peft_config.rank_pattern = None
                restore_allocation(model, self.best.ranks)

    def figures(self, step: int, diverged: bool) -> dict[str, Any]:
        """Return what the result says of its validation: the best step, and the one whose weights it has.

        :param step: the last one
        """
        figures: dict[str, Any] = {"evaluations": len(self.rows), "validation_seconds": self.seconds}
        if self.keeps_best or self.settings.get("early_stopping_patience"):
            figures["selected_on"] = "validation"
        if self.best is not None:
            figures |= {"best_step": self.best.step, "best_metric": self.best.value}
        if diverged:
            return figures | {"ended_by": "divergence"}
        figures["ended_by"] = "early stopping" if self.stopped and step < self.steps else "last step"
        return figures | {"chosen_step": self.best.step if self.keeps_best and self.best else step}

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return where the evaluations are, as JSON and tensors; the tensors are shared and not copied."""
        plain: dict[str, Any] = {"rows": self.rows, "waited": self.waited, "seconds": self.seconds}
        if self.best is None:
            return plain, {}
        tensors = {f"tensors.{name}": tensor for name, tensor in self.best.tensors.items()}
        tensors |= {f"ranks.{name}": tensor for name, tensor in self.best.ranks.items()}
        return plain | {"best": [self.best.step, self.best.value]}, tensors

    def restore(self, plain: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` returned."""
        self.rows, self.waited, self.seconds = plain["rows"], plain["waited"], plain["seconds"]
        if "best" in plain:
            parts: dict[str, dict[str, torch.Tensor]] = {"tensors": {}, "ranks": {}}
            for name, tensor in tensors.items():
                kind, _, rest = name.partition(".")
                parts[kind][rest] = tensor
            step, value = plain["best"]
            self.best = Best(step, value, parts["tensors"], parts["ranks"])


def _copies(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return copies of what a run changes, and of AdaLoRA's ranks, in the processor's memory."""
    tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in changed_tensors(model)}
    ranks = {name: value for name, value in allocation(model).items() if name.startswith("rank_pattern/")}
    return tensors, ranks
