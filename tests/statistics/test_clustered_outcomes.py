"""Examples that belong together: the variance that is robust against clusters."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lorafile.statistics.crossed import Outcomes, contrast, intraclass, pool

SIZES = [1, 7, 3, 3, 12, 5, 1, 8]


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clusters, and outcomes of two exact configurations whose differences are alike in a cluster."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(len(SIZES)), SIZES)
    shift = rng.normal(size=len(SIZES))[clusters]
    one, other = rng.normal(size=(2, len(clusters)))
    order = rng.permutation(len(clusters))
    return clusters[order], (one + shift)[order], other[order]


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_that_of_a_regression_with_clusters(seed: int) -> None:
    clusters, one, other = drawn(seed)
    sides = [Outcomes(values[None], exact=True).clustered(clusters) for values in (one, other)]
    estimate = contrast(*sides, pool(sides))
    theirs = sm.OLS(one - other, np.ones(len(one))).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert estimate.difference == pytest.approx(theirs.params[0])
    assert estimate.error == pytest.approx(theirs.bse[0])
    assert (estimate.n, estimate.unit, estimate.df) == (len(SIZES), "cluster", pytest.approx(len(SIZES) - 1))


def test_clusters_of_one_change_nothing() -> None:
    _, one, other = drawn(1)
    plain = [Outcomes(values[None], exact=True) for values in (one, other)]
    single = [side.clustered(np.arange(len(one))) for side in plain]
    first, second = contrast(*plain, pool(plain)), contrast(*single, pool(single))
    assert (second.difference, second.error) == (pytest.approx(first.difference), pytest.approx(first.error))


def test_the_figures_of_runs_stay_and_right_and_wrong_stay_so() -> None:
    clusters, *_ = drawn(2)
    values = np.random.default_rng(0).integers(0, 2, size=(3, len(clusters))).astype(float)
    side = Outcomes(values).clustered(clusters)
    assert side.means == pytest.approx(values.mean(axis=1))
    assert side.binary
    assert side.run_variance == pytest.approx(Outcomes(values).run_variance)


def test_the_intraclass_correlation_is_that_of_an_analysis_of_variance() -> None:
    draw = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), draw.integers(1, 9, 60))
    values = draw.normal(0, 1, 60)[clusters] + draw.normal(0, 2, len(clusters))
    frame = pd.DataFrame({"y": values, "c": clusters})
    table = anova_lm(ols("y ~ C(c)", frame).fit())
    between, within = table["mean_sq"].iloc[:2]
    sizes = frame.groupby("c").size().to_numpy()
    typical = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
    assert intraclass(values, clusters) == pytest.approx((between - within) / (between + (typical - 1) * within))
    assert np.isnan(intraclass(values[:5], np.arange(5)))


def test_answers_that_are_all_right_are_worth_as_many_independent_ones_as_clusters_let_them_be() -> None:
    clusters = np.repeat(np.arange(40), 4)
    alone, alike, unknown = (
        Outcomes(np.ones((3, 160))).clustered(clusters, correlation) for correlation in (0.0, 1.0, np.nan)
    )
    assert (alone.independent, alike.independent, unknown.independent) == (160, 40, 40)
    half = Outcomes(np.ones((3, 160))).clustered(clusters, 0.5)
    assert half.independent == pytest.approx(160 / (1 + 3 * 0.5)), "Kish's design effect"
    sides = [half, half]
    error = contrast(*sides, pool(sides)).error
    assert 1.96 * error == pytest.approx(3 / half.independent), "the rule of three"
