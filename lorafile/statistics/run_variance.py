"""How far another seed would move a figure: each configuration's own run variance, and what it may borrow from others.

Three seeds tell little of a variance; ten configurations of three seeds tell a lot, if they have one in common. To pool
until a test objects is not safe: with three seeds, a baseline whose runs vary three times as much goes unnoticed half
of the time, and then every comparison with it is too sure. So the burden of proof is turned round, as for equivalence:

- What counts is never less than the variance pooled over the study's configurations, nor less than the own one.
- A configuration has the pool's degrees of freedom only where its own runs show that it is not three times as noisy as
  the others: an F test at 15 %, and less, in proportion, where the configuration has fewer runs than others. Otherwise
  it has its own few.
- A configuration that is clearly noisier than all others (F test at 1 %) is not pooled: one bad one spoils no other.

The 15 % are a compromise between errors and power; docs/statistics.md has the frontier, and what no rule can do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np
from scipy import special

NOISIER = 3.0  # times the standard deviation of others: what has to be ruled out
MISSED = 0.15  # the probability of missing it
CLEARLY = 0.01  # the probability of being so noisy by chance, below which a configuration is not pooled
LEAST_TO_BORROW = 2  # degrees of freedom
WIDE = 2.0  # times the standard deviation of others: from here on the report says so
Numbers = np.ndarray | float


class BorrowedVariance(NamedTuple):
    """The run variance that counts for configurations: [configurations] each.

    :ivar variance: of one run's figure
    :ivar df: its degrees of freedom: the pool's where `borrowed`, else the configuration's own
    :ivar ratio: the configuration's own variance to the pooled one of all others; NaN where either is unknown
    """

    variance: np.ndarray
    df: np.ndarray
    borrowed: np.ndarray
    ratio: np.ndarray


@dataclass(frozen=True)
class RunVariance:
    """What all configurations of a study tell about the variance between runs.

    :ivar value: pooled sample variance, NaN where no configuration has two runs
    :ivar df: its degrees of freedom
    :ivar noisy: the (variance, degrees of freedom) of configurations that are clearly noisier, which are not in it
    :ivar most: the largest degrees of freedom that a configuration has
    """

    value: float
    df: int
    noisy: frozenset[tuple[float, int]] = frozenset()
    most: int = 0

    def of(self, variances: np.ndarray, dfs: np.ndarray) -> BorrowedVariance:
        """Return what counts for configurations.

        One that has a single run has all of it from the others.

        :param variances: [configurations], sample variances between runs; `dfs`: their degrees of freedom
        """
        own = np.where(dfs > 0, variances, nan)
        pooled = np.array([0 if one in self.noisy else one[1] for one in zip(own, dfs, strict=True)])
        return borrow(own, dfs, pooled, self.value, self.df, self.most)

    @property
    def differ(self) -> bool:
        """Whether some configuration is clearly noisier than all others."""
        return bool(self.noisy)


def borrow(
    own: np.ndarray, dfs: np.ndarray, pooled: np.ndarray, value: Numbers, df: Numbers, most: float
) -> BorrowedVariance:
    """Return what counts for configurations, of one study or of many at once.

    :param own: [..., configurations], sample variances between runs; `dfs`: their degrees of freedom
    :param pooled: those of them that are in the pool: 0 of a configuration that is clearly noisier
    :param value: [..., 1], the pooled variance; `df`: its degrees of freedom
    :param most: the largest degrees of freedom that a configuration has
    """
    others = np.maximum(df - pooled, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.maximum(value * df - np.where(pooled > 0, own * pooled, 0.0), 0.0) / others
        ratio = np.where(others > 0, own / rest, nan)
    borrowed = (dfs < 1) | ((others >= LEAST_TO_BORROW) & (ratio <= largest_ratio(dfs, others, most)))
    return BorrowedVariance(np.fmax(own, value), np.where(borrowed, df, dfs), borrowed, ratio)


def largest_ratio(dfs: np.ndarray, others: np.ndarray, most: float) -> np.ndarray:
    """Return the largest ratio of variances that shows that a configuration is not three times as noisy as others.

    :param dfs: degrees of freedom of the configuration; `others`: of the pooled variance of all others
    :param most: degrees of freedom of the configuration with the most runs
    """
    missed = MISSED * (dfs + 1) / (np.maximum(most, dfs) + 1)
    dfs, others = np.maximum(dfs, 1), np.maximum(others, 1)
    return np.asarray(NOISIER**2 * special.fdtri(dfs, others, missed))


def pool(variances: Iterable[tuple[float, int]]) -> RunVariance:
    """Return the run variance pooled over configurations, without those that are clearly noisier than the rest.

    :param variances: the sample variance of each, with its degrees of freedom; what has none is left out
    """
    kept = [(variance, df) for variance, df in variances if df > 0]
    if not kept:
        return RunVariance(nan, 0)
    most, noisy = max(df for _, df in kept), set[tuple[float, int]]()
    while (noisiest := _clearly_noisier(kept)) is not None:
        noisy.add(noisiest)
        kept.remove(noisiest)
    df = sum(df for _, df in kept)
    return RunVariance(sum(df * variance for variance, df in kept) / df, df, frozenset(noisy), most)


def pool_many(variances: np.ndarray, dfs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `pool` does, of many studies of the same design at once.

    :param variances: [studies, configurations], sample variances; `dfs`: [configurations], all above 0
    :return: [studies, 1] pooled variances, [studies, 1] their degrees of freedom, and [studies, configurations], the
        degrees of freedom of each configuration that are in the pool
    """
    pooled = np.broadcast_to(dfs, variances.shape).copy()
    studies = np.arange(len(variances))
    while len(studies):  # in which one more may be noisier than those that are left
        worst, p = _noisiest(variances[studies], pooled[studies])
        studies, worst = studies[p < CLEARLY], worst[p < CLEARLY]
        pooled[studies, worst] = 0
    df = pooled.sum(axis=1, keepdims=True)
    return (pooled * variances).sum(axis=1, keepdims=True) / df, df, pooled


def _noisiest(variances: np.ndarray, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of each study which configuration is most clearly noisier than all others pooled, and how probably not.

    :param variances: [studies, configurations]; `pooled`: degrees of freedom, 0 of what is left out
    """
    squares = variances * pooled
    others = pooled.sum(axis=1, keepdims=True) - pooled
    rest = np.maximum(squares.sum(axis=1, keepdims=True) - squares, 0.0) / np.maximum(others, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = special.fdtrc(pooled, others, variances / rest)
    p = np.where((variances > 0) & (pooled > 0) & (others > 0), p, 1.0)
    return p.argmin(axis=1), p.min(axis=1)


def _clearly_noisier(kept: list[tuple[float, int]]) -> tuple[float, int] | None:
    """Return the one that is most clearly noisier than all others pooled; None where none is."""
    variances, dfs = np.array(kept, float).T
    [worst], [p] = _noisiest(variances[None], dfs[None])
    return kept[int(worst)] if p < CLEARLY else None
