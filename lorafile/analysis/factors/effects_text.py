"""What a grid of two settings shows, in sentences: what was lost first, then whether one depends on the other."""

from math import isnan

from lorafile.analysis.common.format import difference, number, on, probability
from lorafile.analysis.compare.verdict_text import FEW, signed_difference, signed_interval
from lorafile.analysis.factors.decomposition import Decomposition, Effect
from lorafile.analysis.factors.eligible import RATE
from lorafile.statistics.crossed import Estimate
from lorafile.statistics.probabilities import interval
from lorafile.units import listing, plural

_MOST = 5  # columns whose effects are all stated
_WORDS = {"diverged": "diverged", "out-of-memory": "out of memory"}


def sentences(found: Decomposition) -> list[str]:
    """Return what the grid shows, censored cells first."""
    lines = [*_censored(found), *_left_out(found)]
    if found.grid.tied:
        tied = listing(found.grid.tied)
        lines.append(f"{tied} changes together with one of the two; their effects cannot be separated.")
    if found.why:
        return [*lines, f"No effects are compared: {found.why}."]
    if not found.tested:
        return [*lines, _described(found)]
    return [*lines, *_depends(found), _interaction(found), *_averages(found), *_cautions(found)]


def level(factor: str, value: str) -> str:
    """Return a factor's value as a sentence has it: `lora.r = 16`."""
    return f"{factor} = {value}"


def effect(found: Decomposition, estimate: Estimate) -> str:
    """Return a difference with its sign and unit."""
    return signed_difference(found.scale, estimate.difference)


def interval_text(found: Decomposition, one: Effect) -> str:
    """Return `+1.2 to +3.4`, or nothing where there is no interval."""
    return "" if isnan(one.interval[0]) else signed_interval(found.scale, one.interval)


def against(found: Decomposition) -> str:
    """Return the two rows that are compared: `lora.r = 64 against 4`."""
    grid, (high, low) = found.grid, found.pair
    return f"{level(grid.factor, grid.rows[high])} against {grid.rows[low]}"


def _censored(found: Decomposition) -> list[str]:
    """Return which cells lost runs to divergence or memory, column by column."""
    grid, parts = found.grid, []
    for j, column in enumerate(grid.columns):
        names = [(i, name) for (i, at), name in sorted(grid.cells.items()) if at == j and name in found.censored]
        cells = [f"{grid.rows[i]} ({_counts(found, name)})" for i, name in names]
        if cells:
            parts.append(f"at {level(grid.by, column)}: {grid.factor} {listing(cells, 12)}")
    return [f"Runs were lost {'; '.join(parts)}."] if parts else []


def _counts(found: Decomposition, name: str) -> str:
    wanted = found.scores[name].wanted
    return ", ".join(f"{count} of {wanted} {_WORDS[word]}" for word, count in found.censored[name].items())


def _left_out(found: Decomposition) -> list[str]:
    """Return which values are not compared, since some cell of theirs has no figure."""
    grid = found.grid
    rows = [value for i, value in enumerate(grid.rows) if i not in found.rows]
    columns = [value for j, value in enumerate(grid.columns) if j not in found.columns]
    parts = [level(factor, listing(gone, 12)) for factor, gone in ((grid.factor, rows), (grid.by, columns)) if gone]
    if not parts:
        return []
    return [
        f"Excluded from the following, but still in the chart: {listing(parts)}. Every value is thus compared over the "
        "same cells, none of which lost a run to divergence or lack of memory."
    ]


def _described(found: Decomposition) -> str:
    """Return the effects of a grid with one run in each cell."""
    effects = [f"{effect(found, one.estimate)} at {found.grid.columns[j]}" for j, one in found.simple.items()]
    return (
        f"{against(found)} in {on(found.scale, found.split)}: "
        f"{listing(effects, 12)}. With one seed, this describes these runs only."
    )


def _depends(found: Decomposition) -> list[str]:
    """Return what the factor does at each value of the other; of many, at the best and where it does most and least."""
    sizes = {j: abs(one.estimate.difference) for j, one in found.simple.items()}
    most, least = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    effects = []
    for j in dict.fromkeys((found.best, *([most, least] if len(sizes) > _MOST else sizes))):
        shown = f"{effect(found, found.simple[j].estimate)} ({_doubted(found, found.simple[j])})"
        note = ", where the best cell is" if j == found.best else ""
        effects.append(f"{shown} at {level(found.grid.by, found.grid.columns[j])}{note}")
    line = f"{against(found)}, {on(found.scale, found.split)}: {'; '.join(effects)}."
    return [*_only_there(found), *_turns(found), line, *_own_best(found)]


def _doubted(found: Decomposition, one: Effect) -> str:
    """Return an effect's interval, with a doubt where it is not significant."""
    return f"interval {interval_text(found, one)}{'' if one.clear else ', not distinguishable from zero'}"


def _interacts(found: Decomposition) -> bool:
    return found.interaction is not None and found.interaction.p <= found.level


