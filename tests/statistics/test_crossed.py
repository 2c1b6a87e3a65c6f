"""Estimates and probabilities against scipy, statsmodels and sums done by hand."""

from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import contingency_tables, multitest, weightstats

from lorafile.statistics.crossed import Estimate, Outcomes, contrast, linear, pool
from lorafile.statistics.probabilities import (
    equivalence,
    holm,
    interval,
    mcnemar,
    non_inferiority,
    two_sided,
)
from lorafile.statistics.run_variance import RunVariance

NOISE = np.random.default_rng(4)
SEEDED = Outcomes(NOISE.normal(0, 1, (4, 30)) + NOISE.normal(0, 1, 30) + NOISE.normal(0, 0.4, (4, 1)))
FIRST = NOISE.normal(0.71, 0.02, 5)
SECOND = FIRST[::-1] - 0.015  # of one spread, lest one of the two has to stand by itself
RIGHT, WRONG = NOISE.normal(0.2, 1, 40), NOISE.normal(0, 1, 40)


def same_examples(figures: np.ndarray) -> Outcomes:
    """Runs that make the same of every example: all that varies is the run."""
    return Outcomes(np.repeat(figures[:, None], 50, axis=1))


def only_runs() -> Estimate:
    one, other = same_examples(FIRST), same_examples(SECOND)
    return contrast(one, other, pool([one, other]))


def only_examples() -> Estimate:
    sides = [Outcomes(values[None], exact=True) for values in (RIGHT, WRONG)]
    return contrast(*sides, pool(sides))


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance() -> None:
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rows = [(seed, example, value) for (seed, example), value in np.ndenumerate(SEEDED.values)]
    frame = pd.DataFrame(rows, columns=["seed", "example", "y"])
    table = anova_lm(ols("y ~ C(seed) + C(example)", frame).fit())
    assert SEEDED.run_variance * 30 == pytest.approx(table.loc["C(seed)", "mean_sq"])
    assert SEEDED.residual == pytest.approx(table.loc["Residual", "mean_sq"])


def test_a_contrast_by_hand() -> None:
    """Residual squares are 2 and 2/3, run variances 2 and 8/9 (pooled 13/9), the paired examples 1, 1 and 4."""
    one, other = Outcomes(np.array([[1.0, 2, 3], [3, 2, 7]])), Outcomes(np.array([[0.0, 1, 0], [2, 1, 2]]))
    found = contrast(one, other, pool([one, other]))
    assert found.difference == pytest.approx(2)
    assert found.residual == pytest.approx((2, 2 / 3))
    assert found.run_variances == pytest.approx((2, 13 / 9)), "each its own, and no less than the pooled one"
    assert found.runs == pytest.approx(1 + 13 / 18)
    assert found.examples == pytest.approx(1 - 4 / 9)
    assert found.runs_df == pytest.approx((1 + 13 / 18) ** 2 / (1 + (13 / 18) ** 2))
    likely = found.runs * (1 + 4 / found.runs_df)
    below = likely**2 / found.runs_df + (1 + 1 / 9 + 1 / 81) / 2
    assert found.df == pytest.approx((likely + 5 / 9) ** 2 / below)


def test_the_variances_are_those_that_the_data_were_made_with() -> None:
    """25 examples, 2 × 0.5² / 25 of their own; of each run 0.3², with 1 / 25 of residual, in 40 seeds of each."""
    noise = np.random.default_rng(9)
    found = []
    for _ in range(2000):
        examples, own = noise.normal(0, 2, 25), noise.normal(0, 0.5, (2, 1, 25))
        values = examples + own + noise.normal(0, 0.3, (2, 40, 1)) + noise.normal(0, 1, (2, 40, 25))
        sides = [Outcomes(side) for side in values]
        one = contrast(*sides, pool(sides))
        found.append((one.difference, one.runs, one.examples))
    differences, runs, examples = np.array(found).T
    expected = 2 * (0.09 + 1 / 25) / 40
    assert expected < runs.mean() < 1.12 * expected, "never less than the pooled one, so more on average"
    assert examples.mean() == pytest.approx(2 * 0.25 / 25, rel=0.15)
    assert differences.var() == pytest.approx(expected + 2 * 0.25 / 25, rel=0.1)


