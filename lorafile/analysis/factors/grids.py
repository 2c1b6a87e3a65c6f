"""Which settings were crossed: two factors of one sweep, with a configuration for (nearly) every pair of values."""

from dataclasses import dataclass
from itertools import permutations

from lorafile.analysis.common.factors import factors, setting_labels, setting_values, sweeps
from lorafile.analysis.factors.eligible import follows, plain_numbers
from lorafile.results.results import Results

RATE, RANK = "train.learning_rate", "lora.r"
_NEARLY = 0.75  # the share of a grid's pairs that are declared, from which on it is a grid with gaps


@dataclass(frozen=True)
class Grid:
    """Two factors crossed, the others of the sweep held fixed.

    :ivar rows: the values of `factor` as labels, numbers ascending; `columns`: those of `by`
    :ivar ordered: whether the rows' values are numbers, and whether the columns' are
    :ivar cells: (row, column) -> configuration
    :ivar rest: the sweep's other settings, as one label; `tied`: settings that change together with a factor
    """

    sweep: str
    factor: str
    by: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    ordered: tuple[bool, bool]
    cells: dict[tuple[int, int], str]
    rest: str
    tied: tuple[str, ...]


def grids(results: Results, factor: str | None = None, by: str | None = None) -> list[Grid]:
    """Return the grids of every sweep; with none declared, those of sweeps over exactly two free settings."""
    found = []
    for sweep, members in sweeps(results).items():
        for one, other in _pairs(factors(results, list(members)), factor, by):
            made = _grids(results, sweep, list(members), one, other)
            found += made if factor or len(made) == 1 else []
    return found


def _pairs(varied: list[str], factor: str | None, by: str | None) -> list[tuple[str, str]]:
    """Return (rows, columns); undeclared, the learning rate makes the columns, else the rank."""
    order = sorted(varied, key=lambda name: (name == RATE, name == RANK))  # stable: else as in the spec
    pairs = [pair for pair in permutations(order, 2) if factor == pair[0] and by in (None, pair[1])]
    return pairs if factor else [(one, other) for at, one in enumerate(order) for other in order[at + 1 :]]


def _grids(results: Results, sweep: str, members: list[str], factor: str, by: str) -> list[Grid]:
    """Return a grid for each combination of the sweep's other settings."""
    varied = factors(results, members)
    labels = {name: setting_labels(results, name, members) for name in varied}
    both = [name for name in members if name in labels[factor] and name in labels[by]]
    held = {name: {key: found[key] for key in both if key in found} for name, found in labels.items()}
    tied = [name for name in varied if name not in (factor, by) and _tied(held[name], held[factor], held[by])]
    if follows(held[factor], held[by]) or any(varied.index(name) < varied.index(factor) for name in tied):
        return []  # what is tied is told once, under the setting that comes first
    free = [name for name in varied if name not in (factor, by, *tied)]
    groups: dict[str, list[str]] = {}
    for name in both:
        rest = ", ".join(f"{key}={held[key].get(name, '–')}" for key in free)
        groups.setdefault(rest, []).append(name)
    made = [_grid(results, sweep, (factor, by), group, rest, tuple(tied)) for rest, group in groups.items()]
    return [grid for grid in made if grid is not None]


def _tied(other: dict[str, str], one: dict[str, str], two: dict[str, str]) -> bool:
    return follows(other, one) or follows(other, two)


def _grid(
    results: Results, sweep: str, pair: tuple[str, str], members: list[str], rest: str, tied: tuple[str, ...]
) -> Grid | None:
    """Return the grid of some configurations, None where they are none."""
    (rows, places), (columns, across) = (_values(results, factor, members) for factor in pair)
    cells: dict[tuple[int, int], str] = {}
    for name in members:
        cells.setdefault((rows.index(places[name]), columns.index(across[name])), name)
    size = len(rows) * len(columns)
    if min(len(rows), len(columns)) < 2 or len(cells) < _NEARLY * size:
        return None
    ordered = tuple(bool(plain_numbers(setting_values(results, factor, members))) for factor in pair)
    return Grid(sweep, *pair, tuple(rows), tuple(columns), (ordered[0], ordered[1]), cells, rest, tied)


def _values(results: Results, factor: str, members: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return (the values as labels, numbers ascending; configuration -> its value)."""
    labels = setting_labels(results, factor, members)
    numbers = plain_numbers(setting_values(results, factor, members))
    order = sorted(members, key=lambda name: numbers[name]) if numbers else members
    return list(dict.fromkeys(labels[name] for name in order)), labels
