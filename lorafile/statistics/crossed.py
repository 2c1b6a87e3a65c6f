"""Seeds and examples as two crossed random factors: what a difference between two configurations is worth.

A figure is a mean over examples of what a run makes of each, and a configuration's figure a mean over runs. Another
seed would move it, and so would another sample of examples, which all configurations share. With outcomes
y[seed, example] of each configuration, the variance of a difference has two parts:

- runs: the variance between the seeds' means, over the number of seeds; `run_variance` says how far it is the study's
- examples: the variance between the examples' paired differences, over the number of examples, less what the runs
  have put into it already (the mean square of the seed-by-example residual)

This is the Dorfman-Berbaum-Metz estimator of radiology's multi-reader multi-case studies, readers being seeds, with
Hillis' truncation at zero (Hillis, 2014, "A marginal-mean ANOVA approach for analyzing multireader multicase
radiological imaging data", Statistics in Medicine 33), and Satterthwaite's (1946) degrees of freedom.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isnan, nan
from typing import NamedTuple

import numpy as np

from lorafile.statistics import run_variance
from lorafile.statistics.run_variance import WIDE, RunVariance

# The error of a share by n examples is at least this over n, were they all alike: a 95 % interval then reaches 3 / n,
# the rule of three (Hanley and Lippman-Hand, 1983, "If nothing goes wrong, is everything all right?", JAMA 249).
_UNSEEN = 3 / 1.96
ROUNDING = 1e-12  # relative to the figures: what is smaller is no difference but float64's rounding
Numbers = np.ndarray | float
MeanSquare = tuple[Numbers, Numbers]  # a mean square in the units of the sum, and its degrees of freedom


@dataclass(frozen=True)
class Outcomes:
    """What the runs of one configuration made of each example.

    :ivar values: float64 [runs, examples], such that the mean over examples is the run's figure: see `linear`
    :ivar exact: no seed would change it (the untuned base), so that there is one run, and it has no run variance
    :ivar unit: what is drawn at random: an `example`, or a `cluster` of examples that belong together
    :ivar shares: whether an example is right or wrong, where the values are those of clusters
    :ivar worth: how many independent examples the clusters are worth, where that is known (Kish's design effect)
    """

    values: np.ndarray
    exact: bool = False
    unit: str = "example"
    shares: bool = False
    worth: float = nan

    @property
    def independent(self) -> float:
        """How many independent examples there are: no fewer than clusters, no more than examples."""
        return self.examples if isnan(self.worth) else max(self.worth, float(self.examples))

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return int(self.values.shape[0])

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return int(self.values.shape[1])

    @cached_property
    def means(self) -> np.ndarray:
        """Each run's figure: [runs]."""
        return np.asarray(self.values.mean(axis=1))

    @cached_property
    def by_example(self) -> np.ndarray:
        """Each example's mean over runs: [examples]."""
        return np.asarray(self.values.mean(axis=0))

    @cached_property
    def mean(self) -> float:
        """The configuration's figure."""
        return float(self.values.mean())

    @property
    def df(self) -> int:
        """Degrees of freedom of the run variance."""
        return 0 if self.exact else self.runs - 1

    @property
    def run_variance(self) -> float:
        """Sample variance between runs; NaN below two runs, 0 where no seed changes anything."""
        if self.exact:
            return 0.0
        return float(self.means.var(ddof=1)) if self.runs > 1 else nan

    @cached_property
    def binary(self) -> bool:
        """Whether every outcome is right or wrong."""
        return self.shares or bool(np.isin(self.values, (0.0, 1.0)).all())

    def clustered(self, clusters: np.ndarray, correlation: float = nan) -> "Outcomes":
        """Return it by clusters of examples, with the same figures: another sample has other clusters, and all of each.

        Each cluster has the figure plus its influence on it, the linearization of a ratio of sums over clusters, from
        which a mean has the variance that is robust against clusters (Liang and Zeger, 1986).

        :param clusters: [examples], the number of each example's cluster, from 0
        :param correlation: of examples of one cluster, as the study's configurations show it (`intraclass`)
        """
        sizes = np.bincount(clusters)
        sums = np.stack([np.bincount(clusters, weights=run) for run in self.values])
        means = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)[:, sizes > 0]
        weights = sizes[sizes > 0].astype(float)
        values = np.stack([linear(run, weights) for run in means])
        effect = 1 + ((sizes**2).sum() / sizes.sum() - 1) * correlation  # Kish, 1965: the design effect
        worth = float(sizes.sum() / effect)
        return replace(self, values=values, unit="cluster", shares=self.binary, worth=worth)

    @cached_property
    def residual(self) -> float:
        """Mean square of the seed-by-example residual; 0 where it cannot be estimated (one run)."""
        if self.runs < 2 or self.examples < 2:
            return 0.0
        left = self.values - self.means[:, None] - self.by_example + self.mean
        return float((left**2).sum() / ((self.runs - 1) * (self.examples - 1)))


