"""Choosing one of several: the cheapest that is shown to be no worse than the best by a margin, whichever is the best.

That configuration i is worse than the best by the margin is tested against every rival, and the largest of these
probabilities counts (intersection-union; Berger, 1982): the best one is among the rivals, so that the test needs not
know which it is. Over the candidates Holm's adjustment holds the probability of any wrong claim, with one hypothesis
fewer (Shaffer, 1986), since the best itself is never worse than the best. Whatever is then taken from the claimed
ones, for instance the cheapest, is wrong no more often.

Right and wrong answers have a ceiling: nothing is better than all of them right, so that a configuration within the
margin of the ceiling is within the margin of whatever is best, however little is known of its rivals. Both tests are
made, and share the error nine to one.

Which may be the best is Gupta's question (1965, "On some multiple decision (selection and ranking) rules",
Technometrics 7): a candidate stays unless some other is significantly better at alpha / (k - 1), so that the best one
is among those that stay with probability 1 - alpha.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, nan

import numpy as np

from lorafile.statistics.crossed import (
    ROUNDING,
    Outcomes,
    combination,
    combination_variance,
    pool,
    run_parts,
    unseen,
)
from lorafile.statistics.probabilities import holm, upper, uppers
from lorafile.statistics.run_variance import RunVariance

CEILING = 0.1  # the share of the error that the test against the ceiling has


@dataclass(frozen=True, eq=False)
class PairwiseDifferences:
    """What `contrast` finds of every two, as matrices: the configuration of the row less that of the column.

    :ivar places: configuration -> its row and column
    :ivar difference: [configurations, configurations], as are `error` (standard errors) and `df`
    """

    places: dict[str, int]
    difference: np.ndarray
    error: np.ndarray
    df: np.ndarray


def pairwise_differences(outcomes: Mapping[str, Outcomes], pooled: RunVariance) -> PairwiseDifferences:
    """Return the difference between every two configurations on the same examples.

    :raises ValueError: when two have not the same number of examples
    """
    sides = list(outcomes.values())
    difference, error, df = (np.zeros((len(sides), len(sides))) for _ in range(3))
    every = PairwiseDifferences({name: at for at, name in enumerate(outcomes)}, difference, error, df)
    if not sides:
        return every
    n = sides[0].examples
    if unlike := [side.examples for side in sides if side.examples != n]:
        raise ValueError(f"{n} and {unlike[0]} examples cannot be paired")
    names = ("by_example", "mean", "binary", "exact", "runs", "residual", "run_variance", "df")
    by_example, mean, binary, exact, runs, residual, own, own_df = (
        np.array([getattr(side, name) for side in sides]) for name in names
    )
    counts, independent = pooled.of(own, own_df), min(side.independent for side in sides)
    brought = np.where(exact, 0.0, counts.variance) / runs
    left, left_df = residual / runs / n, np.maximum((runs - 1.0) * (n - 1), 1.0)
    for at in range(len(sides) - 1):  # row by row: all at once would be a number for every pair and example
        rest = slice(at + 1, None)
        row = combination_variance(
            by_example[at] - by_example[rest],
            ROUNDING * np.maximum(abs(mean[at]), abs(mean[rest])),
            run_parts(*(_both(array, at) for array in (brought, counts.df, counts.borrowed, exact, runs))),
            [(left[at], left_df[at]), (left[rest], left_df[rest])],
            np.where(binary[at] & binary[rest], unseen(1.0, independent), 0.0),
        )
        difference[at, rest], difference[rest, at] = row.difference, -row.difference
        error[at, rest] = error[rest, at] = np.sqrt(row.runs + row.examples)
        df[at, rest] = df[rest, at] = row.df
    return every


def _both(array: np.ndarray, at: int) -> np.ndarray:
    """Return a configuration's value next to that of each later one: [2, later ones]."""
    return np.stack((np.repeat(array[at], len(array) - at - 1), array[at + 1 :]))


@dataclass(frozen=True)
class Choice:
    """What may be claimed of several candidates, and the one to take.

    :ivar chosen: the cheapest claimed one; None where nothing is claimed
    :ivar claimed: shown to be no worse than the best by the margin, cheapest first
    :ivar may_be_best: none is significantly better, cheapest first
    :ivar p: of each, the probability of such figures, were it worse than the best by the margin; NaN without a margin,
        and where a candidate has one run while a seed matters
    :ivar adjusted: the same, over all candidates
    :ivar rival: the one that each `p` comes from; a single candidate has none
    :ivar ahead: of each that cannot be the best, the best mean of those that are significantly better
    """

    chosen: str | None
    claimed: tuple[str, ...]
    may_be_best: tuple[str, ...]
    p: dict[str, float]
    adjusted: dict[str, float]
    rival: dict[str, str]
    ahead: dict[str, str]


