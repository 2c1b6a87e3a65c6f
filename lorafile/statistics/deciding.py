"""Verdicts on a family of comparisons: estimates and margins in, a word for each out."""

from dataclasses import dataclass
from math import isnan, nan
from typing import Literal

from lorafile.statistics.crossed import Estimate
from lorafile.statistics.probabilities import equivalence, holm, interval, non_inferiority, two_sided

Word = Literal["better", "worse", "equivalent", "non-inferior", "inconclusive", "none"]
_LEVEL = 0.05  # of the interval of one comparison, whatever share of alpha a look has


@dataclass(frozen=True)
class Decision:
    """What one comparison of a family comes to.

    :ivar word: of the first against the second; `none` where there is no standard error to judge by
    :ivar p: of the difference, adjusted for the family, as are `p_equivalence` and `p_non_inferiority` (NaN without
        a margin), each within a family of its own
    :ivar detectable: whether the difference is significant; with `equivalent`, it is real but negligible
    :ivar interval: at 95 %, of this comparison alone; `simultaneous`: at 1 − alpha over the whole family (Bonferroni)
    """

    word: Word
    p: float
    p_equivalence: float
    p_non_inferiority: float
    detectable: bool
    interval: tuple[float, float]
    simultaneous: tuple[float, float]


def decide(estimates: list[Estimate], margins: list[float | None], alpha: float, more: bool) -> list[Decision]:
    """Return the decision on each comparison of a family.

    :param margins: in the metric's unit, of each comparison; None where none is declared
    :param alpha: of the family, at this look
    :param more: whether more of the metric is better
    """
    pairs = list(zip(estimates, margins, strict=True))
    size = sum(not isnan(one.error) for one in estimates)
    differences = holm([two_sided(one) for one in estimates])
    same = holm([nan if margin is None else equivalence(one, margin) for one, margin in pairs])
    not_worse = holm([nan if margin is None else non_inferiority(one, margin, more) for one, margin in pairs])
    return [
        Decision(
            word=_word(one, p, p_same, p_not_worse, alpha, more),
            p=p,
            p_equivalence=p_same,
            p_non_inferiority=p_not_worse,
            detectable=p <= alpha,
            interval=interval(one, _LEVEL),
            simultaneous=interval(one, alpha / max(size, 1)),
        )
        for one, p, p_same, p_not_worse in zip(estimates, differences, same, not_worse, strict=True)
    ]


def _word(one: Estimate, p: float, p_same: float, p_not_worse: float, alpha: float, more: bool) -> Word:
    """Return the word for a comparison, the strongest that its probabilities carry; NaN carries nothing."""
    if isnan(p):
        return "none"
    if p_same <= alpha:
        return "equivalent"
    if p <= alpha:
        return "better" if (one.difference > 0) == more else "worse"
    return "non-inferior" if p_not_worse <= alpha else "inconclusive"


def shares(alpha: float, keep: float, looks: int) -> tuple[float, ...]:
    """Return each look's share of alpha, the first look's first.

    :param alpha: of the whole study; `keep`: the share of what is left that each look leaves to those after it
    :return: [looks]; alpha times (1 - keep), then of the rest the same again: their sum stays below alpha
    """
    return tuple(alpha * keep**look * (1 - keep) for look in range(looks))
