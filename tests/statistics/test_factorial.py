import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lorafile.statistics.crossed import Outcomes, combination, contrast, pool
from lorafile.statistics.factorial import Cells, f_test, interaction
from lorafile.statistics.probabilities import interval


def made(effect: np.ndarray, runs: int, examples: int, seed: int, sd: float = 0.02) -> Cells:
    """Return cells whose true means are `effect`, seeds and examples both random."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(0, 0.2, examples)
    table = []
    for row in effect:
        cells = []
        for value in row:
            own = draw.normal(0, 0.05, examples)  # what the examples make of this very configuration
            noise = draw.normal(0, 0.1, (runs, examples)) + draw.normal(0, sd, (runs, 1))
            cells.append(Outcomes(value + hard + own + noise))
        table.append(cells)
    return Cells(table, pool(cell for row in table for cell in row))


EFFECT = np.array([[0.50, 0.60, 0.70], [0.52, 0.70, 0.95]])


def test_f_of_no_interaction_is_that_of_the_analysis_of_variance() -> None:
    cells = made(EFFECT, 3, 40, 1)
    uneven = [list(row) for row in cells.table]
    uneven[1][2] = Outcomes(uneven[1][2].values[:2])  # one run is missing
    cells = Cells(uneven, pool(cell for row in uneven for cell in row))
    rows = [
        {"a": f"a{i}", "b": f"b{j}", "y": y} for i, row in enumerate(uneven) for j, c in enumerate(row) for y in c.means
    ]
    frame = pd.DataFrame(rows)
    table = anova_lm(ols("y ~ C(a) + C(b)", frame).fit(), ols("y ~ C(a) * C(b)", frame).fit())
    found = f_test(cells)
    assert found.statistic == pytest.approx(table["F"].iloc[1])
    assert found.p == pytest.approx(table["Pr(>F)"].iloc[1])
    assert (found.df, found.within) == (2, 11)


def test_a_product_contrast_over_the_runs_alone_is_the_t_test_of_the_linear_model() -> None:
    # every example alike: nothing but runs varies
    draw = np.random.default_rng(2)
    means = EFFECT[:, [0, 2], None] + draw.permuted(np.tile(draw.normal(0, 0.03, 4), (2, 2, 1)), axis=2)
    table = [[Outcomes(np.repeat(cell[:, None], 20, axis=1)) for cell in row] for row in means]
    cells = Cells(table, pool(cell for row in table for cell in row))
    frame = pd.DataFrame({"a": np.repeat([0, 0, 1, 1], 4), "b": np.repeat([0, 1, 0, 1], 4), "y": means.ravel()})
    fit = ols("y ~ C(a) * C(b)", frame).fit()
    found = interaction(cells)
    name = "C(a)[T.1]:C(b)[T.1]"
    assert found.contrasts == 1
    assert found.estimate.difference == pytest.approx(fit.params[name])
    assert found.estimate.error == pytest.approx(fit.bse[name])
    assert found.p == pytest.approx(fit.pvalues[name])
    assert interval(found.estimate) == pytest.approx(tuple(fit.conf_int().loc[name]))


def test_over_the_examples_alone_an_effect_is_a_paired_t_test() -> None:
    draw = np.random.default_rng(3)
    table = [[Outcomes(draw.normal(0, 1, (1, 50)), exact=True) for _ in range(3)] for _ in range(2)]
    cells = Cells(table, pool(cell for row in table for cell in row))
    high, low = (np.mean([cell.values[0] for cell in row], axis=0) for row in (table[1], table[0]))
    known = stats.ttest_rel(high, low)
    found = cells.main(1, 0)
    assert found.difference / found.error == pytest.approx(known.statistic)
    assert found.df == pytest.approx(49)


def test_a_difference_is_the_combination_of_one_and_minus_one() -> None:
    cells = made(EFFECT, 3, 30, 4)
    one, other, third = cells.table[0]
    assert combination([one, other, third], [1, -1, 0], cells.pooled) == contrast(one, other, cells.pooled)
    assert cells.turned().simple(1, 0, 0) == contrast(other, one, cells.pooled)


def test_the_cell_that_does_not_add_up_is_found() -> None:
    found = interaction(made(EFFECT, 3, 200, 5))
    assert (found.row, found.column) == (1, 2)
    assert found.p < 0.001
    low, high = interval(found.estimate, 0.05 / found.contrasts)
    assert low < 0.23 < high


def test_without_an_interaction_one_is_seen_rarely() -> None:
    flat = np.array([[0.5, 0.6, 0.7], [0.6, 0.7, 0.8], [0.7, 0.8, 0.9]])
    false = sum(interaction(made(flat, 3, 60, seed)).p < 0.05 for seed in range(200))
    assert false <= 18  # 10 are expected at most; more than 18 come in less than one of 100 such tests
