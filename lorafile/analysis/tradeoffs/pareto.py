"""What is the most quality for each cost: the efficiency frontier over two or three measures, and what is behind it.

Two measures are one plot; with three, the first is drawn against each of the others, side by side. Each configuration
has its 95 % interval, and its label is placed where nothing else stands.
"""

from math import isnan, nan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, marks, padded, tooltip, with_cost
from lorafile.analysis.common.display_names import display_names
from lorafile.analysis.common.format import above, direction, sentence_case, slug, unit
from lorafile.analysis.common.label_layout import Axes, place_labels, texts
from lorafile.analysis.common.published import MARK
from lorafile.analysis.common.scores import COSTS, profiles, unmeasured
from lorafile.analysis.tradeoffs.frontier import FrontierPlace, Measure, exactness, measure_of, places
from lorafile.results.results import Results, grouped
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

DEFAULT = "train_memory"
HEIGHT = 400
Units = dict[str, tuple[float, str]]  # channel -> how many base units, and the unit's name
LOG_FROM = 2.5  # the ratio of the largest to the smallest cost from which on a logarithmic axis pays


def analyse(results: Results, asked: AnalysisTable) -> list[Analysis]:
    """Return the frontier over the declared measures; nothing where fewer than two configurations have all of them."""
    declared = [str(name) for name in asked.measures or (asked.metric or results.primary, DEFAULT)]
    # Quality is read upwards, and cost to the right, in whatever order they were declared.
    measures = [measure_of(results, name) for name in sorted(dict.fromkeys(declared), key=lambda name: name in COSTS)]
    complete = [name for name in results.names if all(name in measure.values for measure in measures)]
    if len(complete) < 2 or len(measures) < 2:
        return []
    standing = places(results, measures, complete)
    name = slug("pareto", *(measure.name for measure in measures if measure.name not in (results.primary, DEFAULT)))
    first, *others = measures
    title = f"{sentence_case(first.short)} against {listing([measure.short for measure in others])}"
    lines, table = _sentences(results, measures, standing), _table(measures, standing)
    analysis = Analysis("pareto", name, title, _question(first, others), lines, (table,))
    elsewhere = [published(results, first, other, standing) for other in others]
    caption = _caption(measures, standing, any(len(figures) for figures in elsewhere))
    return [analysis.with_chart(_chart(measures, standing, elsewhere, display_names(results)), caption)]


def _question(first: Measure, others: list[Measure]) -> str:
    if first.split and not any(measure.split for measure in others):
        best = "most" if first.more else "least"
        return f"What is the {best} {first.short} for each {listing([measure.short for measure in others])}?"
    return f"Which configurations are unbeaten in {listing([measure.short for measure in (first, *others)])}?"


def best_first(by: Measure, standing: dict[str, FrontierPlace]) -> list[str]:
    """Return the configurations by a measure, the best first."""
    sign = -1 if by.more else 1
    return sorted(standing, key=lambda name: (sign * by.values[name], name))


def _sentences(results: Results, measures: list[Measure], standing: dict[str, FrontierPlace]) -> list[str]:
    first, second = measures[0], measures[1]
    front = [name for name in best_first(second, standing) if standing[name].word == "frontier"]
    order = "cheapest first" if not second.split and len(measures) == 2 else f"by {second.short}"
    steps = [f"{name} ({', '.join(measure.shown(name) for measure in measures)})" for name in front]
    lines = [f"On the frontier by means, {order}: {listing(steps, 12)}."]
    if len(front) > 1 and len(measures) == 2 and first.split:
        last, cheap = front[-1], front[0]
        lines.append(above(first.name, last, first.scores[last], cheap, first.scores[cheap]))
        lines.append(f"Its {second.title} is {second.shown(last)}, compared with {second.shown(cheap)}.")
    lines += _behind(standing)
    lines += [line for measure in measures for line in _without(results, measure, measures)]
    _, devices = profiles(results)
    if devices and any(measure.name in COSTS and COSTS[measure.name].source == "profiles" for measure in measures):
        lines.append(f"Profiles from other devices are excluded: {listing(devices)}.")
    return lines