def _turns(found: Decomposition) -> list[str]:
    """Return where the factor helps and where it harms, of one that clearly does both."""
    grid, (high, low) = found.grid, found.pair
    clear = {j: one.up for j, one in found.simple.items() if one.clear}
    if len(set(clear.values())) < 2:
        return []
    better, worse = (
        listing([grid.columns[j] for j, up in clear.items() if (up == found.more) == good], 12)
        for good in (True, False)
    )
    return [
        f"The effect of {grid.factor} reverses with {grid.by}: {grid.rows[high]} is better than {grid.rows[low]} at "
        f"{better}, and worse at {worse}."
    ]


def _own_best(found: Decomposition) -> list[str]:
    """Return the best learning rate of each value, where they have not all the same."""
    grid, sign = found.grid, 1 if found.more else -1
    if grid.by != RATE:
        return []
    best: dict[int, list[str]] = {}
    for i in found.rows:
        means = {j: sign * found.scores[grid.cells[i, j]].mean for j in found.columns}
        best.setdefault(max(means, key=means.__getitem__), []).append(grid.rows[i])
    if len(best) < 2:
        return []
    columns = [f"{grid.columns[j]} for {listing(rows, 12)}" for j, rows in sorted(best.items())]
    return [f"The {grid.by} with the best mean depends on {grid.factor}: it is {listing(columns, 12)}."]


def _only_there(found: Decomposition) -> list[str]:
    """Return where the factor matters less than at the other's best value, and has no distinguishable effect."""
    grid, best = found.grid, found.simple[found.best]
    if not (_interacts(found) and best.clear and best.up == found.more):
        return []
    less = [j for j, one in found.behind.items() if one.clear and one.up == best.up]
    less = [j for j in less if not found.simple[j].clear or found.simple[j].up == best.up]
    hidden = [j for j in less if not found.simple[j].clear]
    if not less:
        return []
    tuned = f"once {grid.by} is tuned" if grid.by == RATE else f"at {level(grid.by, grid.columns[found.best])}"
    parts = [_behind(found, j, bool(hidden)) for j in (hidden or less)]
    return [f"{grid.factor} matters {'only' if hidden else 'most'} {tuned}: {'; '.join(parts)}."]


def _behind(found: Decomposition, column: int, hidden: bool) -> str:
    """Return by how much the factor's effect falls short of that at the best value of the other."""
    one, grid = found.behind[column], found.grid
    short = difference(found.scale, one.estimate.difference)
    doubt = "is not distinguishable from zero, and it " if hidden else ""
    return (
        f"at {grid.columns[column]} its effect {doubt}is {short} less than at {grid.columns[found.best]} "
        f"(interval of that difference {interval_text(found, one)})"
    )


def _interaction(found: Decomposition) -> str:
    """Return whether the effect of one setting depends on the other."""
    one, cells, grid = found.interaction, found.cells, found.grid
    if one is None or cells is None:
        return ""
    ends = signed_interval(found.scale, interval(one.estimate, found.level / one.contrasts))
    row, column = grid.rows[found.rows[one.row]], grid.columns[found.columns[one.column]]
    first_row, first_column = grid.rows[found.rows[0]], grid.columns[found.columns[0]]
    largest = (
        f"the effect of {level(grid.factor, row)} against {first_row} at {level(grid.by, column)} differs from that at "
        f"{first_column} by {effect(found, one.estimate)} (interval {ends}, simultaneous for "
        f"{plural(one.contrasts, 'such contrast')}; p {probability(one.p)}, Holm{_f(found)})"
    )
    if _interacts(found):
        return f"The two settings interact: {largest}."
    return f"No interaction is distinguishable from noise, which does not prove that there is none: {largest}."


def _f(found: Decomposition) -> str:
    """Return the F test on these very examples."""
    one = found.f
    if one is None or isnan(one.statistic):
        return ""
    return f"; on these examples alone F({one.df}, {one.within}) = {number(one.statistic)}, p {probability(one.p)}"


def _averages(found: Decomposition) -> list[str]:
    """Return the main effect of each setting."""
    start = "On average (which hides any dependence on the other setting)," if _interacts(found) else "On average,"
    parts = []
    for factor, (high, low, one) in found.average.items():
        gap = difference(found.scale, one.estimate.difference)
        parts.append(f"of {factor} {high} and {low} ({gap}, {_doubted(found, one)})")
    return [f"{start} these values are furthest apart: {listing(parts)}."]


def _cautions(found: Decomposition) -> list[str]:
    cells = found.cells
    if cells is None:
        return []
    fewest, *more = sorted({cell.runs for row in cells.table for cell in row})
    examples = plural(cells.table[0][0].examples, cells.table[0][0].unit)
    line = f"Each cell has {'at least ' if more else ''}{plural(fewest, 'seed')} × {examples}"
    line += ", which is few: intervals are wide" if fewest < FEW else ""
    line += "; a configuration of the study is clearly noisier than the others" if cells.pooled.differ else ""
    return [f"{line}. These tests have their own share of the report's error rate, separate from the verdicts."]