def test_two_runs_of_each_of_two_configurations_call_no_more_real_than_they_may() -> None:
    """Where Satterthwaite's own degrees of freedom would call more than 7 % real: runs bring 4/5 of the variance."""
    noise, found = np.random.default_rng(12), []
    for _ in range(4000):
        values = noise.normal(0, 1, (2, 1, 40)) + noise.normal(0, 0.45, (2, 2, 1)) + noise.normal(0, 0.1, (2, 2, 40))
        sides = [Outcomes(side) for side in values]
        found.append(two_sided(contrast(*sides, pool(sides))) <= 0.05)
    assert np.mean(found) < 0.06


def test_without_seeds_it_is_the_paired_t_test_over_examples() -> None:
    expected = stats.ttest_rel(RIGHT, WRONG)
    assert two_sided(only_examples()) == pytest.approx(expected.pvalue)
    assert only_examples().df == pytest.approx(39)
    assert interval(only_examples(), 0.1) == pytest.approx(expected.confidence_interval(0.9))


def test_without_examples_it_is_the_t_test_over_runs() -> None:
    expected = stats.ttest_ind(FIRST, SECOND)
    assert two_sided(only_runs()) == pytest.approx(expected.pvalue)
    assert interval(only_runs()) == pytest.approx(expected.confidence_interval(0.95))


def test_an_exact_side_has_no_run_variance() -> None:
    base = Outcomes(np.full((1, 50), 0.7), exact=True)
    runs = same_examples(FIRST)
    assert two_sided(contrast(runs, base, pool([runs, base]))) == pytest.approx(stats.ttest_1samp(FIRST, 0.7).pvalue)


def test_one_seed_says_something_of_these_runs_alone() -> None:
    alone = Outcomes(SEEDED.values[:1])
    assert contrast(alone, SEEDED, pool([alone, SEEDED])).on_runs_only
    assert isnan(two_sided(contrast(alone, alone, pool([alone]))))


def test_identical_configurations_without_noise_do_not_differ() -> None:
    same = Outcomes(np.full((3, 20), 0.1))
    found = contrast(same, same, pool([same, same]))
    assert (found.difference, found.error, two_sided(found)) == (0, 0, 1)


def test_examples_that_are_not_the_same_ones_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="30 and 29 examples cannot be paired"):
        contrast(SEEDED, Outcomes(SEEDED.values[:, 1:]), pool([SEEDED]))


def test_the_pooled_run_variance_weighs_by_degrees_of_freedom() -> None:
    found = pool([same_examples(FIRST), same_examples(SECOND[:3]), Outcomes(np.zeros((1, 50)), exact=True)])
    assert found.value == pytest.approx((4 * FIRST.var(ddof=1) + 2 * SECOND[:3].var(ddof=1)) / 6)
    assert found.df == 6
    assert isnan(pool([Outcomes(np.zeros((1, 50)))]).value)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_holm_is_statsmodels(size: int) -> None:
    probabilities = [float(p) for p in NOISE.random(size) ** 3]
    assert holm(probabilities) == pytest.approx(multitest.multipletests(probabilities, method="holm")[1])


def test_what_is_not_known_is_no_member_of_the_family() -> None:
    found = holm([0.01, nan, 0.04])
    assert found[::2] == pytest.approx([0.02, 0.04])
    assert isnan(found[1])


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.08])
def test_equivalence_is_tost_of_statsmodels(margin: float) -> None:
    assert equivalence(only_runs(), margin) == pytest.approx(weightstats.ttost_ind(FIRST, SECOND, -margin, margin)[0])
    paired = weightstats.ttost_paired(RIGHT, WRONG, -10 * margin, 10 * margin)[0]
    assert equivalence(only_examples(), 10 * margin) == pytest.approx(paired)


@pytest.mark.parametrize(("more", "sign", "side"), [(True, 1, "greater"), (False, -1, "less")])
def test_non_inferiority_is_a_one_sided_test_against_the_margin(more: bool, sign: int, side: str) -> None:
    expected = stats.ttest_ind(FIRST + sign * 0.02, SECOND, alternative=side).pvalue
    assert non_inferiority(only_runs(), 0.02, more) == pytest.approx(expected)


