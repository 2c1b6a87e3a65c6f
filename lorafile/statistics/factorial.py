"""Two factors that were crossed: what one does at each value of the other, on average, and whether that differs.

Every effect is a weighted sum of the cells' figures, so that seeds and examples enter as for any difference
(`crossed.combination`). Whether the effects differ is asked of the product contrasts of each cell with the first row
and the first column; there are (rows − 1)(columns − 1), all zero where and only where nothing interacts.
They are tested together by Holm (1979), with simultaneous intervals by Bonferroni (product contrasts: Gabriel, Putter
and Wax, 1973, "Simultaneous confidence intervals for product-type interaction contrasts", JRSS B 35).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isnan, nan

import numpy as np
from scipy import special

from lorafile.statistics.crossed import Estimate, Outcomes, combination, contrast
from lorafile.statistics.probabilities import equivalence, holm, interval, two_sided
from lorafile.statistics.run_variance import RunVariance


@dataclass(frozen=True)
class Cells:
    """The cells of two crossed factors, all of them known, and the run variance that they share.

    :ivar table: rows of the first factor's values, each with a cell for every value of the second
    """

    table: Sequence[Sequence[Outcomes]]
    pooled: RunVariance

    @property
    def shape(self) -> tuple[int, int]:
        """How many values each factor has."""
        return len(self.table), len(self.table[0])

    def simple(self, high: int, low: int, column: int) -> Estimate:
        """Return what going from one row to another does in one column."""
        return contrast(self.table[high][column], self.table[low][column], self.pooled)

    def main(self, high: int, low: int) -> Estimate:
        """Return what going from one row to another does on average over the columns, each counting the same."""
        share = 1 / self.shape[1]
        weights = [share] * self.shape[1] + [-share] * self.shape[1]
        return combination([*self.table[high], *self.table[low]], weights, self.pooled)

    def product(self, row: int, column: int, of_row: int = 0, of_column: int = 0) -> Estimate:
        """Return by how much a row's effect, against another row, is larger in a column than in another column."""
        first, second = self.table[row], self.table[of_row]
        sides = [first[column], second[column], first[of_column], second[of_column]]
        return combination(sides, [1.0, -1.0, -1.0, 1.0], self.pooled)

    def turned(self) -> "Cells":
        """Return the same cells with rows and columns exchanged."""
        return Cells(list(zip(*self.table, strict=True)), self.pooled)


@dataclass(frozen=True)
class Interaction:
    """Whether the effect of one factor depends on the other.

    :ivar row: with `column`, where the largest standardized product contrast is; `estimate`: that contrast
    :ivar p: its probability, adjusted over all product contrasts, which is that of no interaction at all
    :ivar contrasts: how many were tested
    """

    row: int
    column: int
    estimate: Estimate
    p: float
    contrasts: int


def interaction(cells: Cells) -> Interaction:
    """Return the largest standardized product contrast, with the probability of one as large were there none.

    Where nothing can be said (one run in each cell), the probability is NaN, and the contrast the largest.
    """
    rows, columns = cells.shape
    products = {(i, j): cells.product(i, j) for i in range(1, rows) for j in range(1, columns)}
    adjusted = dict(zip(products, holm([two_sided(product) for product in products.values()]), strict=True))

    def clearest(place: tuple[int, int]) -> tuple[float, float]:
        """Smallest probability first, then the largest contrast: in standard errors where there are any."""
        product, p = products[place], adjusted[place]
        size = abs(product.difference) / (product.error if product.error > 0 else 1.0)
        return 0 if isnan(p) else -p, size

    place = max(products, key=clearest)
    return Interaction(*place, products[place], adjusted[place], len(products))


@dataclass(frozen=True)
class FTest:
    """An F statistic with its degrees of freedom and its probability."""

    statistic: float
    df: int
    within: int
    p: float


def f_test(cells: Cells) -> FTest:
    """Return the F test of no interaction among the runs' figures, on these very examples.

    The additive model by least squares against the cells' means (the analysis of variance of an unbalanced table);
    the denominator is the run variance of all of the study. NaN where there is none.
    """
    rows, columns = cells.shape
    places = [(i, j) for i in range(rows) for j in range(columns) for _ in range(cells.table[i][j].runs)]
    design = np.array(
        [[1.0, *(i == k for k in range(1, rows)), *(j == k for k in range(1, columns))] for i, j in places]
    )
    figures = np.concatenate([cell.means for row in cells.table for cell in row])
    additive = design @ np.linalg.lstsq(design, figures, rcond=None)[0]
    within = np.concatenate([np.full(cell.runs, cell.mean) for row in cells.table for cell in row])
    df, between = (rows - 1) * (columns - 1), float(((within - additive) ** 2).sum())
    if not cells.pooled.df or not cells.pooled.value > 0:
        return FTest(nan, df, cells.pooled.df, nan)
    statistic = between / df / cells.pooled.value
    return FTest(statistic, df, cells.pooled.df, float(special.fdtrc(df, cells.pooled.df, statistic)))


@dataclass(frozen=True)
class FactorStep:
    """What going from one value to another does.

    :ivar low: the value's place in the order; `high`: that of the larger one
    :ivar p: its probability, adjusted by Holm over all steps, the one from end to end among them
    :ivar interval: the one that holds for all of them at once (Bonferroni)
    """

    low: int
    high: int
    estimate: Estimate
    p: float
    interval: tuple[float, float]


def steps(members: Sequence[Outcomes], pooled: RunVariance, alpha: float, reach: float = inf) -> list[FactorStep]:
    """Return the steps between neighbours, and last the one from end to end; of two members there is one step.

    :param reach: the largest difference that the metric allows
    """
    ends = list(pairwise(range(len(members))))
    ends += [(0, len(members) - 1)] if len(members) > 2 else []
    differences = [contrast(members[high], members[low], pooled) for low, high in ends]
    adjusted = holm([two_sided(difference) for difference in differences])
    return [
        FactorStep(low, high, difference, p, interval(difference, alpha / len(differences), reach))
        for (low, high), difference, p in zip(ends, differences, adjusted, strict=True)
    ]


def saturated(members: Sequence[Outcomes], pooled: RunVariance, margin: float, alpha: float) -> tuple[int, float]:
    """Return from which place on every larger value is equivalent to that one, and the largest probability behind it.

    The last place but one is tried first, then the one below it, until one fails: in a fixed order each may be tested
    at alpha (Maurer, Hothorn and Lehmacher, 1995), and at each place all of the larger values have to pass (the
    intersection-union test; Berger, 1982). The last place where none does: nothing was shown.
    """
    reached, largest = len(members) - 1, nan
    for place in reversed(range(len(members) - 1)):
        p = max(equivalence(contrast(larger, members[place], pooled), margin) for larger in members[place + 1 :])
        if not p <= alpha:
            break
        reached, largest = place, p if isnan(largest) else max(p, largest)
    return reached, largest
