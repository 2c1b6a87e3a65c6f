"""Marks of published figures on the charts of one factor and of the frontier: hollow, ± standard error, labelled."""

from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import tooltip
from lorafile.analysis.common.published import Figure, figures
from lorafile.results.results import Results

_SHORT = 24  # characters beside a mark; its whole name is in its tooltip and in the table
_FAR = 4.0  # times beyond the study's own costs: what is further would press them all together


def along(results: Results, metric: str, factor: str, values: dict[str, float]) -> dict[str, float]:
    """Return published figure -> its value of a factor, for those whose value lies among the study's own."""
    low, high = min(values.values()), max(values.values())
    found = {one.name: one.settings.get(factor) for one in figures(results, metric)}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    }


def across(rules: pd.DataFrame, places: dict[str, float], x: Any) -> list[Any]:
    """Return references and published figures as lines across the chart; as marks where their place is known.

    :param places: published figure -> its place along the chart
    """
    layers: list[Any] = []
    for at in range(len(rules)):
        row = rules.iloc[[at]].copy()
        place = places.get(str(row["name"].item())) if "name" in row else None
        if place is not None:
            layers += marks(row.assign(x=place), x, alt.Y("mean:Q"))
            continue
        line = alt.Chart(row).encode(y="mean:Q")
        if row["low"].item() < row["high"].item():
            layers.append(alt.Chart(row).mark_rect(style="published-error").encode(y="low:Q", y2="high:Q"))
        layers.append(line.mark_rule(style=str(row["style"].item())))
        text = line.mark_text(style="reference-label", align="left", baseline="bottom", dy=-3)
        layers.append(text.encode(x=alt.value(4), text="label:N"))
    return layers


def marks(rows: pd.DataFrame, x: Any, y: Any) -> list[Any]:
    """Return hollow marks with their standard errors, and a short name above each.

    :param rows: `x`, `mean`, `low`, `high`, `label`, `name`
    """
    rows = rows.assign(short=[_short(name) for name in rows["name"]])
    base = alt.Chart(rows).encode(x=x)
    known = alt.Chart(rows[rows["low"] < rows["high"]]).encode(x=x)
    tips = tooltip(("label:N", "published"), ("low:Q", "− standard error"), ("high:Q", "+ standard error"))
    text = base.mark_text(style="reference-label", baseline="bottom", dy=-7)
    return [
        known.mark_rule(style="published-spread").encode(y="low:Q", y2="high:Q"),
        base.mark_point(style="published-point").encode(y=y, tooltip=tips),
        text.encode(y="high:Q", text="short:N"),
    ]


def _short(name: str) -> str:
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1].rstrip()}…"


def with_cost(results: Results, metric: str, cost: str, low: float, high: float) -> list[Figure]:
    """Return the published figures that have this cost, near enough to the study's own to be drawn beside them."""
    priced = [one for one in figures(results, metric) if cost in one.costs]
    return [one for one in priced if low / _FAR <= one.costs[cost] <= high * _FAR]