def _behind(standing: dict[str, FrontierPlace]) -> list[str]:
    """Return what is behind the frontier, and by which configuration: beyond the noise first."""
    lines = []
    for word, text in (("clear", "Clearly behind it"), ("noise", "Behind it by means, within the noise")):
        by = grouped((place.by, name) for name, place in standing.items() if place.word == word)
        if by:
            parts = [f"{listing(names, 40)} (by {better})" for better, names in by.items()]
            lines.append(f"{text}: {'; '.join(parts)}.")
    if untested := [name for name, place in standing.items() if place.word == "means"]:
        lines.append(f"Behind the frontier: {listing(untested, 40)}. Means within the spread may swap places.")
    return lines


def _without(results: Results, measure: Measure, measures: list[Measure]) -> list[str]:
    """Return which configurations are not shown for want of this measure."""
    table = {name: score for other in measures for name, score in other.scores.items()}
    without = [name for name in results.names if name not in measure.values]
    if measure.split:
        reason_of = {
            name: "on other examples" if score.known else score.lost or "no result" for name, score in table.items()
        }
        reasons = [f"{name} ({reason_of[name]})" for name in without]
        return [f"Not shown because {measure.short} is missing: {listing(reasons, 20)}."] if reasons else []
    without = [name for name in without if not table or table[name].known]
    if not without:
        return []
    untrained = all(results.methods[name] == "none" for name in without)
    free = untrained and "latency" not in measure.name
    by_reason = grouped((unmeasured(results, measure.name, name), name) for name in without)
    return [
        f"Not shown because {measure.title} is missing: {listing(names, 20)} "
        f"({'nothing is trained' if free else f'it {why}'})."
        for why, names in by_reason.items()
    ]


def _table(measures: list[Measure], standing: dict[str, FrontierPlace]) -> Table:
    words = {"clear": "clearly behind {}", "noise": "behind {}, within the noise", "means": "behind {}"}
    words["frontier"] = "on the frontier"
    rows: list[dict[str, Any]] = []
    for name in best_first(measures[1], standing):
        place = standing[name]
        rows.append({"configuration": name, "place": words[place.word].format(place.by), "by": place.by})
    columns = [Column("configuration", "configuration")]
    for measure in (*measures[1:], measures[0]):
        key = measure.name
        for row in rows:
            name = row["configuration"]
            row[key] = measure.values[name]
            if figure := measure.scores.get(name):
                row |= {f"{key}.spread": figure.spread, f"{key}.n": figure.n}
            if name in measure.intervals:
                row[f"{key}.low"], row[f"{key}.high"] = measure.intervals[name]
            if figure and figure.lost:
                row["lost"] = figure.lost
        spread = (f"{key}.spread", f"{key}.n") if measure.split else ("", "")
        columns.append(Column(key, measure.title, measure.kind, *spread))
    columns.append(Column("place", "place"))
    columns += [Column("lost", "excluded runs")] if any("lost" in row for row in rows) else []
    return Table(f"By {measures[1].title}", pd.DataFrame(rows), tuple(columns))


def _chart(
    measures: list[Measure], standing: dict[str, FrontierPlace], elsewhere: list[pd.DataFrame], names: dict[str, str]
) -> Any:
    """Return the first measure against the others; the frontier is labelled first, others where there is room.

    :param elsewhere: the published figures of each panel
    :param names: configuration -> what a reader would call it
    """
    first, *others = measures
    width = WIDTH if len(others) == 1 else WIDTH // 2 - 10
    panels = [
        _panel(first, other, _rows(first, other, standing, names), figures, width, len(others) == 1)
        for other, figures in zip(others, elsewhere, strict=True)
    ]
    whole = panels[0] if len(panels) == 1 else alt.hconcat(*panels, spacing=16)
    text = "; ".join(f"{name}: {', '.join(measure.shown(name) for measure in measures)}" for name in standing)
    title = f"{first.title} against {listing([measure.title for measure in others])}"
    heading = sentence_case(title)
    return finish(whole, heading, f"{heading}. {text}", margin=90 * len(panels), least=430 if len(panels) == 1 else 220)