def test_infinite_degrees_of_freedom_are_the_normal_distribution() -> None:
    known = RunVariance(0.045, 1000)
    normal = Estimate(
        0.3,
        0.01,
        0.0,
        inf,
        inf,
        (9, 9),
        50,
        (0.0, 0.0),
        (False, False),
        (1.0, 1.0),
        (0.0, 0.0),
        (True, True),
        (1.0, 1.0),
        known,
    )
    assert two_sided(normal) == pytest.approx(2 * stats.norm.sf(3))
    assert interval(normal) == pytest.approx(stats.norm.interval(0.95, 0.3, 0.1))


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_is_statsmodels(seed: int) -> None:
    noise = np.random.default_rng(seed)
    one, other = noise.integers(0, 2, 30), noise.integers(0, 2, 30)
    table = [[sum((one == a) & (other == b)) for b in (0, 1)] for a in (0, 1)]
    assert mcnemar(one, other) == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)


def test_two_runs_that_agree_say_nothing() -> None:
    assert mcnemar(np.ones(5), np.ones(5)) == 1


def test_linear_outcomes_have_the_weighted_mean_and_its_jackknife_variance() -> None:
    noise = np.random.default_rng(2)
    outcomes, weights = noise.gamma(2, 1, 400), noise.integers(1, 60, 400)
    ratio = lambda keep: np.average(outcomes[keep], weights=weights[keep])  # noqa: E731
    every = np.arange(400)
    without = np.array([ratio(np.delete(every, at)) for at in every])
    found = linear(outcomes, weights)
    assert found.mean() == pytest.approx(ratio(every))
    assert found == pytest.approx(400 * ratio(every) - 399 * without, abs=0.03), "up to 1 / n"
    assert found.var(ddof=1) / 400 == pytest.approx(399 / 400 * ((without - without.mean()) ** 2).sum(), rel=0.02)


def test_equal_weights_change_nothing() -> None:
    assert linear(RIGHT) is RIGHT
    assert linear(RIGHT, np.full(40, 7)) == pytest.approx(RIGHT)


def compared(one: np.ndarray, other: np.ndarray) -> Estimate:
    sides = Outcomes(one), Outcomes(other)
    return contrast(*sides, pool(sides))


values = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).normal(0, 1, (2, 3, 12)) + np.random.default_rng(seed).normal(0, 1, 12)
)


@given(values, st.floats(-5, 5), st.floats(0.01, 100))
def test_another_unit_and_another_origin_change_no_probability(pair: np.ndarray, shift: float, scale: float) -> None:
    before, after = compared(*pair), compared(*(scale * (pair + shift)))
    assert after.difference == pytest.approx(scale * before.difference, abs=1e-9 * scale)
    assert after.error == pytest.approx(scale * before.error)
    assert two_sided(after) == pytest.approx(two_sided(before), rel=1e-6)
    assert equivalence(after, 0.3 * scale) == pytest.approx(equivalence(before, 0.3), rel=1e-6, abs=1e-12)


@given(values)
def test_the_other_way_round_it_is_the_same_with_the_other_sign(pair: np.ndarray) -> None:
    there, back = compared(*pair), compared(*pair[::-1])
    assert back.difference == pytest.approx(-there.difference)
    assert (back.error, back.df) == pytest.approx((there.error, there.df))
    assert interval(back) == pytest.approx(tuple(-bound for bound in interval(there)[::-1]))
    assert non_inferiority(back, 0.2, more=True) == pytest.approx(non_inferiority(there, 0.2, more=False))


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_examples_and_of_seeds_does_not_matter(pair: np.ndarray, random: object) -> None:
    noise = np.random.default_rng(random.randint(0, 9))  # type: ignore[attr-defined]
    shuffled = pair[:, :, noise.permutation(12)]
    again = np.stack([side[noise.permutation(3)] for side in shuffled])
    assert compared(*again).error == pytest.approx(compared(*pair).error)
    assert compared(*again).df == pytest.approx(compared(*pair).df)


def test_answers_that_are_all_right_leave_room_for_what_was_not_seen() -> None:
    """The rule of three: nothing wrong in n examples, up to three in n may be."""
    n = 200
    one, other = (Outcomes(np.ones((3, n))) for _ in range(2))
    low, high = interval(contrast(one, other, pool([one, other])))
    assert high == pytest.approx(3 / n, rel=0.02)
    assert low == -high
    assert equivalence(contrast(one, other, pool([one, other])), 0.01) > 0.05
