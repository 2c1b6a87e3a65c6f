"""What a configuration borrows from others: against scipy, and by how often a quiet-looking noisy one is believed."""

from math import inf, isnan, nan

import numpy as np
import pytest
from scipy import stats

from lorafile.statistics.crossed import Outcomes, contrast, pool
from lorafile.statistics.probabilities import holm, two_sided
from lorafile.statistics.run_variance import RunVariance, largest_ratio
from lorafile.statistics.run_variance import pool as pool_variances


def of(pooled: RunVariance, *sides: tuple[float, int]) -> tuple[list[float], list[int], list[bool]]:
    variances, dfs = zip(*sides, strict=True)
    found = pooled.of(np.array(variances), np.array(dfs))
    return list(found.variance), list(found.df), list(found.borrowed)


def test_what_shows_that_it_is_not_three_times_as_noisy_has_the_degrees_of_freedom_of_all() -> None:
    bound = 9 * stats.f(2, 18).ppf(0.15)
    quiet, loud = (0.99 * bound, 2), (1.01 * bound, 2)
    others = [(1.0, 2)] * 9
    for side, borrowed in ((quiet, True), (loud, False)):
        pooled = pool_variances([side, *others])
        [variance], [df], [found] = of(pooled, side)
        assert (found, df) == (borrowed, 20 if borrowed else 2)
        assert variance == max(side[0], pooled.value), "never less than the pooled one, nor than its own"


def test_what_has_fewer_runs_than_others_has_more_to_show() -> None:
    bound = largest_ratio(np.array([1]), np.array([27]), most=9)
    assert bound == pytest.approx(9 * stats.f(1, 27).ppf(0.15 * 2 / 10))


def test_a_clearly_noisier_configuration_is_not_pooled_and_has_its_own() -> None:
    wild = (40.0, 2)
    pooled = pool_variances([wild, *[(1.0, 2)] * 5])
    assert stats.f(2, 10).sf(40) < 0.01
    assert (pooled.value, pooled.df, pooled.differ) == (1.0, 10, True)
    assert of(pooled, wild, (1.0, 2)) == ([40.0, 1.0], [2, 10], [False, True])


def test_one_run_has_all_from_the_others_and_without_others_nothing_is_known() -> None:
    pooled = pool_variances([(1.0, 2), (2.0, 2), (nan, 0)])
    assert of(pooled, (nan, 0)) == ([1.5], [4], [True])
    alone = pool_variances([(nan, 0)])
    assert isnan(of(alone, (nan, 0))[0][0])


def test_a_pair_of_two_runs_each_borrows_nothing() -> None:
    assert of(pool_variances([(1.0, 1), (1.0, 1)]), (1.0, 1))[1:] == ([1], [False])


def test_runs_that_never_differ_next_to_ones_that_do_are_told_apart() -> None:
    sides = [(0.0, 2), (0.0, 2), (1e-4, 2)]
    pooled = pool_variances(sides)
    assert (pooled.value, pooled.noisy) == (0.0, {(1e-4, 2)})
    assert pooled.of(np.array([1e-4]), np.array([2])).ratio[0] == inf


def false_words(seeds: list[int], noise: list[float], repeats: int = 600) -> float:
    """Return how often a family against the first configuration has a difference, though there is none."""
    draw, wrong = np.random.default_rng([*seeds, *map(int, noise)]), 0
    for _ in range(repeats):
        sides = [
            Outcomes(np.repeat(draw.normal(0, sd, (count, 1)), 2, axis=1))
            for count, sd in zip(seeds, noise, strict=True)
        ]
        pooled = pool(sides)
        wrong += min(holm([two_sided(contrast(side, sides[0], pooled)) for side in sides[1:]])) <= 0.05
    return wrong / repeats


@pytest.mark.parametrize(
    ("seeds", "noise"),
    [
        ([3] * 10, [3.0] + [1.0] * 9),
        ([3] * 10, [1.0] * 9 + [4.0]),
        ([10, 10, 10, 2], [1.0, 1.0, 1.0, 3.0]),
        ([8, 8, 3], [1.0, 1.0, 3.0]),
    ],
)
def test_a_noisy_configuration_calls_no_more_real_than_it_may(seeds: list[int], noise: list[float]) -> None:
    """Where pooling until Bartlett's test objects was wrong in 12 to 27 of 100 families."""
    assert false_words(seeds, noise) <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5
