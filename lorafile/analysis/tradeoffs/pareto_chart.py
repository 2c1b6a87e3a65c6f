"""The efficiency frontier drawn: each configuration with its 95 % interval, labels placed where nothing stands.

Two measures are one plot; with three, the first is drawn against each of the others, side by side.
"""

from math import isnan, nan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, marks, padded, tooltip, with_cost
from lorafile.analysis.common.format import direction, sentence_case, unit
from lorafile.analysis.common.label_layout import Axes, place_labels, texts
from lorafile.analysis.common.published import MARK
from lorafile.analysis.tradeoffs.frontier import FrontierPlace, Measure, exactness
from lorafile.results.results import Results
from lorafile.units import listing

HEIGHT = 400
LOG_FROM = 2.5  # the ratio of the largest to the smallest cost from which on a logarithmic axis pays


def chart(results: Results, measures: list[Measure], standing: dict[str, FrontierPlace]) -> Any:
    """Return the first measure against the others; the frontier is labelled first, others where there is room."""
    first, *others = measures
    width = WIDTH if len(others) == 1 else WIDTH // 2 - 10
    panels = [_panel(results, first, other, standing, width, len(others) == 1) for other in others]
    whole = panels[0] if len(panels) == 1 else alt.hconcat(*panels, spacing=16)
    text = "; ".join(f"{name}: {', '.join(one.shown(name) for one in measures)}" for name in standing)
    title = f"{first.title} against {listing([one.title for one in others])}"
    heading = sentence_case(title)
    return finish(whole, heading, f"{heading}. {text}", margin=90 * len(panels), least=430 if len(panels) == 1 else 220)


def caption(results: Results, measures: list[Measure], standing: dict[str, FrontierPlace]) -> str:
    """Return what the marks mean."""
    steps = "Diamonds and steps: the frontier" if len(measures) == 2 else "Diamonds: the frontier over all three"
    lines = f"{steps}, which no other configuration beats by means. Grey dots: behind it."
    if any(name in one.intervals for one in measures for name in standing):
        lines += " Bars: 95 % interval of a configuration's own figure, over other seeds and other examples. Bars may "
        lines += "overlap where a difference is real, since all figures share the examples."
    else:
        lines += " Without a bar: nothing tells how far other seeds or other examples would move a figure."
    if any(len(published(results, measures[0], other, standing)) for other in measures[1:]):
        lines += f" {MARK}"
    return f"{lines}{exactness(measures, standing)} Point at a mark for its name and figures."


def _panel(
    results: Results, first: Measure, other: Measure, standing: dict[str, FrontierPlace], width: int, line: bool
) -> Any:
    rows, units = _rows(first, other, standing)
    elsewhere = published(results, first, other, standing)
    elsewhere = elsewhere.assign(x=elsewhere["x"] / units["x"][0])
    x_domain, x_log = _domain(other, rows, "x", list(elsewhere["x"]))
    y_domain, y_log = _domain(first, rows, "y", [*elsewhere["low"], *elsewhere["high"]])
    x = _axis(other, "x", x_domain, x_log, units["x"][1])
    y = _axis(first, "y", y_domain, y_log, units["y"][1])
    labels = place_labels(rows, Axes(x_domain, y_domain, (x_log, y_log), (width, HEIGHT)), line)
    layers = [*_marks(rows, x, y, line, (first, other)), *texts(labels, x, y)]
    layers += marks(elsewhere, alt.X("x:Q"), alt.Y("mean:Q")) if len(elsewhere) else []
    return alt.layer(*layers).properties(width=width, height=HEIGHT)


def _rows(
    first: Measure, other: Measure, standing: dict[str, FrontierPlace]
) -> tuple[pd.DataFrame, dict[str, tuple[float, str]]]:
    """Return one row for each configuration in the units of the axes, and these units."""
    about = {"x": other, "y": first}
    units = {channel: (1.0, "") if one.split else _unit(one, standing) for channel, one in about.items()}
    rows: list[dict[str, Any]] = []
    for name, place in standing.items():
        row: dict[str, Any] = {"configuration": name, "front": place.word == "frontier"}
        row |= {"place": "on the frontier" if not place.by else f"behind {place.by}"}
        for channel, one in about.items():
            size = units[channel][0]
            low, high = one.intervals.get(name, (nan, nan))
            row |= {channel: one.values[name] / size, f"{channel}_low": low / size, f"{channel}_high": high / size}
            row[f"{channel}_shown"] = one.shown(name)
        row["order"] = -row["x"] if other.more else row["x"]
        rows.append(row)
    return pd.DataFrame(rows), units


