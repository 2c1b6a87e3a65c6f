"""Examples that belong together: the variance that is robust against clusters."""

import numpy as np
import pytest
import statsmodels.api as sm

from lorafile.statistics.crossed import Outcomes, contrast, pool

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
