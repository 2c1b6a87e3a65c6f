"""Power and numbers of seeds and examples, held against statsmodels, published values and simulation."""

from dataclasses import replace
from math import inf, log, sqrt

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, TTestIndPower, TTestPower

from lorafile.statistics.crossed import Outcomes, contrast, pool
from lorafile.statistics.planning import (
    detectable,
    error_with,
    more_seeds,
    power_of_difference,
    power_of_equivalence,
    power_of_non_inferiority,
    prospects,
    sample_size,
    would_decide,
)


def outcomes(seed: int, runs: int, examples: int, shift: float = 0.0) -> Outcomes:
    """Runs differ by 0.02, examples by 0.3 (half of it shared by everybody), and each answer by 0.2 on its own."""
    shared = np.random.default_rng(0).normal(0, 0.25, examples)
    noise = np.random.default_rng(seed)
    values = shift + shared + noise.normal(0, 0.15, examples) + noise.normal(0, 0.02, (runs, 1))
    return Outcomes(values + noise.normal(0, 0.2, (runs, examples)))


A, B, C = (outcomes(seed, 4, 300) for seed in (1, 2, 3))
EXACT = Outcomes(A.values[:1], exact=True)


@pytest.mark.parametrize("alpha", [0.05, 0.008])
@pytest.mark.parametrize("n", [3, 8, 40])
def test_the_power_of_a_difference_is_statsmodels(n: int, alpha: float) -> None:
    one = TTestPower().power(effect_size=0.7, nobs=n, alpha=alpha)
    assert power_of_difference(1 / sqrt(n), n - 1, 0.7, alpha) == pytest.approx(one, abs=1e-9)
    two = TTestIndPower().power(effect_size=0.7, nobs1=n, alpha=alpha)
    assert power_of_difference(sqrt(2 / n), 2 * n - 2, -0.7, alpha) == pytest.approx(two, abs=1e-9)
    known = NormalIndPower().power(effect_size=0.7, nobs1=n, alpha=alpha)
    assert power_of_difference(sqrt(2 / n), inf, 0.7, alpha) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize(("n", "alpha"), [(2, 0.05), (5, 0.001), (50, 0.05)])
def test_the_smallest_difference_that_is_found_is_statsmodels(n: int, alpha: float) -> None:
    effect = TTestIndPower().solve_power(nobs1=n, alpha=alpha, power=0.8)
    assert detectable(0.3 * sqrt(2 / n), 2 * n - 2, alpha) == pytest.approx(0.3 * effect, rel=1e-4)


def test_the_power_of_non_inferiority_is_that_of_a_one_sided_test() -> None:
    larger = TTestIndPower().power(effect_size=0.5, nobs1=20, alpha=0.025, alternative="larger")
    assert power_of_non_inferiority(sqrt(2 / 20), 38, -0.3, 0.8, 0.025) == pytest.approx(larger, abs=1e-9)


def test_the_power_of_equivalence_is_that_of_a_published_example() -> None:
    """R's PowerTOST, sampleN.TOST(CV = 0.3): a 2 × 2 crossover of 40 has a power of 0.815845."""
    error = sqrt(log(0.3**2 + 1) * 2 / 40)
    assert power_of_equivalence(error, 38, log(0.95), log(1.25), 0.05) == pytest.approx(0.815845, abs=1e-4)


@pytest.mark.parametrize(("df", "alpha", "margin"), [(2, 0.05, 5.0), (5, 0.008, 6.0), (30, 0.001, 4.5), (inf, 0.05, 3)])
def test_the_power_of_equivalence_is_how_often_it_is_claimed(df: float, alpha: float, margin: float) -> None:
    from scipy import stats

    noise = np.random.default_rng(1)
    found = noise.normal(0.4, 1, 400_000)
    error = np.sqrt(noise.chisquare(df, 400_000) / df) if df < inf else np.ones(400_000)
    bar = stats.t.ppf(1 - alpha, df) if df < inf else stats.norm.ppf(1 - alpha)
    claimed = ((found + margin) / error > bar) & ((found - margin) / error < -bar)
    assert power_of_equivalence(1.0, df, 0.4, margin, alpha) == pytest.approx(claimed.mean(), abs=0.003)


def test_without_noise_only_the_difference_matters() -> None:
    assert power_of_difference(0.0, inf, 0.1, 0.05) == 1
    assert power_of_equivalence(0.0, inf, 0.1, 0.05, 0.05) == 0
    assert power_of_non_inferiority(0.0, inf, -0.1, 0.2, 0.05) == 1