def choose(
    outcomes: Mapping[str, Outcomes],
    costs: Mapping[str, float],
    margin: float | None,
    more: bool,
    alpha: float,
    pooled: RunVariance | None = None,
    differences: PairwiseDifferences | None = None,
    rivals: Collection[str] | None = None,
) -> Choice:
    """Return the cheapest candidate that is non-inferior to the best, with what else may be said of all.

    :param outcomes: of every candidate, on the same examples
    :param costs: what each costs, in any unit; of equal costs the better mean is taken; one that is absent costs most
    :param margin: how much worse than the best is still good enough, in the metric's unit; None: nothing is claimed
    :param pooled: the study's run variance, where it has more configurations than these candidates
    :param differences: between every two candidates, and any others, where they are computed already
    :param rivals: those that may be the best, and so hold up others; all of them where it is None
    :raises ValueError: when two candidates have not the same number of examples
    """
    pooled = pool(outcomes.values()) if pooled is None else pooled
    differences = pairwise_differences(outcomes, pooled) if differences is None else differences
    binary = more and all(candidate.binary for candidate in outcomes.values())
    sign = -1 if more else 1
    order = sorted(outcomes, key=lambda name: (costs.get(name, inf), sign * outcomes[name].mean, name))
    nearest, ahead = _rivals(outcomes, differences, margin, more, alpha, rivals)
    p = dict.fromkeys(outcomes, nan)
    rival: dict[str, str] = {}
    for name, candidate in outcomes.items():
        if margin is None or not (candidate.exact or candidate.runs > 1):
            continue
        p[name] = 0.0
        if name in nearest:
            rival[name], p[name] = nearest[name]
            if binary and not np.isnan(p[name]):
                p[name] = min(1.0, p[name] / (1 - CEILING), _below_ceiling(candidate, margin, pooled) / CEILING)
    adjusted = dict(zip(p, holm(list(p.values()), one_is_false=True), strict=True))
    claimed = tuple(name for name in order if adjusted[name] <= alpha)
    stay = tuple(name for name in order if name not in ahead and (rivals is None or name in rivals))
    return Choice(claimed[0] if claimed else None, claimed, stay, p, adjusted, rival, ahead)


def _rivals(
    outcomes: Mapping[str, Outcomes],
    differences: PairwiseDifferences,
    margin: float | None,
    more: bool,
    alpha: float,
    rivals: Collection[str] | None,
) -> tuple[dict[str, tuple[str, float]], dict[str, str]]:
    """Return of each the rival that it is likeliest worse than by the margin, with that probability; `Choice.ahead`.

    A probability that is not known counts as the largest: nothing may be claimed past it.
    """
    names = list(outcomes)
    if len(names) < 2:
        return {}, {}
    places = [differences.places[name] for name in names]
    worse, better = (p[np.ix_(places, places)] for p in _probabilities(differences, margin, more))
    of_rivals = np.where(np.isnan(worse), inf, worse)
    np.fill_diagonal(of_rivals, -inf)
    if rivals is not None:  # where nothing else is left, the others are rivals after all
        idle = np.array([name not in rivals for name in names])
        alone = np.array([all(idle[other] for other in range(len(names)) if other != at) for at in range(len(names))])
        of_rivals = np.where(idle & ~alone[:, None], -inf, of_rivals)
    largest = of_rivals.argmax(axis=1)
    clearly = better.transpose() <= alpha / (len(names) - 1)
    np.fill_diagonal(clearly, False)
    means = np.array([one.mean for one in outcomes.values()]) * (-1 if more else 1)
    leaders = np.where(clearly, means, inf).argmin(axis=1)
    nearest = {name: (names[largest[at]], float(worse[at, largest[at]])) for at, name in enumerate(names)}
    return nearest, {names[at]: names[leaders[at]] for at in np.flatnonzero(clearly.any(axis=1))}


def _below_ceiling(candidate: Outcomes, margin: float, pooled: RunVariance) -> float:
    """Return the probability of such a share, were it worse by the margin than all answers right."""
    share = combination([candidate], [1.0], pooled)
    return upper(share, share.difference - (1 - margin))


@lru_cache(maxsize=4)
def _probabilities(differences: PairwiseDifferences, margin: float | None, more: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities were the row worse than the column by the margin, and were it no better."""
    gains, error, df = differences.difference * (1 if more else -1), differences.error, differences.df
    worse = np.full(gains.shape, nan) if margin is None else uppers(gains + margin, error, df)
    return worse, uppers(gains, error, df)
