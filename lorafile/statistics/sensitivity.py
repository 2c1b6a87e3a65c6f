"""What a study will be able to conclude: the smallest difference that it detects, and the smallest margin it can show.

Power is that of the decision itself: variances are drawn as a study of this design would find them, each draw goes
through the rules by which verdicts are made (which run variance counts, with which degrees of freedom; what examples
bring), and given the error and the degrees of freedom that come out, the probability of a verdict is exact. Means over
draws from a fixed seed, so that the same design has the same figures.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isnan, nan
from typing import NamedTuple

import numpy as np
from scipy import special

from lorafile.statistics import run_variance
from lorafile.statistics.crossed import degrees, examples_part, run_parts, unseen
from lorafile.statistics.planning import POWER

DRAWS = 4000  # a power of 80 % is then known to half a point
_MOST_POOLED = 64  # configurations that are drawn: more have no more to tell of their run variance
_EXACT, _CLOSE = 1e-4, 5e-3  # relative


@dataclass(frozen=True)
class Design:
    """A comparison that is to come, in a study whose configurations tell its run variance together.

    :ivar seeds: [configurations], runs of each; the two that are compared stand first
    :ivar variances: [configurations], the true variance of one run's figure, 0 where no seed changes it
    :ivar residuals: of the two, the mean square of the seed-by-example residual
    :ivar examples: the variance of their difference over samples of examples
    :ivar n: how many examples, or clusters of them; `independent`: as how many independent examples they count
    :ivar share: the typical share of right answers, where each is right or wrong; NaN elsewhere
    :ivar effect: how far the first configuration's figure is from the typical one
    """

    seeds: tuple[int, ...]
    variances: tuple[float, ...]
    residuals: tuple[float, float]
    examples: float
    n: int
    independent: float = nan
    share: float = nan
    effect: float = 0.0

    @property
    def binary(self) -> bool:
        """Whether every answer is right or wrong."""
        return not isnan(self.share)

    @property
    def worth(self) -> float:
        """As how many independent examples they count."""
        return self.n if isnan(self.independent) else self.independent

    @property
    def reach(self) -> float:
        """The largest effect that there can be."""
        return max(self.share, 1 - self.share) if self.binary else inf

    @property
    def error(self) -> float:
        """The true standard error of the difference."""
        runs = sum(variance / seeds for variance, seeds in zip(self.variances[:2], self.seeds[:2], strict=True))
        return float((runs + self.examples) ** 0.5)

    def moved(self, effect: float) -> "Design":
        """Return the design whose first configuration is an effect away, towards the end of the scale that is further.

        Answers near the middle vary more than others. They are taken to be right where something that varies normally
        is above a threshold, which is another one for the configuration that is moved.
        """
        if not self.binary or not 0 < self.share < 1:
            return replace(self, effect=effect)
        p, least, n = self.share, 0.5 / self.n, self.worth
        q = min(max(p + effect if p < 0.5 else p - effect, least), 1 - least)
        within = p * (1 - p) - self.residuals[0] / self.n * n  # covariance of answers of two runs to one example
        same, other = _correlation(p, within), _correlation(p, within - self.examples * n / 2)
        there = _covariance(q, q, same)
        examples = (there + _covariance(p, p, same) - 2 * _covariance(p, q, other)) / n
        residual = max(q * (1 - q) - there, 0.0) / n
        runs = self.variances[0] - min(self.residuals[0] / self.n, self.variances[0])
        first = _covariance(q, q, _correlation(p, runs)) + residual
        return replace(
            self,
            variances=(first, *self.variances[1:]),
            residuals=(residual * self.n, self.residuals[1]),
            examples=max(examples, 0.0),
            effect=q - p,
        )


def _covariance(p: float, q: float, correlation: float) -> float:
    """Return the covariance of two right or wrong answers, whose normal variables have a correlation.

    The bivariate normal distribution function by Owen's (1956) T.
    """
    if abs(p - 0.5) < _EXACT or abs(q - 0.5) < _EXACT:  # where the formula divides by nothing
        p, q = (share + 2 * _EXACT if abs(share - 0.5) < _EXACT else share for share in (p, q))
    h, k = special.ndtri(p), special.ndtri(q)
    if correlation >= 1:
        return float(min(p, q) - p * q)
    root = (1 - correlation**2) ** 0.5
    first, second = (k / h - correlation) / root, (h / k - correlation) / root
    both = (p + q) / 2 - special.owens_t(h, first) - special.owens_t(k, second) - (0.5 if h * k < 0 else 0.0)
    return float(both - p * q)


@lru_cache(maxsize=1024)
def _correlation(share: float, covariance: float) -> float:
    """Return the correlation of normal variables whose answers have a covariance (tetrachoric), from 0 to 1."""
    if covariance <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _covariance(share, share, middle) >= covariance else (middle, high)
    return high


@dataclass(frozen=True)
class Sensitivity:
    """What a comparison can show with the usual power.

    :ivar difference: the smallest true difference that is found; `margin`: the smallest margin within which equals are
        shown to be equivalent; NaN where no size would do
    """

    difference: float
    margin: float


def sensitivity(design: Design, alpha: float) -> Sensitivity:
    """Return what a comparison can show.

    :param alpha: of this one comparison: the family's, divided by its size
    """
    if design.binary:  # the effect changes the variance that it is compared with, so that each is tried by itself
        effect = _smallest(lambda size: power_of_difference(design, size, alpha), design, _CLOSE)
    else:
        effect = _smallest(_difference_power(design, alpha), design, _EXACT)
    return Sensitivity(effect, _smallest(_equivalence_power(design, alpha), design, _EXACT))


def power_of_difference(design: Design, effect: float, alpha: float) -> float:
    """Return how likely a true difference is found."""
    return _difference_power(design.moved(effect), alpha)(effect)


def _difference_power(design: Design, alpha: float) -> Callable[[float], float]:
    found = _found(design, np.random.default_rng(0))
    bars = found.bars(alpha / 2)
    away = 1.0 if design.effect > 0 else -1.0

    def power(effect: float) -> float:
        gap = found.by_runs + away * effect
        return float(np.mean(found.at_most(gap - bars) + found.at_most(-gap - bars)))

    return power


def _equivalence_power(design: Design, alpha: float) -> Callable[[float], float]:
    found = _found(design, np.random.default_rng(0))
    bars = found.bars(alpha)

    def power(margin: float) -> float:
        room = margin - bars
        both = found.at_most(room - found.by_runs) + found.at_most(room + found.by_runs) - 1
        return float(np.mean(np.where(room > 0, np.maximum(both, 0.0), 0.0)))

    return power


def _smallest(power: Callable[[float], float], design: Design, exact: float) -> float:
    """Return the smallest effect that is found with the usual power; NaN where none is, or the error is not known.

    :param exact: how exact it has to be, relatively
    """
    if isnan(design.error):
        return nan
    low, high = 0.0, min(design.error or _EXACT, design.reach)
    while power(high) < POWER:
        if high >= design.reach:
            return nan
        low, high = high, min(2 * high, design.reach)
    while high - low > exact * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


class _Found(NamedTuple):
    """What studies of a design find: [draws] each.

    :ivar by_runs: how far runs move the difference; `examples`: the true variance that examples add to that
    :ivar error: the standard error that is found; `df`: its degrees of freedom
    """

    by_runs: np.ndarray
    examples: float
    error: np.ndarray
    df: np.ndarray

    def bars(self, tail: float) -> np.ndarray:
        """Return how large a difference has to be for a one-sided test at a level."""
        many = np.isinf(self.df)
        quantiles = special.stdtrit(np.where(many, 1.0, self.df), 1 - tail)
        return np.asarray(np.where(many, special.ndtri(1 - tail), quantiles) * self.error)

    def at_most(self, gap: np.ndarray) -> np.ndarray:
        """Return how likely examples move the difference by no more than a gap."""
        if not self.examples:
            return np.asarray(gap >= 0, float)
        return np.asarray(special.ndtr(gap / self.examples**0.5))


def _found(design: Design, rng: np.random.Generator) -> _Found:
    """Return what studies of a design find, by the rules that judge real ones."""
    exact = np.array(design.variances[:2]) == 0
    runs, n = np.array(design.seeds[:2]), design.n
    means, counts = _runs(design, rng)
    fixed = np.broadcast_to(exact[:, None], (2, DRAWS))
    brought = np.where(fixed, 0.0, counts.variance.T / runs[:, None])
    everyone = np.broadcast_to(runs[:, None], (2, DRAWS))
    parts = run_parts(brought, np.where(fixed, 1.0, counts.df.T), counts.borrowed.T & ~fixed, fixed, everyone)
    left = [
        (residual / count / n * _mean_square(rng, (count - 1.0) * (n - 1)), (count - 1.0) * (n - 1))
        for residual, count, no_runs in zip(design.residuals, runs, exact, strict=True)
        if count > 1 and not no_runs
    ]
    truly = sum(residual / count / n for residual, count in zip(design.residuals, runs, strict=True))
    between = (design.examples + truly) * _mean_square(rng, n - 1.0)
    least = unseen(1.0, design.worth) if design.binary else 0.0
    examples, held = examples_part(between, n, brought.sum(axis=0), left, least)
    error = np.sqrt(brought.sum(axis=0) + examples)
    return _Found(means[:, 0] - means[:, 1], design.examples, error, degrees(parts, held, examples))


def _runs(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, run_variance.BorrowedVariance]:
    """Return how far the runs of the two are from the truth, [draws, 2], and the run variance that counts for them."""
    seeds, true = np.array(design.seeds[:_MOST_POOLED]), np.array(design.variances[:_MOST_POOLED])
    ran = (np.arange(seeds[:2].max()) < seeds[:2, None])[None]
    figures = _figures(design, (DRAWS, *ran.shape[1:]), rng)
    means = (figures * ran).sum(axis=2) / seeds[:2]
    dfs = np.where(true > 0, seeds - 1, 0)
    own = true * rng.chisquare(np.maximum(dfs, 1), (DRAWS, len(dfs))) / np.maximum(dfs, 1)
    own[:, :2] = (np.square(figures - means[:, :, None]) * ran).sum(axis=2) / np.maximum(dfs[:2], 1)
    drawn, pooled = np.flatnonzero(dfs), np.zeros((DRAWS, len(dfs)))
    value, df = np.full((DRAWS, 1), nan), np.zeros((DRAWS, 1))
    if len(drawn):
        value, df, pooled[:, drawn] = run_variance.pool_many(own[:, drawn], dfs[drawn])
    compared = np.broadcast_to(dfs[:2], (DRAWS, 2))
    return means, run_variance.borrow(own[:, :2], compared, pooled[:, :2], value, df, float(dfs.max()))


def _figures(design: Design, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return how far each run of the two is from its configuration's figure: [draws, 2, runs].

    A share is what lies above a threshold that runs move, and of the examples that there are.
    """
    normal, variances = rng.standard_normal(shape), np.array(design.variances[:2])
    if not design.binary or not 0 < design.share < 1:
        return np.asarray(variances[:, None] ** 0.5 * normal)
    of_examples = np.minimum(np.array(design.residuals) / design.n, variances).clip(0.0)  # rounding may go below zero
    shares = np.array([design.share + design.effect, design.share])[:, None]
    alike = [_correlation(float(p), float(v)) for [p], v in zip(shares, variances - of_examples, strict=True)]
    common = np.minimum(alike, 1 - _EXACT)[:, None]
    moved = special.ndtr((special.ndtri(shares) + common**0.5 * normal) / (1 - common) ** 0.5) - shares
    return np.asarray(moved + of_examples[:, None] ** 0.5 * rng.standard_normal(shape))


def _mean_square(rng: np.random.Generator, df: float) -> np.ndarray:
    """Return draws of a mean square whose expectation is 1: [draws]."""
    return np.asarray(rng.chisquare(df, DRAWS) / df)
