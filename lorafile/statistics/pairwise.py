"""The difference between every two of several configurations, all of them at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorafile.statistics.crossed import (
    ROUNDING,
    LinearCombinationVariance,
    MeanSquare,
    Outcomes,
    RunVariance,
    combination_variance,
    unseen,
)


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


@dataclass(frozen=True)
class _Side:
    """One configuration, or several: each figure a number, or [configurations] of them.

    :ivar by_example: [..., examples]
    """

    by_example: np.ndarray
    mean: np.ndarray
    exact: np.ndarray
    runs: np.ndarray
    run_variance: np.ndarray
    residual: np.ndarray
    binary: np.ndarray

    def at(self, place: int | slice) -> "_Side":
        """Return one of several, or some."""
        return _Side(**{name: found[place] for name, found in vars(self).items()})


def pairwise_differences(outcomes: Mapping[str, Outcomes], pooled: RunVariance) -> PairwiseDifferences:
    """Return the difference between every two configurations on the same examples.

    :raises ValueError: when two have not the same number of examples
    """
    sides = list(outcomes.values())
    if unlike := [side.examples for side in sides if side.examples != sides[0].examples]:
        raise ValueError(f"{sides[0].examples} and {unlike[0]} examples cannot be paired")
    every = _Side(**{name: np.array([getattr(side, name) for side in sides]) for name in _Side.__annotations__})
    difference, error, df = (np.zeros((len(sides), len(sides))) for _ in range(3))
    for at in range(len(sides) - 1):  # row by row: all at once would be a number for every pair and example
        rest = slice(at + 1, None)
        found = _held_against(every.at(at), every.at(rest), pooled)
        difference[at, rest], difference[rest, at] = found.difference, -found.difference
        error[at, rest] = error[rest, at] = np.sqrt(found.runs + found.examples)
        df[at, rest] = df[rest, at] = found.df
    return PairwiseDifferences({name: at for at, name in enumerate(outcomes)}, difference, error, df)


def _held_against(one: _Side, others: _Side, pooled: RunVariance) -> LinearCombinationVariance:
    """Return what the difference between a configuration and each of several others is worth."""
    n = one.by_example.shape[-1]
    left = [(side.residual / side.runs / n, np.maximum((side.runs - 1.0) * (n - 1), 1.0)) for side in (one, others)]
    return combination_variance(
        one.by_example - others.by_example,
        ROUNDING * np.maximum(abs(one.mean), abs(others.mean)),
        _run_parts(one, others, pooled),
        left,
        np.where(one.binary & others.binary, unseen(1.0, n), 0.0),
    )


def _run_parts(one: _Side, others: _Side, pooled: RunVariance) -> list[MeanSquare]:
    """Return what runs bring: together where they are pooled, else of each by itself; of what is exact nothing."""
    alone = [(side.runs < 2) & ~side.exact for side in (one, others)]
    use_pool = np.logical_or(not pooled.differ, alone[0] | alone[1])
    seeded = [np.where(side.exact, 0.0, 1 / side.runs) for side in (one, others)]
    none = one.exact & others.exact
    together = np.where(none, 0.0, pooled.value * (seeded[0] + seeded[1]))
    parts: list[MeanSquare] = [(np.where(use_pool, together, 0.0), np.where(use_pool & ~none, pooled.df, 1.0))]
    for side in (one, others):
        apart = ~use_pool & ~side.exact
        parts.append((np.where(apart, side.run_variance / side.runs, 0.0), np.where(apart, side.runs - 1.0, 1.0)))
    return parts
