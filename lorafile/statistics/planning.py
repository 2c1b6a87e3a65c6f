"""What would decide a comparison: power, and how many seeds or examples it takes, from the variances alone.

An observed difference never enters: seeds that are added until something is significant triple the error rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isinf, isnan, nan

import numpy as np
from scipy import special

from lorafile.statistics.crossed import Estimate, degrees, run_parts
from lorafile.statistics.probabilities import t_cdf, t_quantile
from lorafile.statistics.run_variance import LEAST_TO_BORROW, largest_ratio

POWER = 0.8
MOST_SEEDS, MOST_EXAMPLES = 10_000, 1_000_000
_MOST_SIDES = 4  # of a sum, for which every way it may turn out is gone through
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


@dataclass(frozen=True)
class Prospect:
    """How a comparison may turn out with other numbers of seeds or examples.

    :ivar probability: of turning out so: other runs may or may not show that a side is not far noisier than others
    """

    probability: float
    error: float
    df: float


def error_with(estimate: Estimate, seeds: tuple[int, ...], examples: int) -> tuple[float, float]:
    """Return (standard error, degrees of freedom) with other numbers of seeds and of examples.

    With the numbers that the estimate has, these are its own. What a run's figure varies by has a part that more
    examples average out, the seed-by-example residual over their number, and a part that they do not.

    :param seeds: of each; what is said of a side that no seed changes is not read
    """
    df = estimate.pool.df + _further(estimate, seeds)
    return _error(estimate, seeds, examples, df, estimate.borrowed, (1.0,) * len(seeds))


def prospects(estimate: Estimate, seeds: tuple[int, ...], others: int = 0) -> list[Prospect]:
    """Return how a comparison may turn out with further seeds.

    The run variance is taken to be the pooled one, and its own for a side whose runs vary more than twice as much as
    the others'. Whether a side then borrows degrees of freedom depends on what its runs will show; what counts is never
    less than the pooled variance, so that it is larger on average (means of a chi-square variable beyond a bound).

    :param others: degrees of freedom that further runs of the study's other configurations bring in addition
    """
    sides = [at for at, exact in enumerate(estimate.exact) if not exact]
    pooled = estimate.pool.df + _further(estimate, seeds) + others
    dfs = np.array([seeds[at] - 1.0 for at in sides])
    rest = np.maximum(pooled - dfs, 0)
    ratios = np.array([estimate.ratios[at] if estimate.wide[at] else 1.0 for at in sides])
    bounds = largest_ratio(dfs, rest, max(estimate.pool.most, *dfs)) / ratios
    lend = rest >= LEAST_TO_BORROW
    likely = np.where(lend, special.fdtr(dfs, np.maximum(rest, 1), bounds), 0.0)
    larger = np.where(ratios > 1, 1.0, special.chdtr(dfs, dfs) + special.chdtrc(dfs + 2, dfs))
    with np.errstate(invalid="ignore"):  # so far beyond that it does not happen
        beyond = special.chdtrc(dfs + 2, dfs * bounds) / special.chdtrc(dfs, dfs * bounds)
    beyond = np.where(lend & np.isfinite(beyond), np.maximum(beyond, larger), larger)
    planned = replace(estimate, run_variances=_planned_variances(estimate))
    found = []
    for turn in product((True, False), repeat=len(sides)) if len(sides) <= _MOST_SIDES else [tuple(likely >= 0.5)]:
        share = float(np.where(turn, likely, 1 - likely).prod()) if len(sides) <= _MOST_SIDES else 1.0
        borrowed, times = [False] * len(seeds), [1.0] * len(seeds)
        for at, side in enumerate(sides):
            borrowed[side], times[side] = bool(turn[at]), float((larger if turn[at] else beyond)[at])
        if share > 0:
            found.append(Prospect(share, *_error(planned, seeds, estimate.n, pooled, tuple(borrowed), tuple(times))))
    return found


def _planned_variances(estimate: Estimate) -> tuple[float, ...]:
    """Return the run variance that further runs of each side are expected to have, in the units of `run_variances`."""
    sides = zip(estimate.run_variances, estimate.wide, estimate.squares, strict=True)
    return tuple(own if wide else square * estimate.pool.value for own, wide, square in sides)


def _further(estimate: Estimate, seeds: tuple[int, ...]) -> int:
    """Return the degrees of freedom that further runs of the sides bring to the pooled run variance."""
    return sum(
        count - now for count, now, exact in zip(seeds, estimate.seeds, estimate.exact, strict=True) if not exact
    )


def _error(
    estimate: Estimate,
    seeds: tuple[int, ...],
    examples: int,
    pooled: int,
    borrowed: tuple[bool, ...],
    times: tuple[float, ...],
) -> tuple[float, float]:
    """Return (standard error, degrees of freedom).

    :param pooled: degrees of freedom of the pooled run variance
    :param borrowed: of each side, whether it has these; `times`: how many times its run variance is found
    """
    n, exact, runs = estimate.n, np.array(estimate.exact), np.maximum(np.array(seeds), 1)
    residual = np.where(exact, 0.0, estimate.residual)
    variance = np.where(exact, 0.0, estimate.run_variances)
    of_examples = np.minimum(residual, variance * n)
    brought = (variance * times - of_examples / n + of_examples / examples) / runs
    df = np.where(borrowed, float(pooled), runs - 1.0)
    parts = run_parts(brought, df, np.array(borrowed), exact, runs)
    residuals = [
        (square / count / examples, float((count - 1) * (examples - 1)))
        for square, count, fixed in zip(residual, runs, exact, strict=True)
        if not fixed
    ]
    left = estimate.examples * n / examples
    pieces = [(left + sum(square for square, _ in residuals), examples - 1.0)] if left > 0 else []
    pieces += [(square, df) for square, df in residuals if df and left > 0]
    return float((brought.sum() + left) ** 0.5), float(degrees(parts, pieces, left))


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
    return _decides([Prospect(1.0, error, df)], margin, alpha)


def _decides(turns: list[Prospect], margin: float, alpha: float) -> bool:
    """Return whether a comparison is decided with the usual power, over all the ways in which it may turn out."""
    different = sum(one.probability * power_of_difference(one.error, one.df, margin, alpha) for one in turns)
    if different < POWER:
        return False
    same = sum(one.probability * power_of_equivalence(one.error, one.df, 0.0, margin, alpha) for one in turns)
    return same >= POWER


def sample_size(estimate: Estimate, margin: float, alpha: float) -> SampleSize:
    """Return how many seeds or examples would decide a comparison.

    :param alpha: of this one comparison: the family's, divided by its size
    """
    if not _can_be_planned(estimate, margin, alpha):
        return SampleSize(None, None)
    seeds, sides = None, len(estimate.seeds)
    if not all(estimate.exact):
        seeds = _smallest(
            max(2, *estimate.seeds),
            MOST_SEEDS,
            lambda n: _decides(prospects(estimate, (n,) * sides), margin, alpha),
        )
    examples = _smallest(
        estimate.n, MOST_EXAMPLES, lambda n: would_decide(*error_with(estimate, estimate.seeds, n), margin, alpha)
    )
    return SampleSize(seeds, examples)


def more_seeds(estimate: Estimate, margin: float, alpha: float, others: int = 0) -> int | None:
    """Return how many further seeds of each side decide a comparison, or None where no number would do.

    :param alpha: of this one comparison, at the look that the seeds are for
    :param others: how many of the study's other configurations would run under the same seeds
    """
    if all(estimate.exact) or not _can_be_planned(estimate, margin, alpha):
        return None

    def enough(more: int) -> bool:
        seeds = tuple(runs + more for runs in estimate.seeds)
        return _decides(prospects(estimate, seeds, others * more), margin, alpha)

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
