"""transformers' learning rates, to compare with what another trainer logged. Imports no torch."""

import math
from collections.abc import Sequence
from typing import Any

from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS
from lorafile.specs.schedules import Progress, factor


def expected_rate(training: dict[str, Any], step: int, total: int) -> float:
    """Return transformers' learning rate after some steps, for the schedules that a spec may name."""
    warmup, peak = training["warmup_steps"], training["learning_rate"]
    rise = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    kind, own = training["lr_scheduler_type"], training.get("lr_scheduler_kwargs") or {}
    if "lr_scheduler_type" not in OPTIMIZERS[training.get("optim", DEFAULT_OPTIMIZER)].reads:
        kind, own = "constant_with_warmup", {}
    return float(peak * factor(kind, own, Progress(step, rise, total, peak)))


def other_rate(
    logged: Sequence[tuple[int, float]], training: dict[str, Any], total: int
) -> tuple[int, float, float] | None:
    """Return the first step at which a logged learning rate is not the schedule's, that rate, and the schedule's.

    None where all are. Versions of Trainer differ in whether they log the rate before a step or after it; either is
    right. Where modules have rates of their own, any of these may be the one that is logged.

    :param logged: (step, learning rate)
    """
    tolerance, peak = 1e-6 * training["learning_rate"], training["learning_rate"]
    shares = [1.0, *(rate / peak for rate in (training.get("learning_rates") or {}).values())]

    def first_other(late: int, share: float) -> tuple[int, float, float] | None:
        for step, rate in logged:
            planned = share * expected_rate(training, step - late, total)
            if not math.isclose(rate, planned, rel_tol=1e-4, abs_tol=tolerance):
                return step, rate, planned
        return None

    others = [first_other(late, share) for share in shares for late in (0, 1)]
    return None if None in others else max(other for other in others if other is not None)
