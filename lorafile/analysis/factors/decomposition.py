"""A grid of two settings, taken apart: the effect of one at each value of the other, on average, and their interaction.

Only rows and columns whose every cell is known are compared: a cell that lost runs to divergence shows the mean of
those that survived, and an average over it would flatter the setting that broke the others.
"""

from dataclasses import dataclass, field, replace
from math import isnan, nan

from lorafile.analysis.common.error_rate import of_exploring
from lorafile.analysis.common.scores import CENSORED, Score, outcomes, scores, split_of
from lorafile.analysis.compare.outcomes import Crossed, crossed, reach
from lorafile.analysis.factors.eligible import RATE, Grid, families
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.statistics.crossed import Estimate
from lorafile.statistics.factorial import Cells, FTest, Interaction, f_test, interaction
from lorafile.statistics.probabilities import interval

_FAMILIES = 4  # of a grid: what the rows do in each column, how far that differs, on average, and the interaction


@dataclass(frozen=True)
class Effect:
    """A difference with an interval.

    :ivar level: of that interval: such that it holds for all effects of its family at once (Bonferroni)
    :ivar reach: the largest difference that the metric allows
    """

    estimate: Estimate
    level: float
    reach: float

    @property
    def interval(self) -> tuple[float, float]:
        """The interval at its level."""
        return interval(self.estimate, self.level, self.reach)

    @property
    def clear(self) -> bool:
        """Whether it differs significantly from none."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def up(self) -> bool:
        """Whether it is positive."""
        return self.estimate.difference > 0


@dataclass(frozen=True)
class Decomposition:
    """The effects in a grid, and their interaction.

    :ivar scale: the metric that differences are of, on `split`; `more`: whether more of it is better
    :ivar scores: configuration -> its figure; `censored`: configuration -> how its lost runs ended
    :ivar rows: those that are compared, by their number in the grid; `columns` likewise; `why`: why none is
    :ivar pair: the two rows whose difference is followed over the columns (the last and the first of an ordered factor,
        else those furthest apart on average), by their number in the grid; `simple`: column -> that difference
    :ivar best: the column of the best cell; `behind`: column -> by how much that difference is larger in `best`
    :ivar average: factor -> (value, against which value, difference), between those furthest apart
    :ivar level: at which the interaction is tested
    :ivar f: on the runs' figures; None where their variances clearly differ between cells
    """

    grid: Grid
    metric: str
    scale: str
    split: str
    more: bool
    scores: dict[str, Score]
    censored: dict[str, dict[str, int]]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    why: str
    pair: tuple[int, int] = (0, 0)
    simple: dict[int, Effect] = field(default_factory=dict)
    best: int = 0
    behind: dict[int, Effect] = field(default_factory=dict)
    average: dict[str, tuple[str, str, Effect]] = field(default_factory=dict)
    interaction: Interaction | None = None
    f: FTest | None = None
    cells: Cells | None = None
    level: float = nan

    @property
    def tested(self) -> bool:
        """Whether seeds tell a difference from noise."""
        return self.interaction is not None and not isnan(self.interaction.estimate.error)


def decompose(results: Results, grid: Grid, metric: str) -> Decomposition:
    """Return a grid taken apart: on validation where one of the two is a learning rate, which is chosen there."""
    split = "validation" if RATE in (grid.factor, grid.by) else split_of(results, metric)
    every, data, ended = scores(results, f"{split}.{metric}"), crossed(results, metric, split), outcomes(results)
    of_cells = {name: every[name] for name in grid.cells.values()}
    lost = {}
    for name in of_cells:
        if words := {word: ended[name][word] for word in CENSORED if name in ended and ended[name][word]}:
            lost[name] = words
    known = {place for place, name in grid.cells.items() if of_cells[name].known and name not in lost}
    rows, columns = complete(known, len(grid.rows), len(grid.columns))
    why, more = _why(grid, data, rows, columns), more_is_better(data.scale)
    base = Decomposition(grid, metric, data.scale, split, more, of_cells, lost, rows, columns, why)
    return base if base.why else _decomposed(base, data, of_exploring(results, families(results)) / _FAMILIES)


def complete(known: set[tuple[int, int]], rows: int, columns: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return rows and columns between which every cell is known: the line with the largest share of gaps goes first."""
    kept = (list(range(rows)), list(range(columns)))
    while True:
        shares = [(sum((i, j) not in known for j in kept[1]) / max(len(kept[1]), 1), 0, i) for i in kept[0]]
        shares += [(sum((i, j) not in known for i in kept[0]) / max(len(kept[0]), 1), 1, j) for j in kept[1]]
        share, side, line = max(shares, default=(0.0, 0, 0))
        if not share:
            return tuple(kept[0]), tuple(kept[1])
        kept[side].remove(line)


def _why(grid: Grid, data: Crossed, rows: tuple[int, ...], columns: tuple[int, ...]) -> str:
    """Return why nothing can be compared; empty where it can."""
    if min(len(rows), len(columns)) < 2:
        return "fewer than two values of each setting have a result for every run"
    names = [grid.cells[i, j] for i in rows for j in columns]
    return next((f"{name} {data.why[name]}" for name in names if name in data.why), "")


def _decomposed(base: Decomposition, data: Crossed, share: float) -> Decomposition:
    """Return what is tested of a grid.

    :param share: the level of each of its families
    """
    grid, rows, columns = base.grid, base.rows, base.columns
    table = [[data.outcomes[grid.cells[i, j]] for j in columns] for i in rows]
    cells = Cells(table, data.variance)
    high, low, choices = _ends(cells, grid.ordered[0] and grid.factor != RATE)
    sign = 1 if base.more else -1
    figures = [(sign * base.scores[grid.cells[i, j]].mean, at) for at, j in enumerate(columns) for i in rows]
    best = max(figures)[1]
    of = choices * len(columns)
    most = reach(data.scale)
    others = {place: cells.product(high, best, low, at) for at, place in enumerate(columns) if at != best}
    return replace(
        base,
        pair=(rows[high], rows[low]),
        simple={place: Effect(cells.simple(high, low, at), share / of, most) for at, place in enumerate(columns)},
        best=columns[best],
        behind={
            place: Effect(product, share / max(of * (len(columns) - 1) // 2, 1), 2 * most)
            for place, product in others.items()
        },
        average={
            grid.factor: _furthest(cells, [grid.rows[i] for i in rows], share / 2, most),
            grid.by: _furthest(cells.turned(), [grid.columns[j] for j in columns], share / 2, most),
        },
        cells=cells,
        level=share,
        interaction=interaction(cells),
        f=None if data.variance.differ else f_test(cells),
    )


def _furthest(cells: Cells, labels: list[str], share: float, most: float) -> tuple[str, str, Effect]:
    """Return (the highest value, the lowest, their difference) on average."""
    high, low, choices = _ends(cells, False)
    return labels[high], labels[low], Effect(cells.main(high, low), share / choices, most)


def _ends(cells: Cells, ordered: bool) -> tuple[int, int, int]:
    """Return (a row, the one it is compared with, out of how many pairs they were picked)."""
    count = cells.shape[0]
    if ordered:
        return count - 1, 0, 1
    means = [sum(cell.mean for cell in row) for row in cells.table]
    return means.index(max(means)), means.index(min(means)), count * (count - 1) // 2
