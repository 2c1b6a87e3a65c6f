"""What a design detects, against closed forms, statsmodels, scipy, and studies that are made up and judged."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from lorafile.statistics import planning, run_variance
from lorafile.statistics.crossed import Outcomes, contrast, pool
from lorafile.statistics.probabilities import two_sided
from lorafile.statistics.sensitivity import Design, sensitivity

ALPHA = 0.05
# Nothing but examples varies: no seed changes either side.
OF_EXAMPLES = Design(seeds=(1, 1), variances=(0.0, 0.0), residuals=(0.0, 0.0), examples=4.0 / 30, n=30)
# Nothing but runs does.
OF_RUNS = Design(seeds=(40, 40), variances=(0.09, 0.09), residuals=(0.0, 0.0), examples=0.0, n=1000)


def test_without_run_variance_it_is_the_paired_t_test_over_examples() -> None:
    expected = 2.0 * TTestPower().solve_power(nobs=30, alpha=ALPHA, power=0.8)
    assert sensitivity(OF_EXAMPLES, ALPHA).difference == pytest.approx(expected, rel=0.01)


def test_equivalence_is_phillips_exact_power() -> None:
    margin = sensitivity(OF_EXAMPLES, ALPHA).margin
    assert planning.power_of_equivalence((4.0 / 30) ** 0.5, 29, 0.0, margin, ALPHA) == pytest.approx(0.8, abs=0.01)


def test_with_many_runs_and_nothing_else_it_is_the_t_test_over_runs() -> None:
    """The larger of a configuration's own and the pooled variance counts, so that it may be a little more."""
    expected = 0.3 * TTestIndPower().solve_power(nobs1=40, alpha=ALPHA, power=0.8)
    assert expected <= sensitivity(OF_RUNS, ALPHA).difference <= 1.1 * expected


def test_seeds_do_not_help_where_examples_carry_it_all() -> None:
    few = Design(seeds=(3,) * 4, variances=(1e-6,) * 4, residuals=(0.0, 0.0), examples=1e-2, n=500)
    many = replace(few, seeds=(30,) * 4)
    assert sensitivity(many, ALPHA).difference == pytest.approx(sensitivity(few, ALPHA).difference, rel=0.03)


def test_what_is_stated_is_found_four_times_in_five() -> None:
    """Five configurations under three seeds: the rules of verdicts decide which variance counts."""
    runs, residual, own, n, rng = 0.3, 0.4, 0.2, 60, np.random.default_rng(4)
    variances = (runs**2 + residual / n,) * 5
    design = Design((3,) * 5, variances, (residual, residual), 2 * own / n, n)
    effect, found = sensitivity(design, ALPHA).difference, 0
    for _ in range(600):
        values = own**0.5 * rng.normal(size=(5, 1, n)) + runs * rng.normal(size=(5, 3, 1))
        values += residual**0.5 * rng.normal(size=(5, 3, n))
        values[0] += effect
        sides = [Outcomes(each) for each in values]
        found += two_sided(contrast(sides[0], sides[1], pool(sides))) <= ALPHA
    assert found / 600 == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / 600) ** 0.5)


def test_answers_vary_with_their_share_as_the_bivariate_normal_says() -> None:
    """90 % right; answers have a part in common between runs, and less between configurations."""
    p, q, same, other, n = 0.9, 0.7, 0.6, 0.4, 200

    def both(one: float, two: float, correlation: float) -> float:
        normal = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]])
        return float(normal.cdf(stats.norm.ppf([one, two]))) - one * two

    residual = p * (1 - p) - both(p, p, same)
    examples = 2 * (both(p, p, same) - both(p, p, other)) / n
    moved = Design((3, 3), (residual / n,) * 2, (residual,) * 2, examples, n, share=p).moved(p - q)
    assert moved.residuals[0] == pytest.approx(q * (1 - q) - both(q, q, same), rel=1e-3)
    expected = (both(q, q, same) + both(p, p, same) - 2 * both(p, q, other)) / n
    assert moved.examples == pytest.approx(expected, rel=1e-3)
    assert moved.effect == pytest.approx(-0.2)
    assert optimize.brentq(lambda r: both(p, p, r) - both(p, p, same), 0.01, 0.99) == pytest.approx(same, abs=1e-3)


def test_no_difference_of_shares_is_larger_than_they_allow() -> None:
    design = Design((2, 2), (0.3**2,) * 2, (0.1, 0.1), 0.01, 20, share=0.5)
    assert isnan(sensitivity(design, 0.001).difference)
    assert isnan(sensitivity(design, 0.001).margin)


def test_many_studies_are_pooled_as_each_is_alone() -> None:
    rng = np.random.default_rng(6)
    dfs = np.array([1, 2, 2, 4, 9])
    variances = rng.chisquare(dfs, (300, 5)) / dfs * rng.choice([1.0, 1.0, 1.0, 40.0], (300, 5))
    values, df, _ = run_variance.pool_many(variances, dfs)
    alone = [run_variance.pool(zip(each.tolist(), dfs.tolist(), strict=True)) for each in variances]
    assert [one.df for one in alone] == df[:, 0].tolist()
    assert [one.value for one in alone] == pytest.approx(values[:, 0].tolist())
    assert any(one.noisy for one in alone)
    assert any(len(one.noisy) > 1 for one in alone)


@pytest.mark.filterwarnings("error")
def test_a_residual_that_rounding_left_below_zero_is_none() -> None:
    exact = Design((3, 3), (1e-4, 1e-4), (0.0, 0.0), 0.01, 100, share=0.9)
    below = replace(exact, residuals=(-1e-18, -1e-18))
    assert sensitivity(below, ALPHA).difference == pytest.approx(sensitivity(exact, ALPHA).difference, rel=1e-6)