@pytest.mark.parametrize("pair", [(A, B), (A, EXACT), (outcomes(4, 2, 300), C)])
@pytest.mark.parametrize("noisier", [1.0, 100.0])
def test_with_the_numbers_that_there_are_it_foresees_the_estimate(
    pair: tuple[Outcomes, Outcomes], noisier: float
) -> None:
    one, other = pair
    one = Outcomes(one.values + noisier * np.linspace(0, 0.01, one.runs)[:, None])
    estimate = contrast(one, other, pool([one, other, C]))
    assert error_with(estimate, estimate.seeds, estimate.n) == pytest.approx((estimate.error, estimate.df))


def test_it_foresees_the_variance_that_more_seeds_and_examples_have() -> None:
    large = [outcomes(seed, 400, 2000) for seed in (11, 12)]
    estimate = contrast(*large, pool(large))
    noise, found = np.random.default_rng(5), []
    for _ in range(4000):  # of each side: 5 runs on 60 examples; what examples share cancels in the difference
        own = noise.normal(0, 0.15, (2, 60)).mean(axis=1)
        runs = noise.normal(0, 0.02, (2, 5)).mean(axis=1)
        found.append(np.diff(own + runs + noise.normal(0, 0.2, (2, 5, 60)).mean(axis=(1, 2)))[0])
    error, _ = error_with(estimate, (5, 5), 60)
    assert error == pytest.approx(np.std(found), rel=0.07)


def test_a_pooled_run_variance_gains_a_degree_of_freedom_for_each_further_run_of_anybody() -> None:
    """Of three configurations with two runs each, two get two more: 3 + 3 + 1; with the third, 3 + 3 + 3."""
    flat = [Outcomes(np.repeat([[0.1], [0.2]], 50, axis=1)) for _ in range(3)]
    estimate = contrast(flat[0], flat[1], pool(flat))
    assert estimate.df == pytest.approx(2), "two runs show nothing of being quiet"
    assert max(one.df for one in prospects(estimate, (4, 4))) == pytest.approx(7)
    assert max(one.df for one in prospects(estimate, (4, 4), others=2)) == pytest.approx(9)
    longer = [Outcomes(np.repeat([[0.1], [0.2], [0.1], [0.2]], 50, axis=1)) for _ in range(2)]
    assert contrast(*longer, pool([*longer, flat[2]])).df == pytest.approx(7)


def test_where_one_side_is_clearly_noisier_each_has_its_own() -> None:
    calm, wild = (Outcomes(np.repeat([[0.5 - by], [0.5 + by], [0.5]], 50, axis=1)) for by in (0.001, 0.1))
    estimate = contrast(calm, wild, pool([calm, wild]))
    error, df = error_with(estimate, (3, 10), 50)
    assert error == pytest.approx(sqrt(1e-6 / 3 + 0.01 / 10))
    assert df == pytest.approx(2), "of unlike numbers of runs, the fewest"
    assert error_with(estimate, (10, 10), 50)[1] == pytest.approx(9, rel=0.01)


def test_what_is_needed_decides_and_one_less_does_not() -> None:
    sides = [outcomes(seed, 8, 300) for seed in (1, 2, 3)]
    estimate, margin, alpha = contrast(*sides[:2], pool(sides)), 0.05, 0.008
    found = sample_size(estimate, margin, alpha)
    assert found.seeds is not None and found.examples is not None
    assert would_decide(*error_with(estimate, estimate.seeds, found.examples), margin, alpha)
    assert not would_decide(*error_with(estimate, estimate.seeds, found.examples - 1), margin, alpha)
    more = more_seeds(estimate, margin, alpha)
    assert more == found.seeds - 8


def test_further_configurations_under_the_same_seeds_save_some() -> None:
    short = [Outcomes(side.values[:2]) for side in (A, B, C)]
    estimate = contrast(short[0], short[1], pool(short))
    alone, together = (more_seeds(estimate, 0.08, 0.0001, others) for others in (0, 20))
    assert alone is not None and together is not None
    assert together < alone


def test_no_number_of_seeds_decides_what_the_examples_carry_alone() -> None:
    estimate = contrast(A, B, pool([A, B, C]))
    found = sample_size(estimate, 0.01, 0.05)
    assert found.seeds is None
    assert sample_size(contrast(EXACT, replace(EXACT), pool([A, B])), 0.01, 0.05).seeds is None
