from dataclasses import replace
from math import isnan, nan

import pytest
from scipy import stats

from lorafile.statistics.crossed import Estimate
from lorafile.statistics.deciding import decide
from lorafile.statistics.run_variance import RunVariance

ONE = Estimate(
    difference=0.0,
    runs=0.75e-4,
    examples=0.25e-4,
    df=30.0,
    runs_df=20.0,
    seeds=(3, 3),
    n=200,
    residual=(0.1, 0.1),
    exact=(False, False),
    squares=(1.0, 1.0),
    run_variances=(1.125e-4, 1.125e-4),
    borrowed=(True, True),
    ratios=(1.0, 1.0),
    pool=RunVariance(1.125e-4, 20, most=2),
)  # a standard error of 0.01


def word(difference: float, margin: float | None, more: bool = True, alpha: float = 0.05) -> str:
    [decision] = decide([replace(ONE, difference=difference)], [margin], alpha, more)
    return decision.word


@pytest.mark.parametrize(
    ("difference", "margin", "expected"),
    [
        (0.05, None, "better"),
        (-0.05, None, "worse"),
        (0.05, 0.01, "better"),
        (0.0, 0.03, "equivalent"),
        (0.03, 0.06, "equivalent"),
        (0.01, 0.02, "non-inferior"),
        (-0.01, 0.02, "inconclusive"),
        (0.01, None, "inconclusive"),
    ],
)
def test_the_word_follows_from_difference_and_margin(difference: float, margin: float | None, expected: str) -> None:
    assert word(difference, margin) == expected


def test_less_can_be_better() -> None:
    assert word(-0.05, None, more=False) == "better"
    assert word(-0.01, 0.02, more=False) == "non-inferior"


def test_a_real_but_negligible_difference_is_equivalent_and_detectable() -> None:
    [decision] = decide([replace(ONE, difference=0.03)], [0.06], 0.05, more=True)
    assert (decision.word, decision.detectable) == ("equivalent", True)


def test_each_family_is_adjusted_by_holm_and_the_simultaneous_interval_by_bonferroni() -> None:
    estimates = [replace(ONE, difference=difference) for difference in (0.025, 0.021, 0.0)]
    decisions = decide(estimates, [0.03, 0.04, 0.05], 0.05, more=True)
    raw = [2 * stats.t.sf(t, 30) for t in (2.5, 2.1, 0.0)]
    assert decisions[0].p == pytest.approx(3 * raw[0])
    assert decisions[1].p == pytest.approx(2 * raw[1])
    same = [stats.t.sf(t, 30) for t in (0.5, 1.9, 5.0)]
    assert decisions[2].p_equivalence == pytest.approx(3 * same[2])
    assert decisions[1].p_equivalence == pytest.approx(2 * same[1])
    assert decisions[0].interval == pytest.approx(
        (0.025 - stats.t.ppf(0.975, 30) * 0.01, 0.025 + stats.t.ppf(0.975, 30) * 0.01)
    )
    half = stats.t.ppf(1 - 0.05 / 6, 30) * 0.01
    assert decisions[0].simultaneous == pytest.approx((0.025 - half, 0.025 + half))


def test_without_a_standard_error_there_is_no_verdict_and_the_family_is_smaller() -> None:
    unknown = replace(ONE, runs=nan, df=nan)
    decisions = decide([unknown, replace(ONE, difference=0.05)], [0.1, None], 0.05, more=True)
    assert decisions[0].word == "none"
    assert isnan(decisions[0].p)
    assert decisions[1].p == pytest.approx(2 * stats.t.sf(5, 30))
    assert decisions[1].interval == pytest.approx(decisions[1].simultaneous)


def test_a_smaller_alpha_takes_the_verdict_back() -> None:
    assert word(0.025, None, alpha=0.05) == "better"
    assert word(0.025, None, alpha=0.01) == "inconclusive"
