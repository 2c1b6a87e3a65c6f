"""transformers' learning rates, to compare with what another trainer logged. Imports no torch."""

import math
from collections.abc import Sequence
from typing import Any


def expected_rate(training: dict[str, Any], step: int, total: int) -> float:
    """Return transformers' learning rate after some steps, for the schedules that a spec may name.

    Source: `transformers.optimization`: a linear rise over the warm-up; then constant, linear to zero, or half a
    cosine.
    """
    warmup = training["warmup_steps"]
    rise = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    peak, kind = training["learning_rate"], training["lr_scheduler_type"]
    if kind == "constant":
        return float(peak)
    if step < rise:
        return float(peak * step / max(1, rise))
    progress = (step - rise) / max(1, total - rise)
    if kind == "cosine":
        return float(peak * max(0.0, 0.5 * (1 + math.cos(math.pi * progress))))
    return float(peak if kind == "constant_with_warmup" else peak * max(0.0, 1 - progress))


def other_rate(
    logged: Sequence[tuple[int, float]], training: dict[str, Any], total: int
) -> tuple[int, float, float] | None:
    """Return the first step at which a logged learning rate is not the schedule's, that rate, and the schedule's.

    None where all are. Versions of Trainer differ in whether they log the rate before a step or after it; either is
    right.

    :param logged: (step, learning rate)
    """
    tolerance = 1e-6 * training["learning_rate"]

    def first_other(late: int) -> tuple[int, float, float] | None:
        for step, rate in logged:
            planned = expected_rate(training, step - late, total)
            if not math.isclose(rate, planned, rel_tol=1e-4, abs_tol=tolerance):
                return step, rate, planned
        return None

    early, late = first_other(0), first_other(1)
    return None if early is None or late is None else max(early, late)
