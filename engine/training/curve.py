"""The training curve of a run, and when it shows that training diverged. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafile.engine.batching.batches import Batch

_WINDOW = 20  # steps of the running loss that is watched for an explosion
_EXPLOSION = 2.0


@dataclass
class Curve:
    """A row for each optimizer step, and the tokens that were computed so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    supervised: int = 0

    def add(self, epoch: int, loss: float, rate: float, norm: float) -> None:
        """Add an optimizer step."""
        step = len(self.rows) + 1
        self.rows.append({"step": step, "epoch": epoch, "loss": loss, "learning_rate": rate, "grad_norm": norm})

    def count(self, batches: Sequence["Batch"]) -> int:
        """Count what a step computes; return how much of it is supervised."""
        supervised = sum(batch.targets for batch in batches)
        self.tokens += sum(batch.tokens for batch in batches)
        self.supervised += supervised
        return supervised

    def diverged(self, blind: float, training: dict[str, Any], dtype: str) -> str:
        """Return why training should stop: a loss that is no number, or one far above ignorance; else nothing.

        Under loss scaling an infinite gradient is ordinary: the scaler skips that step and lowers its scale.

        :param blind: the loss of a blind guess
        :param dtype: of the base's weights
        """
        last, step = self.rows[-1], len(self.rows)
        if not math.isfinite(last["loss"]):
            return f"the loss was no longer a number at step {step}{_hint(step, training, dtype)}"
        if not (training["fp16"] or math.isfinite(last["grad_norm"])):
            return f"the gradient was no longer a number at step {step}{_hint(step, training, dtype)}"
        recent = [row["loss"] for row in self.rows[-_WINDOW:]]
        limit = max(_EXPLOSION * self.rows[0]["loss"], blind)
        if len(recent) == _WINDOW and sum(recent) / _WINDOW > limit:
            return (
                f"the loss averaged {sum(recent) / _WINDOW:.1f} over the {_WINDOW} steps up to step {step}: "
                f"above that of a blind guess, and more than {_EXPLOSION:g} times its initial value"
            )
        return ""


def _hint(step: int, training: dict[str, Any], dtype: str) -> str:
    """Return what most likely made numbers overflow, and what to change."""
    half = [name for name, used in (("train.fp16", training["fp16"]), ("float16 weights", dtype == "float16")) if used]
    narrow = f"{' and '.join(half)} overflow above 65504, bfloat16 does not"
    if step == 1:  # no weight had been changed yet
        causes = [narrow if half else "the base itself gives no number here; check its weights and dtype"]
    else:
        rate = f"train.learning_rate = {training['learning_rate']:g} is likely too high, or its warm-up too short"
        causes = [rate, *([narrow] if half else [])]
    return f"; {'; '.join(causes)}"
