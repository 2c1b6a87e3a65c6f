"""Two settings that were crossed: what each does at every value of the other, on average, and whether they interact."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import direction, kind_of, metric_name, on, slug
from lorafile.analysis.factors.decomposition import Decomposition, decompose
from lorafile.analysis.factors.effects_text import against, effect, interval_text, sentences
from lorafile.analysis.factors.eligible import Grid, grids
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for each grid of two settings; a declared pair alone where there is one."""
    metric = table.metric or results.primary
    factor, by = (table.factor, table.by) if table.factor else (table.by, None)
    crossed = grids(results, factor, by)
    if factor and not crossed:
        return [_nothing(results, factor, by)]
    return [_analysis(results, grid, metric) for grid in crossed]


def _analysis(results: Results, grid: Grid, metric: str) -> Analysis:
    found = decompose(results, grid, metric)
    exploratory = "" if metric == results.primary else metric
    name = slug("effects", grid.sweep, grid.factor, grid.by, grid.rest, exploratory)
    parts = [f"{grid.factor} × {grid.by}", f"sweep {grid.sweep}" if grid.sweep else "", grid.rest]
    question = f"Does the effect of {grid.factor} on {metric_name(metric)} depend on {grid.by}?"
    tables = (*([_simple(found)] if found.simple else []), _cells(found))
    analysis = Analysis("effects", name, ", ".join(filter(None, parts)), question, sentences(found), tables)
    if not any(score.known for score in found.scores.values()):
        return analysis
    from lorafile.analysis.factors.effects_chart import caption, chart

    return analysis.with_chart(chart(found), caption(found))


def _nothing(results: Results, factor: str, by: str | None) -> Analysis:
    there = listing([f"{grid.factor} × {grid.by} (sweep {grid.sweep})" for grid in grids(results)]) or "none"
    what = f"{factor} and {by} were" if by else f"{factor} was"
    line = f"{what} not crossed in a sweep with a configuration for every pair of values. Pairs that were: {there}."
    name, title = slug("effects", factor, by or ""), f"{factor} × {by or '–'}"
    return Analysis("effects", name, title, "Do they interact?", [line])


def _simple(found: Decomposition) -> Table:
    """Return the effect of the rows at every column that is compared, and on average."""
    grid, (high, low) = found.grid, found.pair
    rows = []
    for column, one in found.simple.items():
        estimate, (least, most) = one.estimate, one.interval
        row: dict[str, Any] = {"by": grid.columns[column], "effect": effect(found, estimate)}
        row |= {"interval": interval_text(found, one)}
        row |= {"high": grid.cells[high, column], "low": grid.cells[low, column]}
        row |= {"difference": estimate.difference, "error": estimate.error, "df": estimate.df}
        rows.append(row | {"least": least, "most": most})
    columns = (
        Column("by", grid.by),
        Column("effect", f"difference in {on(found.scale, found.split)}"),
        Column("interval", "simultaneous interval"),
        Column("high", "configuration"),
        Column("low", "compared with"),
    )
    return Table(f"{against(found)}, at each {grid.by}", pd.DataFrame(rows), columns)


def _cells(found: Decomposition) -> Table:
    grid, rows = found.grid, []
    for (i, j), name in sorted(grid.cells.items()):
        score = found.scores[name]
        row = {"row": grid.rows[i], "column": grid.columns[j], "mean": score.mean, "spread": score.spread, "n": score.n}
        row["compared"] = "yes" if i in found.rows and j in found.columns and not found.why else "no"
        rows.append(row | {"runs": score.lost or "all done", "configuration": name})
    title = f"{on(found.metric, found.split)} ({direction(found.metric)})"
    columns = (
        Column("row", grid.factor),
        Column("column", grid.by),
        Column("mean", title, kind_of(found.metric), "spread", "n"),
        Column("runs", "runs"),
        Column("compared", "compared"),
        Column("configuration", "configuration"),
    )
    return Table("Cells", pd.DataFrame(rows), columns)
