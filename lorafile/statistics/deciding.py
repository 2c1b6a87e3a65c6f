"""Verdicts on a family of comparisons: estimates and margins in, a word for each out."""

from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Literal

from lorafile.statistics.crossed import Estimate
from lorafile.statistics.probabilities import equivalence, holm, holm_levels, interval, non_inferiority, two_sided

Word = Literal["better", "worse", "equivalent", "non-inferior", "inconclusive", "none"]


@dataclass(frozen=True)
class Decision:
    """What one comparison of a family comes to.

    :ivar word: of the first against the second; `none` where there is no standard error to judge by
    :ivar p: of the difference, adjusted for the family, as are `p_equivalence` and `p_non_inferiority` (NaN without
        a margin), each within a family of its own
    :ivar detectable: whether the difference is significant; with `equivalent`, it is real but negligible
    :ivar interval: the one that decides: it excludes nothing, or lies within the margin, exactly where the word says so
    :ivar confidence: of that interval, such as 0.99: the level at which Holm's procedure tested this comparison
    :ivar simultaneous: at 1 − alpha over the whole family (Bonferroni)
    """

    word: Word
    p: float
    p_equivalence: float
    p_non_inferiority: float
    detectable: bool
    interval: tuple[float, float]
    confidence: float
    simultaneous: tuple[float, float]


def decide(
    estimates: list[Estimate], margins: list[float | None], alpha: float, more: bool, reach: float = inf
) -> list[Decision]:
    """Return the decision on each comparison of a family.

    :param margins: in the metric's unit, of each comparison; None where none is declared
    :param alpha: of the family, at this look
    :param more: whether more of the metric is better
    :param reach: the largest difference that the metric allows; no interval goes further
    """
    pairs = list(zip(estimates, margins, strict=True))
    size = sum(not isnan(one.error) for one in estimates)
    raw = {
        "difference": [two_sided(one) for one in estimates],
        "equivalent": [nan if margin is None else equivalence(one, margin) for one, margin in pairs],
        "non-inferior": [nan if margin is None else non_inferiority(one, margin, more) for one, margin in pairs],
    }
    differences, same, not_worse = (holm(p) for p in raw.values())
    levels = {what: holm_levels(p, alpha) for what, p in raw.items()}
    decisions = []
    for at, (one, p, p_same, p_not_worse) in enumerate(zip(estimates, differences, same, not_worse, strict=True)):
        word = _word(one, p, p_same, p_not_worse, alpha, more)
        # a one-sided test at some level is what the two-sided interval at twice that level says
        share = 2 * levels[word][at] if word in ("equivalent", "non-inferior") else levels["difference"][at]
        decisions.append(
            Decision(
                word=word,
                p=p,
                p_equivalence=p_same,
                p_non_inferiority=p_not_worse,
                detectable=p <= alpha,
                interval=interval(one, share, reach),
                confidence=1 - share,
                simultaneous=interval(one, alpha / max(size, 1), reach),
            )
        )
    return decisions


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
