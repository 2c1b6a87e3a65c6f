"""What would decide a comparison: power, and how many seeds or examples it takes, from the variances alone.

An observed difference never enters: seeds that are added until something is significant triple the error rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isnan, nan

from scipy import special

from lorafile.statistics.crossed import Estimate
from lorafile.statistics.probabilities import t_cdf, t_quantile

POWER = 0.8
MOST_SEEDS, MOST_EXAMPLES = 200, 1_000_000


@dataclass(frozen=True)
class Needed:
    """What would decide a comparison.

    :ivar seeds: for each of the two, with the examples that there are; None where no number would do
    :ivar examples: with the seeds that there are; None where no number would do
    """

    seeds: int | None
    examples: int | None


def foreseen(estimate: Estimate, seeds: int, examples: int, others: int = 0) -> tuple[float, float]:
    """Return (standard error, degrees of freedom) with other numbers of seeds and of examples.

    :param others: degrees of freedom of the run variance that the study's other configurations bring in addition
    """
    count = sum(not exact for exact in estimate.exact)
    if not count:
        spread = estimate.examples * estimate.n
        return (spread / examples) ** 0.5, examples - 1.0
    shares = [1 / n for n, exact in zip(estimate.seeds, estimate.exact, strict=True) if not exact]
    between = estimate.runs / sum(shares)  # of one run's figure, over this many examples
    residual = sum(value for value, exact in zip(estimate.residual, estimate.exact, strict=True) if not exact) / count
    own = max(between - residual / estimate.n, 0.0)
    runs = count * (own + residual / examples) / seeds
    held = estimate.examples * estimate.n / examples
    now = sum(n - 1 for n, exact in zip(estimate.seeds, estimate.exact, strict=True) if not exact)
    df = (max(estimate.runs_df - now, 0.0) if estimate.pooled else 0.0) + count * (seeds - 1) + others
    total = runs + held
    below = (runs**2 / df if df else nan) + (held**2 / (examples - 1) if examples > 1 else nan)
    return total**0.5, total**2 / below if below else inf


def power_of_difference(error: float, df: float, difference: float, alpha: float) -> float:
    """Return the probability of a two-sided test finding a difference (noncentral t)."""
    if not error:
        return 1.0 if difference else 0.0
    bar, at = t_quantile(1 - alpha / 2, df), abs(difference) / error
    return 1 - _noncentral(bar, df, at) + _noncentral(-bar, df, at)


def power_of_equivalence(error: float, df: float, difference: float, margin: float, alpha: float) -> float:
    """Return the probability of TOST claiming equivalence (Phillips, 1990, with noncentral t on both sides)."""
    if not error:
        return 1.0 if abs(difference) < margin else 0.0
    bar = t_quantile(1 - alpha, df)
    low, high = (difference + margin) / error, (difference - margin) / error
    return max(0.0, _noncentral(-bar, df, high) - _noncentral(bar, df, low))


def power_of_non_inferiority(error: float, df: float, gain: float, margin: float, alpha: float) -> float:
    """Return the probability of the one-sided test claiming non-inferiority, `gain` being the true advantage."""
    if not error:
        return 1.0 if gain > -margin else 0.0
    return 1 - _noncentral(t_quantile(1 - alpha, df), df, (gain + margin) / error)


def _noncentral(value: float, df: float, shift: float) -> float:
    """Return the noncentral t distribution function; far in the tail, where the series fails, its normal limit."""
    if df == inf:
        return float(special.ndtr(value - shift))
    found = float(special.nctdtr(df, shift, value))
    return t_cdf(value - shift, df) if isnan(found) else found


def decides(error: float, df: float, margin: float, alpha: float) -> bool:
    """Return whether a comparison would be decided, with the usual power, were there no difference or the margin's."""
    return (
        power_of_equivalence(error, df, 0.0, margin, alpha) >= POWER
        and power_of_difference(error, df, margin, alpha) >= POWER
    )


def needed(estimate: Estimate, margin: float, alpha: float) -> Needed:
    """Return how many seeds or examples would decide a comparison.

    :param alpha: of this one comparison: the family's, divided by its size
    """
    if isnan(estimate.error) or margin <= 0:
        return Needed(None, None)
    least = max(2, *estimate.seeds)
    seeds = _smallest(least, MOST_SEEDS, lambda n: decides(*foreseen(estimate, n, estimate.n), margin, alpha))
    have = min((n for n, exact in zip(estimate.seeds, estimate.exact, strict=True) if not exact), default=1)
    examples = _smallest(estimate.n, MOST_EXAMPLES, lambda n: decides(*foreseen(estimate, have, n), margin, alpha))
    return Needed(None if all(estimate.exact) else seeds, examples)


def _smallest(low: int, high: int, enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number that is enough, of those where more is never worse."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
