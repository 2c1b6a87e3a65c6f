"""Which settings can be followed: a factor that varies within one sweep while the others can be held fixed."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations
from numbers import Real
from typing import Any

from lorafile.analysis.common.factors import equal_settings, factors, setting_labels, setting_values, sweeps
from lorafile.analysis.common.format import amount
from lorafile.analysis.common.scores import averages, best
from lorafile.results.results import Results

PARAMETERS = "trainable_parameters"
RATE, RANK = "train.learning_rate", "lora.r"
_NEARLY = 0.75  # the share of a grid's pairs that are declared, from which on it is a grid with gaps


@dataclass(frozen=True)
class Trend:
    """One factor within one sweep.

    :ivar values: configuration -> its value of the factor as a label, in the spec's order, numbers ascending
    :ivar numbers: configuration -> its value, where the factor is a number everywhere
    :ivar series: configuration -> the other settings that vary in the sweep, as one label; empty where none does
    :ivar tied: settings that change together with the factor
    :ivar added: configuration of another sweep -> why it is here
    """

    sweep: str
    factor: str
    values: dict[str, str]
    numbers: dict[str, float]
    series: dict[str, str]
    tied: tuple[str, ...]
    added: dict[str, str]


def by_parameters(results: Results) -> list[Trend]:
    """Return every sweep along the trainable parameters of its configurations, where these differ."""
    counts = averages(results, PARAMETERS)
    along = []
    for sweep, members in sweeps(results).items():
        known = [name for name in members if counts.get(name)]
        varied = {factor: setting_labels(results, factor, known) for factor in factors(results, known)}
        alike = [pair for pair in combinations(known, 2) if counts[pair[0]] == counts[pair[1]]]
        # what differs between configurations of the same size is no matter of size: it is held fixed
        free = {
            key: labels
            for key, labels in varied.items()
            if any(labels.get(one) != labels.get(other) for one, other in alike)
        }
        series = _repeated({name: _fixed(free, name) for name in known})
        numbers = {name: counts[name] for name in sorted(series, key=counts.__getitem__)}
        if len(set(numbers.values())) > 1:
            values = {name: amount("count", count) for name, count in numbers.items()}
            tied = tuple(key for key in varied if key not in free)
            ordered = {name: series[name] for name in numbers}
            along.append(Trend(sweep, PARAMETERS, values, numbers, ordered, tied, {}))
    return along


def _fixed(others: dict[str, dict[str, str]], name: str) -> str:
    """Return the settings that are held fixed with a configuration's values, as one label."""
    return ", ".join(f"{key}={labels.get(name, '–')}" for key, labels in others.items())


def _repeated(series: dict[str, str]) -> dict[str, str]:
    """Return the configurations that have company in their series."""
    groups = Counter(series.values())
    return {name: label for name, label in series.items() if groups[label] > 1}


def trends(results: Results) -> list[Trend]:
    """Return every factor that varies within a sweep while the sweep's other factors can be held fixed."""
    along = []
    for sweep, members in sweeps(results).items():
        varied = factors(results, list(members))
        along += [_trend(results, sweep, factor, varied, members) for factor in varied]
    return [trend for trend in along if trend is not None and len(set(trend.values.values())) > 1]


def _trend(results: Results, sweep: str, factor: str, varied: list[str], members: dict[str, str]) -> Trend | None:
    values = _labels(results, factor, members)
    if factor == "method":
        added = _chosen_lora(results, values)
        values |= dict.fromkeys(added, "best lora" if "lora" in values.values() else "lora")
        return Trend(sweep, factor, values, {}, dict.fromkeys(values, ""), (), added)
    others = {other: setting_labels(results, other, list(values)) for other in varied if other != factor}
    tied = tuple(other for other, labels in others.items() if follows(labels, values))
    free = {other: labels for other, labels in others.items() if other not in tied}
    first = [other for other in varied if other in (factor, *tied)]
    if first[0] != factor:
        return None  # what is tied is stated once, under the setting that comes first
    added = {} if free or tied else _neighbours(results, factor, values)
    values |= setting_labels(results, factor, list(added))
    series = _repeated({name: _fixed(free, name) for name in values})
    kept = list(series)
    numbers = plain_numbers(setting_values(results, factor, kept))
    places = [plain_numbers(setting_values(results, other, kept)) for other in free]
    if numbers:
        kept.sort(key=lambda name: (numbers[name], *(place.get(name, 0.0) for place in places)))
    values, series = ({name: labels[name] for name in kept} for labels in (values, series))
    return Trend(sweep, factor, values, numbers, series, tied, added)


