"""Charts of one factor: lines over bars for numbers, dots next to bars for names; the two halves share the factor."""

from math import sqrt
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from lorafile.analysis.common.chart_parts import (
    WIDTH,
    Quality,
    across,
    along,
    finish,
    mean_rows,
    near_references,
    quality,
    room,
    seed_rows,
    seeds_and_means,
    series_colour,
    tooltip,
    zero_line,
)
from lorafile.analysis.common.format import axis_unit, is_share, number, score, sentence_case, unit
from lorafile.analysis.common.published import MARK
from lorafile.analysis.common.published import figures as published_figures
from lorafile.analysis.compare.verdict_text import signed_difference, signed_interval
from lorafile.analysis.factors.eligible import Trend
from lorafile.analysis.factors.steps import SteppedSeries, TrendFigures
from lorafile.analysis.overview.chart import MARKS, dots
from lorafile.results.results import Results
from lorafile.statistics.crossed import combination
from lorafile.statistics.probabilities import half_width

LINE = "Dots: one seed each. Line and bar: mean ± sample standard deviation over seeds. ×: runs without a result."

BAND = "Band: 95 % interval of each mean alone, over seeds and examples; differences are tested in pairs."
STEPS = " Below: the change per doubling in each step, with simultaneous intervals for all steps."


def chart(results: Results, figures: TrendFigures) -> Any:
    """Return quality along the factor, what a doubling adds, and peak training memory where it was measured."""
    trend, metric, stepped = figures.trend, figures.metric, figures.stepped
    memory = figures.memory if _varies(figures.memory) else {}
    found = quality(results, metric)
    title = f"{trend.factor}{f' (sweep {trend.sweep})' if trend.sweep else ''}"
    text = "; ".join(f"{value}: {score(metric, found.scores[name].mean)}" for name, value in trend.values.items())
    description = f"{found.title} by {trend.factor}. {text}"
    if trend.numbers:
        gains = _gain_rows(stepped)
        x = _along(trend, None if memory else trend.factor)
        below = [_gains_panel(gains, stepped[0].scale, x, _colour(trend))] if gains else []
        below += [_memory(trend, memory)] if memory else []
        whole: Any = alt.vconcat(_lines(results, found, trend, not below, stepped), *below, spacing=18)
        whole = whole.resolve_scale(color="shared") if _grouped(trend) else whole
        return finish(whole, title, description, margin=110)
    whole = _rows(results, found, trend, memory)
    return finish(whole, title, description, margin=room(trend.values.values(), 2), least=110)


def caption(results: Results, figures: TrendFigures) -> str:
    """Return what the marks mean, and which references lie outside of the axis."""
    trend, metric = figures.trend, figures.metric
    _, _, outside = near_references(results, quality(results, metric), list(trend.values))
    parts = [LINE if trend.numbers else MARKS, *([MARK] if published_figures(results, metric) else [])]
    if trend.numbers and figures.stepped:
        parts.append(BAND + (STEPS if any(series.doubled for series in figures.stepped) else ""))
    if _varies(figures.memory):
        parts.append("Memory: peak of live tensors during training, measured with nothing else on the device.")
    return " ".join([*parts, *(f"{sentence_case(text)}." for text in outside)])


def _varies(memory: dict[str, float]) -> bool:
    """Return whether memory is worth drawing: a row of equal bars is better said in a sentence."""
    return len(set(memory.values())) > 1


def _grouped(trend: Trend) -> bool:
    return len(set(trend.series.values())) > 1


def _colour(trend: Trend) -> dict[str, Any]:
    return series_colour(list(dict.fromkeys(trend.series.values())))


def _along(trend: Trend, title: str | None) -> Any:
    """Return the factor's axis: logarithmic where its values span a factor of four, ticks at the values themselves."""
    numbers = sorted(set(trend.numbers.values()))
    low, high = numbers[0], numbers[-1]
    log = low > 0 and high / low >= 4
    room = (high / low) ** 0.06 if log else (high - low) * 0.06 or 1
    domain = [low / room, high * room] if log else [low - room, high + room]
    # bars would pad their own axis, and then stand next to the points above them
    scale = alt.Scale(type="log" if log else "linear", domain=domain, padding=0, nice=False)
    form = ".2~e" if 0 < low < 0.01 or high >= 100_000 else ".4~r"
    axis = alt.Axis(values=numbers, format=form, grid=False, labels=title is not None, labelOverlap="greedy")
    return alt.X("x:Q", scale=scale, axis=axis, title=title)


def _frame(frame: pd.DataFrame, trend: Trend) -> pd.DataFrame:
    names = frame["configuration"]
    return frame.assign(x=names.map(trend.numbers), series=names.map(trend.series))


def _lines(results: Results, found: Quality, trend: Trend, lowest: bool, stepped: list[SteppedSeries]) -> Any:
    domain, rules, _ = near_references(results, found, list(trend.values))
    band = pd.DataFrame(_band_rows(stepped), columns=["x", "series", "least", "most"])
    if len(band):
        domain = [min(domain[0], band["least"].min()), max(domain[1], band["most"].max())]
    seeds = _frame(seed_rows(found, trend.values), trend)
    means = _frame(mean_rows(found, trend.values), trend)
    x, colour = _along(trend, trend.factor if lowest else None), _colour(trend)
    layers = seeds_and_means(seeds, means, x, found.upright(found.scale(domain)), colour)
    text = alt.Chart(means[means["note"] != ""]).mark_text(style="lost", baseline="bottom" if found.more else "top")
    tips = tooltip(("configuration:N", "configuration"), ("note:N", "runs"))
    y = alt.value("height") if found.more else alt.value(0)
    layers.append(text.encode(x=x, y=y, text="note:N", tooltip=tips))
    if len(band):
        layers.insert(0, alt.Chart(band).mark_area(style="band").encode(x=x, y="least:Q", y2="most:Q", **colour))
    places = along(results, found.metric, trend.factor, trend.numbers)
    layers = [*across(rules, places, x), *layers]
    return alt.layer(*layers).properties(width=WIDTH, height=260)


