"""What would decide a comparison: power, and how many seeds or examples it takes, from the variances alone.

An observed difference never enters: seeds that are added until something is significant triple the error rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isinf, isnan, nan

import numpy as np
from scipy import special

from lorafile.statistics.crossed import Estimate, degrees
from lorafile.statistics.probabilities import t_cdf, t_quantile

POWER = 0.8
MOST_SEEDS, MOST_EXAMPLES = 10_000, 1_000_000
_STRIDE = 1.25  # by which a search goes up until it has passed what is enough
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@dataclass(frozen=True)
class SampleSize:
    """What would decide a comparison.

    :ivar seeds: for each configuration, with the examples that there are; None where no number would do
    :ivar examples: with the seeds that there are; None where no number would do
    """

    seeds: int | None
    examples: int | None


def error_with(estimate: Estimate, seeds: tuple[int, ...], examples: int, others: int = 0) -> tuple[float, float]:
    """Return (standard error, degrees of freedom) with other numbers of seeds and of examples.

    With the numbers that the estimate has, these are its own. What a run's figure varies by has a part that more
    examples average out, the seed-by-example residual over their number, and a part that they do not.

    :param seeds: of each; what is said of a side that no seed changes is not read
    :param others: degrees of freedom of a pooled run variance that the study's other configurations bring in addition:
        one for each further run of theirs
    """
    sides = [at for at, exact in enumerate(estimate.exact) if not exact]
    parts, residuals = [], []
    for at in sides:
        variance, count = estimate.run_variances[at], seeds[at]
        residual = min(estimate.residual[at], variance * estimate.n)
        parts.append(((variance - residual / estimate.n + residual / examples) / count, count - 1.0))
        residuals.append((estimate.residual[at] / count / examples, float((count - 1) * (examples - 1))))
    runs = sum(square for square, _ in parts)
    if estimate.pooled and sides:
        parts = [(runs, estimate.runs_df + sum(seeds[at] - estimate.seeds[at] for at in sides) + others)]
    of_examples = estimate.examples * estimate.n / examples
    pieces = [(of_examples + sum(square for square, _ in residuals), examples - 1.0)] if of_examples > 0 else []
    pieces += [(square, df) for square, df in residuals if df and of_examples > 0]
    return (runs + of_examples) ** 0.5, float(degrees(parts, pieces, of_examples))


def power_of_difference(error: float, df: float, difference: float, alpha: float) -> float:
    """Return the probability of a two-sided test finding a difference (noncentral t)."""
    if not error:
        return 1.0 if difference else 0.0
    bar, at = t_quantile(1 - alpha / 2, df), abs(difference) / error
    return 1 - _noncentral(bar, df, at) + _noncentral(-bar, df, at)


def detectable(error: float, df: float, alpha: float) -> float:
    """Return the smallest true difference that a two-sided test finds with the usual power; NaN without an error."""
    if isnan(error) or isinf(bar := t_quantile(1 - alpha / 2, df)):
        return nan
    low, high = 0.0, bar + 1
    while power_of_difference(1.0, df, high, alpha) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power_of_difference(1.0, df, middle, alpha) >= POWER else (middle, high)
    return error * high


def power_of_equivalence(error: float, df: float, difference: float, margin: float, alpha: float) -> float:
    """Return the probability of TOST claiming equivalence.

    Phillips (1990), "Power of the two one-sided tests procedure in bioequivalence", Journal of Pharmacokinetics and
    Biopharmaceutics 18: exact, by integrating over the standard error that will be found (Gauss and Legendre).
    """
    if not error:
        return 1.0 if abs(difference) < margin else 0.0
    bar = t_quantile(1 - alpha, df)
    low, high = (margin + difference) / error, (margin - difference) / error
    if isinf(bar) or low + high <= 0:
        return 0.0
    if df == inf:
        return max(0.0, float(special.ndtr(high - bar) - special.ndtr(bar - low)))
    widest = (low + high) / (2 * bar)  # of the error that will be found, in true ones: beyond it nothing is claimed
    share = float(special.chdtr(df, df * widest**2))
    errors = np.sqrt(2 * special.gammaincinv(df / 2, share * (_NODES + 1) / 2) / df)
    claimed = special.ndtr(high - bar * errors) - special.ndtr(bar * errors - low)
    return float(share / 2 * (_WEIGHTS * claimed).sum())


def power_of_non_inferiority(error: float, df: float, gain: float, margin: float, alpha: float) -> float:
    """Return the probability of the one-sided test claiming non-inferiority, `gain` being the true advantage."""
    if not error:
        return 1.0 if gain > -margin else 0.0
    return 1 - _noncentral(t_quantile(1 - alpha, df), df, (gain + margin) / error)


def _noncentral(value: float, df: float, shift: float) -> float:
    """Return the noncentral t distribution function; far in the tail, where the series fails, its normal limit."""
    if df == inf:
        return float(special.ndtr(value - shift))
    p = float(special.nctdtr(df, shift, value))
    return t_cdf(value - shift, df) if isnan(p) else p


def would_decide(error: float, df: float, margin: float, alpha: float) -> bool:
    """Return whether a comparison would be decided, with the usual power, were there no difference or the margin's."""
    return (
        power_of_difference(error, df, margin, alpha) >= POWER
        and power_of_equivalence(error, df, 0.0, margin, alpha) >= POWER
    )


def sample_size(estimate: Estimate, margin: float, alpha: float) -> SampleSize:
    """Return how many seeds or examples would decide a comparison.

    :param alpha: of this one comparison: the family's, divided by its size
    """
    if not _can_be_planned(estimate, margin, alpha):
        return SampleSize(None, None)
    seeds = None

    def enough(seeds: tuple[int, ...], examples: int) -> bool:
        return would_decide(*error_with(estimate, seeds, examples), margin, alpha)

    if not all(estimate.exact):
        sides = len(estimate.seeds)
        seeds = _smallest(max(2, *estimate.seeds), MOST_SEEDS, lambda n: enough((n,) * sides, estimate.n))
    return SampleSize(seeds, _smallest(estimate.n, MOST_EXAMPLES, lambda n: enough(estimate.seeds, n)))


def more_seeds(estimate: Estimate, margin: float, alpha: float, others: int = 0) -> int | None:
    """Return how many further seeds of each side decide a comparison, or None where no number would do.

    :param alpha: of this one comparison, at the look that the seeds are for
    :param others: how many of the study's other configurations would run under the same seeds
    """
    if all(estimate.exact) or not _can_be_planned(estimate, margin, alpha):
        return None

    def enough(more: int) -> bool:
        seeds = tuple(runs + more for runs in estimate.seeds)
        return would_decide(*error_with(estimate, seeds, estimate.n, others * more), margin, alpha)

    return _smallest(1, MOST_SEEDS, enough)


def _can_be_planned(estimate: Estimate, margin: float, alpha: float) -> bool:
    return not isnan(estimate.error) and margin > 0 and alpha > 0


def _smallest(low: int, high: int, enough: Callable[[int], bool]) -> int | None:
    """Return a number that is enough, where one less is not; None where none is found.

    More is not always better: with ever more examples Satterthwaite's degrees of freedom can fall to those of the few
    runs. So the search goes up from below, and asks nothing of the far end.
    """
    below, at = low - 1, low
    while not enough(at):
        if at >= high:
            return None
        below, at = at, min(high, max(at + 1, int(at * _STRIDE)))
    while at - below > 1:
        middle = (below + at) // 2
        below, at = (below, middle) if enough(middle) else (middle, at)
    return at