def _neighbours(results: Results, factor: str, values: dict[str, str]) -> dict[str, str]:
    """Return configurations of other sweeps that differ from this sweep's in the factor only, at values it lacks."""
    methods = results.methods
    others = list(equal_settings(results, factor).values())
    settings = {tuple(labels.get(name) for labels in others) for name in values}
    outside = setting_labels(results, factor, [name for name in methods if name not in values])
    taken, of_sweep = set(values.values()), {methods[name] for name in values}
    added: dict[str, str] = {}
    for name, value in outside.items():
        same = methods[name] in of_sweep and tuple(labels.get(name) for labels in others) in settings
        if same and value not in taken:
            taken.add(value)
            added[name] = f"{value} is {name}, which differs from this sweep in {factor} only."
    return added


def _labels(results: Results, factor: str, members: dict[str, str]) -> dict[str, str]:
    """Return configuration -> its value of the factor, in the spec's own word (`attention`) where its name has one."""
    labels = setting_labels(results, factor, list(members))
    start = f"{factor.rpartition('.')[2]}="
    for name, short in members.items():
        if name in labels and short.startswith(start) and "," not in short:
            labels[name] = short.removeprefix(start)
    return labels if len(set(labels.values())) == len(labels) else setting_labels(results, factor, list(members))


def _chosen_lora(results: Results, values: dict[str, str]) -> dict[str, str]:
    """Return the LoRA configuration that is best on validation, where it is not in the sweep already."""
    chosen = best(results, [name for name, method in results.methods.items() if method == "lora"])
    if chosen is None or chosen in values:
        return {}
    label = "best lora" if "lora" in values.values() else "lora"
    return {chosen: f"{label} is {chosen}, the LoRA configuration with the best mean on validation."}


def follows(other: dict[str, str], values: dict[str, str]) -> bool:
    """Return whether each value of a factor comes with one value of the other setting, and the reverse."""
    pairs = {(values[name], label) for name, label in other.items()}
    return len(pairs) == len({left for left, _ in pairs}) == len({right for _, right in pairs})


def plain_numbers(values: dict[str, Any]) -> dict[str, float]:
    """Return values as numbers; nothing where one of them is none."""
    plain = all(isinstance(value, Real) and not isinstance(value, bool) for value in values.values())
    return {name: float(value) for name, value in values.items()} if plain else {}


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
    every = []
    for sweep, members in sweeps(results).items():
        for rows, columns in _pairs(factors(results, list(members)), factor, by):
            of_sweep = _grids(results, sweep, list(members), rows, columns)
            every += of_sweep if factor or len(of_sweep) == 1 else []
    return every


def _pairs(varied: list[str], factor: str | None, by: str | None) -> list[tuple[str, str]]:
    """Return (rows, columns); undeclared, the learning rate makes the columns, else the rank."""
    order = sorted(varied, key=lambda name: (name == RATE, name == RANK))  # stable: else as in the spec
    if not factor:
        return list(combinations(order, 2))
    return [pair for pair in permutations(order, 2) if factor == pair[0] and by in (None, pair[1])]


def _grids(results: Results, sweep: str, members: list[str], factor: str, by: str) -> list[Grid]:
    """Return a grid for each combination of the sweep's other settings."""
    varied = factors(results, members)
    labels = {name: setting_labels(results, name, members) for name in varied}
    both = [name for name in members if name in labels[factor] and name in labels[by]]
    of_both = {key: {name: values[name] for name in both if name in values} for key, values in labels.items()}
    rows, columns = of_both.pop(factor), of_both.pop(by)
    tied = tuple(key for key, values in of_both.items() if follows(values, rows) or follows(values, columns))
    if follows(rows, columns) or any(varied.index(name) < varied.index(factor) for name in tied):
        return []  # what is tied is stated once, under the setting that comes first
    free = {key: values for key, values in of_both.items() if key not in tied}
    groups: dict[str, list[str]] = {}
    for name in both:
        groups.setdefault(_fixed(free, name), []).append(name)
    crossed = [_grid(results, sweep, (factor, by), group, rest, tied) for rest, group in groups.items()]
    return [grid for grid in crossed if grid is not None]


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


@lru_cache(maxsize=8)
def families(results: Results) -> int:
    """Return how many families of tests trends and effects may put on a page: one for each series and each grid."""
    declared = any(table.factor == PARAMETERS for table in results.declared)
    along = trends(results) + (by_parameters(results) if declared else [])
    asked = [table for table in results.declared if table.kind == "effects"]
    named = [(table.factor, table.by) if table.factor else (table.by, None) for table in asked] or [(None, None)]
    every = [grid for pair in dict.fromkeys(named) for grid in grids(results, *pair)]
    return sum(len(set(trend.series.values())) for trend in along) + len(every)
