"""A grid of two settings drawn: every cell's mean as a heat map, and below it the effect of one along the other."""

from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, room, tooltip, zero_line
from lorafile.analysis.common.format import axis_unit, direction, on, score
from lorafile.analysis.factors.decomposition import Decomposition
from lorafile.analysis.factors.effects_text import effect, interval_text, level
from lorafile.engine.metrics.registry import more_is_better

TURNS = 0.4  # where along the colours black on a cell reads better than white


def chart(found: Decomposition) -> Any:
    """Return the heat map; with the effect of the rows at each column below it, where there is one."""
    grid = found.grid
    title = f"{grid.factor} × {grid.by}: {on(found.metric, found.split)} ({direction(found.metric)})"
    text = "; ".join(
        f"{level(grid.factor, grid.rows[i])} and {level(grid.by, grid.columns[j])}: "
        f"{score(found.metric, found.scores[name].mean)}"
        for (i, j), name in sorted(grid.cells.items())
    )
    whole = _map(found)
    if found.simple:
        whole = alt.vconcat(whole, _line(found), spacing=26)
    return finish(whole, title, f"{title}. {text}", margin=room(grid.rows) + 30)


def caption(found: Decomposition) -> str:
    """Return what the marks mean."""
    parts = [f"Cells: mean {on(found.metric, found.split)} over seeds; brighter is better."]
    if any(figure.lost for figure in found.scores.values()):
        parts.append("×: runs without a result; a cell with both shows the mean of the finished runs.")
    if len(found.grid.cells) < len(found.grid.rows) * len(found.grid.columns):
        parts.append("Empty cells were not declared.")
    if found.simple:
        high, low = (found.grid.rows[place] for place in found.pair)
        parts.append(f"Below: {level(found.grid.factor, high)} minus {low}, ")
        parts[-1] += "with simultaneous intervals." if found.tested else "of one run each."
    return " ".join(parts)


def _rows(found: Decomposition) -> pd.DataFrame:
    """Return one row for each cell: its place, its mean, what it says, and on which ground."""
    grid = found.grid
    means = [figure.mean for figure in found.scores.values() if figure.known]
    low, span = min(means), (max(means) - min(means)) or 1.0
    more = more_is_better(found.metric)
    rows = []
    for (i, j), name in grid.cells.items():
        figure = found.scores[name]
        row: dict[str, Any] = {"row": grid.rows[i], "column": grid.columns[j], "mean": None, "shown": ""}
        row |= {"note": f"× {figure.lost}" if figure.lost else "" if figure.known else "× no result", "ground": "none"}
        if figure.known:
            share = (figure.mean - low) / span
            ground = "light" if (share if more else 1 - share) > TURNS else "dark"
            row |= {"mean": figure.mean, "shown": score(found.metric, figure.mean), "ground": ground}
        rows.append(row | {"configuration": name})
    return pd.DataFrame(rows)


def _across(found: Decomposition, title: str | None) -> Any:
    axis = alt.Axis(
        labelAngle=0, domain=False, ticks=False, grid=False, labels=title is not None, labelOverlap="greedy"
    )
    scale = alt.Scale(domain=list(found.grid.columns), paddingInner=0.03, paddingOuter=0.015)
    return alt.X("column:N", title=title, sort=list(found.grid.columns), axis=axis, scale=scale)


def _map(found: Decomposition) -> Any:
    frame, grid = _rows(found), found.grid
    order = list(reversed(grid.rows)) if grid.ordered[0] else list(grid.rows)  # large numbers stand above small ones
    axis = alt.Axis(labelLimit=260, domain=False, ticks=False, grid=False)
    scale = alt.Scale(domain=order, paddingInner=0.06, paddingOuter=0.03)
    y = alt.Y("row:N", title=grid.factor, sort=order, axis=axis, scale=scale)
    x = _across(found, None if found.simple else grid.by)
    reverse = not more_is_better(found.metric)
    colour = alt.Color("mean:Q", scale=alt.Scale(reverse=reverse, zero=False, nice=False), legend=None)
    tips = tooltip(("configuration:N", "configuration"), ("shown:N", "mean"), ("note:N", "runs"))
    layers = [
        alt.Chart(frame[frame["ground"] != "none"]).mark_rect().encode(x=x, y=y, color=colour, tooltip=tips),
        alt.Chart(frame[frame["ground"] == "none"]).mark_rect(style="no-figure").encode(x=x, y=y, tooltip=tips),
    ]
    for ground in ("light", "dark", "none"):
        on_ground = alt.Chart(frame[frame["ground"] == ground]).encode(x=x, y=y)
        plain = on_ground.transform_filter(alt.datum.note == "")
        noted = on_ground.transform_filter(alt.datum.note != "")
        style, offset = ("lost", 0) if ground == "none" else (f"on-{ground}", 8)
        if ground != "none":
            layers.append(plain.mark_text(style=style).encode(text="shown:N"))
            layers.append(noted.mark_text(style=style, dy=-7).encode(text="shown:N"))
        layers.append(noted.mark_text(style=style, dy=offset, fontSize=11).encode(text="note:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(44))


def _line(found: Decomposition) -> Any:
    """Return the difference between two rows at every column, with its interval, and zero."""
    grid, (high, low) = found.grid, found.pair
    factor, unit = axis_unit(found.scale)
    rows = []
    for column, one in found.simple.items():
        least, most = (factor * value for value in one.interval) if found.tested else (None, None)
        row = {"column": grid.columns[column], "difference": factor * one.estimate.difference}
        row |= {"least": least, "most": most}
        rows.append(row | {"shown": effect(found, one.estimate), "interval": interval_text(found, one)})
    frame, x = pd.DataFrame(rows), _across(found, grid.by)
    pair = f"{grid.rows[high]} minus {grid.rows[low]}"
    title = [f"{pair},", unit] if unit else pair
    y = alt.Y("difference:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(format="~r", tickCount=5))
    tips = tooltip(("column:N", grid.by), ("shown:N", "difference"), ("interval:N", "interval"))
    base = alt.Chart(frame).encode(x=x)
    layers = [
        zero_line("y"),
        base.mark_line(style="mean-line").encode(y=y),
        base.mark_point(style="mean").encode(y=y, tooltip=tips),
    ]
    if found.tested:
        layers.insert(2, base.mark_rule(style="spread").encode(y="least:Q", y2="most:Q"))
    gone = [{"column": value, "note": "× left out"} for j, value in enumerate(grid.columns) if j not in found.columns]
    if gone:
        mark = alt.Chart(pd.DataFrame(gone)).mark_text(style="lost", baseline="bottom")
        layers.append(mark.encode(x=x, y=alt.value("height"), text="note:N"))
    return alt.layer(*layers).properties(width=WIDTH, height=180)