def _unit(one: Measure, standing: dict[str, FrontierPlace]) -> tuple[float, str]:
    """Return the unit of a cost's axis: of the largest, or, where the axis will span magnitudes, of the middle one."""
    values = sorted(one.values[name] for name in standing)
    wide = values[0] > 0 and values[-1] / values[0] > 100
    return unit(one.kind, values[len(values) // 2] if wide else values[-1])


def published(results: Results, first: Measure, other: Measure, standing: dict[str, FrontierPlace]) -> pd.DataFrame:
    """Return the published figures of the first measure that have the other, a cost, and lie near; x in base units."""
    columns = ["name", "label", "x", "mean", "low", "high"]
    if not first.split or other.split:
        return pd.DataFrame(columns=columns)
    quality, cost = ([one.values[name] for name in standing] for one in (first, other))
    low, high = min(quality), max(quality)
    far = high - low or abs(high) or 1.0
    rows = [
        (one.name, one.label, one.costs[other.name], one.value, *one.ends)
        for one in with_cost(results, first.name, other.name, min(cost), max(cost))
        if low - far <= one.value <= high + far
    ]
    return pd.DataFrame(rows, columns=columns)


def _domain(one: Measure, rows: pd.DataFrame, channel: str, others: list[float]) -> tuple[list[float], bool]:
    """Return an axis that all bars fit on, and whether it is logarithmic."""
    seen = [*others, *(float(value) for end in ("", "_low", "_high") for value in rows[f"{channel}{end}"])]
    finite = [value for value in seen if not isnan(value)]
    low, high = min(finite), max(finite)
    if one.split:
        return domain_of(one.name, low, high), False
    if low > 0 and high / low > LOG_FROM:
        return [low / (high / low) ** 0.06, high * (high / low) ** 0.1], True
    return padded(low, high, 0.1), False


def _axis(one: Measure, channel: str, domain: list[float], log: bool, unit_name: str) -> Any:
    share = one.kind == "share"
    name = "%" if share else unit_name
    title = f"{one.title}{', ' + name if name else ''}{f' ({direction(one.name)})' if one.split else ''}"
    scale = alt.Scale(domain=domain, nice=False, zero=False, clamp=share)
    if log:
        scale = alt.Scale(type="log", domain=domain, nice=False)
    axis = alt.Axis(format=".3~p" if share else ".3~g", tickCount=6, grid=True)
    return (alt.X if channel == "x" else alt.Y)(f"{channel}:Q", title=title, scale=scale, axis=axis)


def _marks(rows: pd.DataFrame, x: Any, y: Any, line: bool, about: tuple[Measure, Measure]) -> list[Any]:
    first, other = about
    tips = tooltip(
        ("configuration:N", "configuration"),
        ("y_shown:N", first.title),
        ("x_shown:N", other.title),
        ("place:N", "place"),
    )
    front, behind = rows[rows["front"]].sort_values("order"), rows[~rows["front"]]
    layers = [alt.Chart(front).mark_line(style="frontier").encode(x=x, y=y, order="order:Q")] if line else []
    for frame, bar, point in ((behind, "behind-spread", "behind"), (front, "frontier-spread", "frontier-point")):
        base = alt.Chart(frame)
        if first.intervals:
            layers.append(base.mark_rule(style=bar).encode(x=x, y="y_low:Q", y2="y_high:Q"))
        if other.intervals:
            layers.append(base.mark_rule(style=bar).encode(y=y, x="x_low:Q", x2="x_high:Q"))
        layers.append(base.mark_point(style=point).encode(x=x, y=y, tooltip=tips))
    return layers
