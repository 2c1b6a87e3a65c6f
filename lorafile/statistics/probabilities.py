"""Probabilities of an estimate: difference, equivalence, non-inferiority; families of them; intervals."""

from math import inf, isnan, nan

import numpy as np
from scipy import special

from lorafile.statistics.crossed import Estimate


def two_sided(estimate: Estimate) -> float:
    """Return the probability of a difference as large as this one, were there none (Student's t)."""
    beyond = upper(estimate, abs(estimate.difference))
    return beyond if isnan(beyond) else min(1.0, 2 * beyond)


def upper(estimate: Estimate, gap: float) -> float:
    """Return the probability, one-sided, of a difference as far as `gap` on the far side of a bound."""
    if isnan(estimate.error):
        return nan
    if estimate.error == 0:
        return 0.0 if gap > 0 else 0.5 if gap == 0 else 1.0
    return 1 - t_cdf(gap / estimate.error, estimate.df)


def uppers(gaps: np.ndarray, errors: np.ndarray, dfs: np.ndarray) -> np.ndarray:
    """Return what `upper` does, of many estimates at once.

    :param gaps: [estimates]; `errors`: their standard errors; `dfs`: their degrees of freedom
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        far = gaps / errors  # without an error: infinite, or no number where the gap is 0 as well
    p = np.where(np.isinf(dfs), special.ndtr(-far), special.stdtr(np.where(np.isinf(dfs), 1.0, dfs), -far))
    return np.where(np.isnan(errors), nan, np.where((errors == 0) & (gaps == 0), 0.5, p))


def equivalence(estimate: Estimate, margin: float) -> float:
    """Return the probability of two one-sided tests (TOST; Schuirmann, 1987) that the difference is within a margin."""
    return max(upper(estimate, estimate.difference + margin), upper(estimate, margin - estimate.difference))


def non_inferiority(estimate: Estimate, margin: float, more: bool) -> float:
    """Return the probability of the one-sided test that the first is not worse than the second by the margin.

    :param more: whether more of the metric is better
    """
    gain = estimate.difference if more else -estimate.difference
    return upper(estimate, gain + margin)


def interval(estimate: Estimate, alpha: float = 0.05, reach: float = inf) -> tuple[float, float]:
    """Return the two-sided interval at 1 − alpha: of all values that are possible, those that the test does not reject.

    :param reach: no difference of the metric is larger
    """
    half = half_width(estimate.error, estimate.df, alpha)
    if isnan(half):
        return nan, nan
    return max(estimate.difference - half, -reach), min(estimate.difference + half, reach)


def half_width(error: float, df: float, alpha: float) -> float:
    """Return half of the width of the interval at 1 − alpha."""
    return nan if isnan(error) or isnan(df) else t_quantile(1 - alpha / 2, df) * error


def holm(probabilities: list[float], one_is_false: bool = False) -> list[float]:
    """Return a family's adjusted probabilities (Holm, 1979); what is NaN is not in the family, and stays NaN.

    :param one_is_false: one of the hypotheses is known to be false (Shaffer, 1986), so that at most all others are
        true; what is NaN counts, since it might be the false one
    """
    order = sorted((p, at) for at, p in enumerate(probabilities) if not isnan(p))
    size = len(probabilities) if one_is_false else len(order)
    most = max(size - 1, 1) if one_is_false else size
    adjusted, largest = [nan] * len(probabilities), 0.0
    for place, (p, at) in enumerate(order):
        largest = max(largest, min(1.0, p * min(size - place, most)))
        adjusted[at] = largest
    return adjusted


def holm_levels(probabilities: list[float], alpha: float) -> list[float]:
    """Return the level at which Holm's procedure compares each probability of a family; NaN of what is not in it.

    A probability is at most its level where, and only where, it is significant: the interval at that level is the one
    that decides. What comes after the first that is not significant has that one's level.
    """
    order = sorted((p, at) for at, p in enumerate(probabilities) if not isnan(p))
    levels, stopped = [nan] * len(probabilities), 0.0
    for place, (p, at) in enumerate(order):
        levels[at] = stopped or alpha / (len(order) - place)
        stopped = stopped or (levels[at] if p > levels[at] else 0.0)
    return levels


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Return McNemar's exact probability for two runs' right and wrong answers to the same examples.

    :param one: [examples], 0 or 1; `other` likewise
    """
    first, second = int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())
    total = first + second
    return 1.0 if not total else min(1.0, 2 * float(special.bdtr(min(first, second), total, 0.5)))


def t_cdf(value: float, df: float) -> float:
    """Return Student's distribution function; the normal one where the degrees of freedom are infinite."""
    return float(special.ndtr(value) if df == inf else special.stdtr(df, value))


def t_quantile(share: float, df: float) -> float:
    """Return Student's quantile."""
    return float(special.ndtri(share) if df == inf else special.stdtrit(df, share))


def deviation_interval(variance: float, df: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the two-sided interval of a standard deviation at 1 − alpha, from chi-square; NaN without any freedom."""
    if not df:
        return nan, nan
    high, low = (float(special.chdtri(df, share)) for share in (alpha / 2, 1 - alpha / 2))
    return (df * variance / high) ** 0.5, (df * variance / low) ** 0.5
