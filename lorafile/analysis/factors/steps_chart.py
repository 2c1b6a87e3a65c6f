"""Steps drawn: the interval of each figure as a band, and below it what a doubling of the factor changes."""

from collections.abc import Sequence
from math import isnan, sqrt
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, tooltip
from lorafile.analysis.common.format import is_share
from lorafile.analysis.compare.verdict_text import signed, signed_difference
from lorafile.analysis.factors.steps import LEVEL, Along
from lorafile.results.results import unit_of
from lorafile.statistics.crossed import combination
from lorafile.statistics.probabilities import half_width


def band_rows(compared: Sequence[Along]) -> list[dict[str, Any]]:
    """Return one row for each configuration: its place, series, and the 95 % interval of its figure alone."""
    rows = []
    for one in compared:
        for name, outcomes in zip(one.members, one.outcomes, strict=True):
            alone = combination([outcomes], [1.0], one.pooled)
            half = half_width(alone.error, alone.df, LEVEL)
            low, high = outcomes.mean - half, outcomes.mean + half
            if one.metric == "perplexity":
                low, high = float(np.exp(low)), float(np.exp(high))
            elif is_share(one.metric):
                low, high = max(low, 0.0), min(high, 1.0)
            rows.append({"x": one.trend.numbers[name], "series": one.trend.series[name], "least": low, "most": high})
    return rows


def gain_rows(compared: Sequence[Along]) -> list[dict[str, Any]]:
    """Return one row for each step in which the factor doubles: where it is, and what a doubling changes."""
    rows = []
    for one in compared:
        factor = 100 if is_share(one.scale) else 1
        for at, times in enumerate(one.doublings):
            if isnan(times):
                continue
            low, high = (one.trend.numbers[one.members[place]] for place in (at, at + 1))
            gain, least, most = one.gain(at)
            row = {"from": low, "to": high, "x": sqrt(low * high), "series": one.trend.series[one.members[at]]}
            row |= {"gain": factor * gain, "least": factor * least, "most": factor * most}
            row |= {"step": f"{one.value(at)} to {one.value(at + 1)}", "shown": signed_difference(one.scale, gain)}
            rows.append(row | {"interval": f"{signed(one.scale, least)} to {signed(one.scale, most)}"})
    return rows


def gains_panel(rows: list[dict[str, Any]], scale: str, x: Any, colour: dict[str, Any]) -> Any:
    """Return what a doubling changes: a line over the step that it is of, with its interval, beside zero.

    :param scale: the metric that differences are of
    :param x: the factor's axis, over a column `x`; `colour`: that of the series, if there are several
    """
    unit = "points" if is_share(scale) else unit_of(scale)
    title = ["per doubling,", unit] if unit else "per doubling"
    y = alt.Y("gain:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(format=".3~g", tickCount=4))
    tips = tooltip(("step:N", "step"), ("shown:N", "per doubling"), ("interval:N", "95 % interval"))
    base = alt.Chart(pd.DataFrame(rows)).encode(**colour)
    layers = [
        alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(style="reference").encode(y="zero:Q"),
        base.mark_rule(style="step").encode(x=alt.X("from:Q"), x2="to:Q", y=y),
        base.mark_rule(style="spread").encode(x=x, y="least:Q", y2="most:Q"),
        base.mark_point(style="mean").encode(x=x, y=y, tooltip=tips),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=130)