def _caption(measures: list[Measure], standing: dict[str, FrontierPlace], elsewhere: bool) -> str:
    """Return what the marks mean."""
    steps = "Diamonds and steps: the frontier" if len(measures) == 2 else "Diamonds: the frontier over all three"
    lines = f"{steps}, whose means no other configuration beats. Grey dots: behind it."
    if any(name in measure.intervals for measure in measures for name in standing):
        lines += " Bars: 95 % interval of a configuration's own result, over seeds and examples. Bars may overlap "
        lines += "even if a difference is real, because all configurations share the examples."
    else:
        lines += " No bars: the variation over seeds and examples is unknown."
    lines += f" {MARK}" if elsewhere else ""
    return f"{lines}{exactness(measures, standing)} Hover over a mark for its name and values."


def _panel(
    first: Measure, other: Measure, drawn: tuple[pd.DataFrame, Units], elsewhere: pd.DataFrame, width: int, line: bool
) -> Any:
    rows, units = drawn
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
    first: Measure, other: Measure, standing: dict[str, FrontierPlace], names: dict[str, str]
) -> tuple[pd.DataFrame, Units]:
    """Return one row for each configuration in the units of the axes, and these units."""
    about = {"x": other, "y": first}
    units = {channel: (1.0, "") if measure.split else _unit(measure, standing) for channel, measure in about.items()}
    rows: list[dict[str, Any]] = []
    for name, place in standing.items():
        row: dict[str, Any] = {"configuration": name, "label": names[name], "front": place.word == "frontier"}
        row |= {"place": "on the frontier" if not place.by else f"behind {place.by}"}
        for channel, measure in about.items():
            size = units[channel][0]
            low, high = measure.intervals.get(name, (nan, nan))
            row |= {channel: measure.values[name] / size, f"{channel}_low": low / size, f"{channel}_high": high / size}
            row[f"{channel}_shown"] = measure.shown(name)
        row["order"] = -row["x"] if other.more else row["x"]
        rows.append(row)
    return pd.DataFrame(rows), units


def _unit(measure: Measure, standing: dict[str, FrontierPlace]) -> tuple[float, str]:
    """Return the unit of a cost's axis: of the largest, or, where the axis will span magnitudes, of the middle one."""
    values = sorted(measure.values[name] for name in standing)
    wide = values[0] > 0 and values[-1] / values[0] > 100
    return unit(measure.kind, values[len(values) // 2] if wide else values[-1])


def published(results: Results, first: Measure, other: Measure, standing: dict[str, FrontierPlace]) -> pd.DataFrame:
    """Return the published figures of the first measure that have the other, a cost, and lie near; x in base units."""
    columns = ["name", "label", "x", "mean", "low", "high"]
    if not first.split or other.split:
        return pd.DataFrame(columns=columns)
    quality, cost = ([measure.values[name] for name in standing] for measure in (first, other))
    low, high = min(quality), max(quality)
    far = high - low or abs(high) or 1.0
    rows = [
        (figure.name, figure.label, figure.costs[other.name], figure.value, *figure.ends)
        for figure in with_cost(results, first.name, other.name, min(cost), max(cost))
        if low - far <= figure.value <= high + far
    ]
    return pd.DataFrame(rows, columns=columns)


def _domain(measure: Measure, rows: pd.DataFrame, channel: str, others: list[float]) -> tuple[list[float], bool]:
    """Return an axis that all bars fit on, and whether it is logarithmic."""
    seen = [*others, *(float(value) for end in ("", "_low", "_high") for value in rows[f"{channel}{end}"])]
    finite = [value for value in seen if not isnan(value)]
    low, high = min(finite), max(finite)
    if measure.split:
        return domain_of(measure.name, low, high), False
    if low > 0 and high / low > LOG_FROM:
        return [low / (high / low) ** 0.06, high * (high / low) ** 0.1], True
    return padded(low, high, 0.1), False


def _axis(measure: Measure, channel: str, domain: list[float], log: bool, unit_name: str) -> Any:
    share = measure.kind == "share"
    name = "%" if share else unit_name
    title = f"{measure.title}{', ' + name if name else ''}{f' ({direction(measure.name)})' if measure.split else ''}"
    scale = alt.Scale(domain=domain, nice=False, zero=False, clamp=share)
    if log:
        scale = alt.Scale(type="log", domain=domain, nice=False)
    axis = alt.Axis(format="~p" if share else "~r", tickCount=6, grid=True)
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
