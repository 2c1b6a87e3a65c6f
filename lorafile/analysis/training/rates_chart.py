"""Quality on validation against the learning rate, one line for each group that differs in nothing else."""

from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import (
    MEAN_TIPS,
    SEED_TIPS,
    WIDTH,
    domain_of,
    finish,
    mean_rows,
    quality,
    seed_rows,
    tooltip,
)
from lorafile.analysis.common.format import rate, score
from lorafile.analysis.training.rates import Group
from lorafile.results.results import Results

CAPTION = (
    "Dots: one seed each. Lines and bars: mean ± sample standard deviation over seeds, on validation. "
    "A line that still rises at its end has not shown its best rate. ×: runs without a figure."
)


def chart(results: Results, metric: str, drawn: list[Group]) -> Any:
    """Return quality against rate on a logarithmic axis."""
    found = quality(results, metric, "validation")
    rates = {name: value for group in drawn for name, value in group.rates.items() if not isnan(value)}
    series = {name: group.label for group in drawn for name in group.rates}
    means, seeds = (_placed(make(found, rates, "x"), series) for make in (mean_rows, seed_rows))
    x, colour = _x(sorted(set(rates.values()))), _colour([group.label for group in drawn])
    scale = found.scale(domain_of(metric, *found.span(list(rates))))
    y = alt.Y(
        "value:Q", title=found.title.rsplit(" (", 1)[0], scale=scale, axis=alt.Axis(format=found.format, tickCount=6)
    )
    base = alt.Chart(means[means["n"] > 0]).encode(x=x, **colour)
    lost = alt.Chart(means[means["note"] != ""]).mark_text(style="lost", baseline="bottom" if found.more else "top")
    edge = alt.value("height") if found.more else alt.value(0)
    layers = [
        alt.Chart(seeds).mark_point(style="seed").encode(x=x, y=y, tooltip=tooltip(*SEED_TIPS), **colour),
        base.mark_line(style="mean-line").encode(y="mean:Q"),
        base.mark_rule(style="spread").encode(y="low:Q", y2="high:Q"),
        base.mark_point(style="mean").encode(y="mean:Q", tooltip=tooltip(*MEAN_TIPS)),
        lost.encode(x=x, y=edge, text="note:N"),
    ]
    text = "; ".join(
        f"{series[name]} at {rate(value)}: {score(metric, found.scores[name].mean)}" for name, value in rates.items()
    )
    whole = alt.layer(*layers).properties(width=WIDTH, height=260)
    return finish(whole, "Learning rates", f"{found.title} by learning rate. {text}", margin=90)


def _placed(frame: pd.DataFrame, series: dict[str, str]) -> pd.DataFrame:
    return frame.assign(series=frame["configuration"].map(series))


def _x(rates: list[float]) -> Any:
    room = max(rates[-1] / rates[0], 2.0) ** 0.06
    scale = alt.Scale(type="log", domain=[rates[0] / room, rates[-1] * room], nice=False, padding=0)
    axis = alt.Axis(values=rates, format=".2~e", grid=False, labelOverlap="greedy")
    return alt.X("x:Q", title="learning rate, logarithmic", scale=scale, axis=axis)


def _colour(groups: list[str]) -> dict[str, Any]:
    if len(groups) < 2:
        return {}
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300)
    return {"color": alt.Color("series:N", sort=groups, legend=legend)}