def _memory_rows(trend: Trend, memory: dict[str, float]) -> tuple[pd.DataFrame, str]:
    size, name = unit("bytes", max(memory.values()))
    rows = [
        {"configuration": label, "label": trend.values[label], "memory": value / size, "shown": number(value / size)}
        for label, value in memory.items()
    ]
    return pd.DataFrame(rows), f"peak training memory, {name}"


def _memory(trend: Trend, memory: dict[str, float]) -> Any:
    """Return memory along a numeric factor from zero: bars, or lines where it differs between the series."""
    rows, title = _memory_rows(trend, memory)
    rows, x, colour = _frame(rows, trend), _along(trend, trend.factor), _colour(trend)
    y = alt.Y("memory:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4))
    single = bool((rows.groupby("x")["memory"].nunique() == 1).all())
    rows = rows.drop_duplicates("x") if single else rows
    base = alt.Chart(rows).encode(x=x, y=y, tooltip=tooltip(("configuration:N", "configuration"), ("shown:N", title)))
    if not single:
        layered = base.mark_line(style="mean-line").encode(**colour) + base.mark_point(style="mean").encode(**colour)
        return layered.properties(width=WIDTH, height=120)
    text = base.mark_text(style="value", baseline="bottom", dy=-3).encode(text="shown:N")
    return (base.mark_bar(style="cost", size=22) + text).properties(width=WIDTH, height=120)


def _rows(results: Results, found: Quality, trend: Trend, memory: dict[str, float]) -> Any:
    labels = {
        name: f"{value} ({trend.series[name]})" if _grouped(trend) else value for name, value in trend.values.items()
    }
    order = list(labels.values())
    if not memory:
        return dots(results, found, labels)
    left = dots(results, found, labels, width=WIDTH * 3 // 5)
    rows, title = _memory_rows(trend, memory)
    rows = rows.assign(label=rows["configuration"].map(labels))
    top = float(rows["memory"].max()) * 1.25  # room for the figure at the longest bar's end
    x = alt.X("memory:Q", title=title, scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=4))
    y = alt.Y("label:N", sort=order, title=None, axis=None, scale=alt.Scale(domain=order))
    base = alt.Chart(rows).encode(x=x, y=y, tooltip=tooltip(("configuration:N", "configuration"), ("shown:N", title)))
    text = base.mark_text(style="value", align="left", dx=4).encode(text="shown:N")
    right = (base.mark_bar(style="cost", size=14) + text).properties(width=WIDTH * 2 // 5 - 40, height=alt.Step(24))
    return alt.hconcat(left, right, spacing=14)


def _band_rows(stepped: list[SteppedSeries]) -> list[dict[str, Any]]:
    """Return one row for each configuration: its place, series, and the 95 % interval of its figure alone."""
    rows = []
    for series in stepped:
        trend = series.trend
        for name, outcomes in zip(series.members, series.outcomes, strict=True):
            alone = combination([outcomes], [1.0], series.pooled)
            half = half_width(alone.error, alone.df, 0.05)
            low, high = outcomes.mean - half, outcomes.mean + half
            if series.metric == "perplexity":
                low, high = float(np.exp(low)), float(np.exp(high))
            elif is_share(series.metric):
                low, high = max(low, 0.0), min(high, 1.0)
            rows.append({"x": trend.numbers[name], "series": trend.series[name], "least": low, "most": high})
    return rows


def _gain_rows(stepped: list[SteppedSeries]) -> list[dict[str, Any]]:
    """Return one row for each step in which the factor doubles: where it is, and what a doubling changes."""
    rows = []
    for series in stepped:
        factor, _ = axis_unit(series.scale)
        for at in series.doubled:
            low, high = (series.trend.numbers[series.members[place]] for place in (at, at + 1))
            gain, ends = series.gain(at)
            row = {"from": low, "to": high, "x": sqrt(low * high), "series": series.trend.series[series.members[at]]}
            row |= {"gain": factor * gain, "least": factor * ends[0], "most": factor * ends[1]}
            row |= {"step": f"{series.value(at)} to {series.value(at + 1)}"}
            row |= {"shown": signed_difference(series.scale, gain), "interval": signed_interval(series.scale, ends)}
            rows.append(row)
    return rows


def _gains_panel(rows: list[dict[str, Any]], scale: str, x: Any, colour: dict[str, Any]) -> Any:
    """Return what a doubling changes: a line over the step that it is of, with its interval, and zero.

    :param scale: the metric that differences are of
    :param x: the factor's axis, over a column `x`; `colour`: that of the series, if there are several
    """
    _, unit = axis_unit(scale)
    title = ["per doubling,", unit] if unit else "per doubling"
    y = alt.Y("gain:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(format="~r", tickCount=4))
    tips = tooltip(("step:N", "step"), ("shown:N", "per doubling"), ("interval:N", "interval"))
    base = alt.Chart(pd.DataFrame(rows)).encode(**colour)
    layers = [
        zero_line("y"),
        base.mark_rule(style="step").encode(x=alt.X("from:Q"), x2="to:Q", y=y),
        base.mark_rule(style="spread").encode(x=x, y="least:Q", y2="most:Q"),
        base.mark_point(style="mean").encode(x=x, y=y, tooltip=tips),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=130)