def intraclass(values: np.ndarray, clusters: np.ndarray) -> float:
    """Return the intraclass correlation: which share of the variance over examples is that between their clusters.

    The estimator of a one-way analysis of variance, from mean squares between and within clusters of unlike sizes
    (Donner, 1986, "A review of inference procedures for the intraclass correlation coefficient in the one-way random
    effects model", International Statistical Review 54); no less than 0. NaN where nothing varies, or each is alone.

    :param values: [examples]; `clusters`: [examples], the number of each example's cluster
    """
    _, number, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    n, k = len(values), len(sizes)
    if k < 2 or n == k:
        return nan
    means = np.bincount(number, weights=values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[number]) ** 2).sum()) / (n - k)
    typical = (n - (sizes**2).sum() / n) / (k - 1)
    whole = between + (typical - 1) * within
    return max((between - within) / whole, 0.0) if whole > 0 else nan


def linear(outcomes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return one run's outcomes such that their plain mean is the weighted one.

    :param outcomes: [examples]; `weights`: [examples], for instance each example's supervised tokens
    :return: the figure plus each example's influence on it: the linearization of a ratio of two sums
    """
    if weights is None:
        return outcomes
    figure = np.average(outcomes, weights=weights)
    return np.asarray(figure + weights / weights.mean() * (outcomes - figure))


def pool(configurations: Iterable[Outcomes]) -> RunVariance:
    """Return what configurations tell together about the variance between runs."""
    return run_variance.pool((side.run_variance, side.df) for side in configurations)


class LinearCombinationVariance(NamedTuple):
    """Of each weighted sum: itself, the variance that seeds and that examples bring, and degrees of freedom.

    :ivar df: of the whole; `runs_df`: of the run variance alone
    """

    difference: np.ndarray
    runs: np.ndarray
    examples: np.ndarray
    df: np.ndarray
    runs_df: np.ndarray


def combination_variance(
    paired: np.ndarray, least: Numbers, runs: Sequence[MeanSquare], left: Sequence[MeanSquare], unseen: Numbers
) -> LinearCombinationVariance:
    """Return weighted sums of figures with their variances, one or many at once.

    A part that one of them has not is 0 with any degrees of freedom but 0.

    :param paired: [..., examples], each example's own sum; all others are [...], or a number for all
    :param least: what is no larger is rounding
    :param runs: what runs bring; `left`: what the seed-by-example residual puts into the variance between examples
    :param unseen: the variance is at least this
    """
    n = paired.shape[-1]
    paired = np.where(abs(paired) > np.expand_dims(least, -1), paired, 0.0)
    brought = np.asarray(sum(square for square, _ in runs))
    between = paired.var(axis=-1, ddof=1) / n if n > 1 else np.full(paired.shape[:-1], nan)
    between = np.where(between < np.square(least), 0.0, between)
    examples, held = examples_part(between, n, brought, left, unseen)
    difference = paired.mean(axis=-1)
    difference = np.where(abs(difference) > least, difference, 0.0)
    return LinearCombinationVariance(difference, brought, examples, degrees(runs, held, examples), satterthwaite(runs))


def examples_part(
    between: Numbers, n: int, brought: Numbers, left: Sequence[MeanSquare], unseen: Numbers
) -> tuple[np.ndarray, list[MeanSquare]]:
    """Return the variance that examples bring to sums, and the mean squares that it is made of.

    :param between: the variance of the sums over examples, divided by their number `n`
    :param brought: what runs bring; the others as `combination_variance` takes them
    """
    examples = np.maximum(between - sum(square for square, _ in left), 0.0)
    vary, short = examples > 0, brought + examples < unseen
    examples = np.where(short, unseen - brought, examples)
    held: list[MeanSquare] = [(np.where(short, examples, np.where(vary, between, 0.0)), max(n - 1.0, 1.0))]
    held += [(np.where(vary & ~short, square, 0.0), df) for square, df in left]
    return examples, held


def degrees(runs: Sequence[MeanSquare], held: Sequence[MeanSquare], examples: Numbers) -> np.ndarray:
    """Return the degrees of freedom of a difference: Satterthwaite's, made safe for few runs.

    Where the run variance has few degrees of freedom and is too small by chance, the examples seem to carry the
    difference, and their many degrees of freedom come at the very moment at which the error is too small: with two
    runs of each of two configurations, up to 8 % of null differences would be called real at 5 %. So here, and only
    here, runs count for more by twice the relative variance of their mean square, 2 / df; it is then 5.3 %. Nothing
    changes where runs or examples are all that varies, and next to nothing from ten degrees of freedom.

    :param runs: what runs bring; `held`: what makes up the examples' variance
    :param examples: the examples' variance
    """
    alone, total = satterthwaite(runs), sum(square for square, _ in runs)
    likely = total * (1 + 4 / alone)
    return satterthwaite([(likely, alone), *held], likely + examples)


def satterthwaite(parts: Sequence[MeanSquare], total: Numbers | None = None) -> np.ndarray:
    """Return the degrees of freedom of sums of mean squares (Satterthwaite, 1946).

    :param parts: one that is subtracted counts as well
    :param total: the sum, where not every part is added
    """
    whole = sum(square for square, _ in parts) if total is None else total
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.asarray(sum(np.square(square) / df for square, df in parts))
        return np.where(below == 0, inf, np.square(whole) / below)


@dataclass(frozen=True)
class Estimate:
    """A difference between two configurations, or a weighted sum of several, and what it is worth.

    :ivar difference: first less second (or the sum), in the metric's unit
    :ivar runs: the variance that other seeds would bring; `examples`: that another sample of examples would
    :ivar df: Satterthwaite's degrees of freedom; `runs_df`: those of the run variance alone
    :ivar seeds: runs of each; `n`: examples, or clusters of them, as `unit` says
    :ivar squares: of each, its weight's square, 1 in a difference
    :ivar residual: of each, the mean square of the seed-by-example residual; `run_variances`: of each, the variance of
        one run's figure, 0 where no seed changes it; both times its weight's square
    :ivar borrowed: of each, whether its run variance has the degrees of freedom of the whole study's
    :ivar ratios: of each, its own run variance to that of all others, NaN where either is unknown
    :ivar pool: what all configurations of the study tell about the run variance
    """

    difference: float
    runs: float
    examples: float
    df: float
    runs_df: float
    seeds: tuple[int, ...]
    n: int
    residual: tuple[float, ...]
    exact: tuple[bool, ...]
    squares: tuple[float, ...]
    run_variances: tuple[float, ...]
    borrowed: tuple[bool, ...]
    ratios: tuple[float, ...]
    pool: RunVariance
    unit: str = "example"

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.runs + self.examples))

    @property
    def wide(self) -> tuple[bool, ...]:
        """Of each, whether its runs vary more than twice as much as those of the others."""
        return tuple(ratio > WIDE**2 for ratio in self.ratios)

    @property
    def on_runs_only(self) -> bool:
        """Whether a configuration has one run where a seed matters: it says something of these runs alone."""
        return any(seeds < 2 and not exact for seeds, exact in zip(self.seeds, self.exact, strict=True))


def contrast(one: Outcomes, other: Outcomes, pooled: RunVariance) -> Estimate:
    """Return the difference between two configurations on the same examples, with its variance.

    :raises ValueError: when the two have not the same number of examples
    """
    return combination([one, other], [1.0, -1.0], pooled)


def combination(sides: Sequence[Outcomes], weights: Sequence[float], pooled: RunVariance) -> Estimate:
    """Return a weighted sum of configurations' figures, whose weights add up to nothing, with its variance.

    :raises ValueError: when they have not all the same number of examples
    """
    terms = [(side, weight) for side, weight in zip(sides, weights, strict=True) if weight]
    n = terms[0][0].examples
    if unlike := [side.examples for side, _ in terms if side.examples != n]:
        raise ValueError(f"{n} and {unlike[0]} examples cannot be paired")
    residuals = [weight**2 * side.residual for side, weight in terms]
    squares = np.array([weight**2 for _, weight in terms])
    runs = np.array([side.runs for side, _ in terms])
    exact = np.array([side.exact for side, _ in terms])
    counts = pooled.of(np.array([side.run_variance for side, _ in terms]), np.array([side.df for side, _ in terms]))
    run_variances = np.where(exact, 0.0, squares * counts.variance)
    variance = combination_variance(
        sum((weight * side.by_example for side, weight in terms), np.zeros(n)),
        ROUNDING * max(abs(weight * side.mean) for side, weight in terms),
        run_parts(run_variances / runs, counts.df, counts.borrowed, exact, runs),
        [
            (residual / side.runs / n, (side.runs - 1.0) * (n - 1))
            for residual, (side, _) in zip(residuals, terms, strict=True)
            if side.runs > 1 and n > 1
        ],
        unseen(max(abs(weight) for _, weight in terms), min(side.independent for side, _ in terms))
        if all(side.binary for side, _ in terms)
        else 0.0,
    )
    return Estimate(
        **{name: float(value) for name, value in variance._asdict().items()},
        seeds=tuple(side.runs for side, _ in terms),
        n=n,
        residual=tuple(residuals),
        exact=tuple(side.exact for side, _ in terms),
        squares=tuple(map(float, squares)),
        run_variances=tuple(map(float, run_variances)),
        borrowed=tuple(map(bool, counts.borrowed & ~exact)),
        ratios=tuple(float(ratio) for ratio in np.where(exact, nan, counts.ratio)),
        pool=pooled,
        unit=terms[0][0].unit,
    )


def unseen(weight: float, n: float) -> float:
    """Return the least variance of a sum of shares by so many examples, however alike the answers are.

    :param weight: the largest of the sum
    """
    return (_UNSEEN * weight / n) ** 2


def run_parts(
    brought: np.ndarray, df: np.ndarray, borrowed: np.ndarray, exact: np.ndarray, runs: np.ndarray
) -> list[MeanSquare]:
    """Return what runs bring to a sum: together where it is borrowed, else each configuration by itself.

    Configurations of unlike numbers of runs have the fewest degrees of freedom of those that stand by themselves:
    Satterthwaite's would be too many, at the moment at which the variance of the few is too small by chance.

    :param brought: [configurations, ...], what each brings to the sum's variance, 0 of one that no seed changes; of the
        others alike: `df`, degrees of freedom, `borrowed`, `exact` and `runs`
    """
    alone = ~borrowed & ~exact
    least = np.where(alone, df, inf).min(axis=0)
    unlike = np.where(exact, 0, runs).max(axis=0) != np.where(exact, runs.max(), runs).min(axis=0)
    fewest = unlike & (least < inf)
    together = np.where(fewest, brought.sum(axis=0), np.where(borrowed & ~exact, brought, 0.0).sum(axis=0))
    shared = np.where(borrowed & ~exact, df, 1.0).max(axis=0)
    parts: list[MeanSquare] = [(together, np.where(fewest, least, shared))]
    return parts + [
        (np.where(by_itself & ~fewest, part, 0.0), np.where(by_itself, own, 1.0))
        for part, own, by_itself in zip(brought, df, alone, strict=True)
    ]
