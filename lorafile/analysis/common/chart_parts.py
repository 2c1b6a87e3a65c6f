"""Pieces of charts: every chart draws its seeds and its spread, names its units, and leaves colour to the theme.

Marks carry a `style`; the report's theme gives each style its colours for light and dark pages. Chart data has plain
column names only: a setting's own name could hold dots or brackets, which Vega would read as a path.
"""

from dataclasses import dataclass
from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.format import direction, is_share, on, score
from lorafile.analysis.common.published import PublishedFigure, figures
from lorafile.analysis.common.scores import Score, references, scores, split_of, values
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results

WIDTH = 640
COLOURS = 7  # that the theme tells apart
MEAN_TIPS = (("configuration:N", "configuration"), ("shown:N", "mean"), ("low:Q", "mean − sd"), ("high:Q", "mean + sd"))
SEED_TIPS = (("configuration:N", "configuration"), ("seed:N", "seed"), ("value:Q", "value"))
_SHORT = 24  # characters next to a mark; its whole name is in its tooltip and in the table
_FAR = 4.0  # times beyond the study's own costs: what is further would press them all together


@dataclass(frozen=True)
class Quality:
    """One metric on one split, ready to draw: who scored what, and the axis that all of it fits on."""

    metric: str
    split: str
    title: str
    format: str
    more: bool
    scores: dict[str, Score]
    values: dict[tuple[str, Any], float]

    def scale(self, domain: list[float]) -> alt.Scale:
        """Return the axis's scale; the bar of a share's spread ends at 0 and at 1 with the axis."""
        return alt.Scale(domain=domain, zero=False, nice=False, clamp=is_share(self.metric))

    def axis(self) -> alt.Axis:
        """Return the axis's ticks and numbers, with as many digits as tell neighbouring ticks apart."""
        return alt.Axis(
            format="~p" if self.format.endswith("p") else "~r", tickCount=6, labelOverlap="greedy", labelSeparation=6
        )

    def upright(self, scale: alt.Scale) -> alt.Y:
        """Return the vertical axis of a chart whose figures are its `value`s; which way is better stands elsewhere."""
        return alt.Y("value:Q", title=self.title.rsplit(" (", 1)[0], scale=scale, axis=self.axis())

    def span(self, among: list[str]) -> tuple[float, float]:
        """Return the lowest and highest thing to draw of some configurations: seeds, and mean ± spread."""
        ends = [value for (name, _), value in self.values.items() if name in among]
        for figure in (self.scores[name] for name in among if self.scores[name].known):
            ends += (
                [figure.mean] if isnan(figure.spread) else [figure.mean - figure.spread, figure.mean + figure.spread]
            )
        return (min(ends), max(ends)) if ends else (0.0, 1.0)


def quality(results: Results, metric: str | None, split: str | None = None) -> Quality:
    """Return a metric (default: the primary one) on a split (default: test, else validation), ready to draw."""
    metric = metric or results.primary
    split = split or split_of(results, metric)
    name = f"{split}.{metric}"
    title = f"{on(metric, split)}{', %' if is_share(metric) else ''} ({direction(metric)})"
    form = ".3~p" if is_share(metric) else ".3~g"
    return Quality(metric, split, title, form, more_is_better(metric), scores(results, name), values(results, name))


def padded(low: float, high: float, share: float = 0.08) -> list[float]:
    """Return a domain with room at both ends, never of zero width; nothing but zeros stand on the axis's own 0."""
    room = (high - low) * share or abs(high) * share
    return [low - room, high + room] if room else [0.0, 0.1]


def domain_of(metric: str, low: float, high: float) -> list[float]:
    """Return a metric's domain with room at both ends; that of a share ends at 0 and at 1, beyond which nothing is."""
    first, last = padded(low, high)
    return [max(first, 0.0), min(last, 1.0)] if is_share(metric) else [first, last]


def near_references(
    results: Results, drawn: Quality, among: list[str], own: bool = False
) -> tuple[list[float], pd.DataFrame, list[str]]:
    """Return (axis, the references and published figures that fit on it, sentences on those that lie outside).

    A reference that lies further away than the others span would press them all into one line. A row has `mean`,
    `label`, `style`, and `low` and `high`: of a published figure with its standard error, else both the mean.

    :param own: also those that the chart shows as rows of their own
    """
    low, high = drawn.span(among)
    far = high - low or abs(high) or 1.0
    rows: list[dict[str, Any]] = []
    outside: list[str] = []
    for name, role in references(results).items():
        mean = drawn.scores[name].mean
        if not drawn.scores[name].known or (name in among and not own):
            continue
        if name in among or low - far <= mean <= high + far:
            row = {"mean": mean, "low": mean, "high": mean, "label": f"{role} {score(drawn.metric, mean)}"}
            rows.append(row | {"style": "reference"})
        else:
            outside.append(f"{role} ({score(drawn.metric, mean)}) lies outside the axis")
    for figure in figures(results, drawn.metric):
        if low - far <= figure.value <= high + far:
            least, most = figure.ends
            row = {"mean": figure.value, "low": least, "high": most, "label": figure.label, "style": "published"}
            rows.append(row | {"name": figure.name})
        else:
            outside.append(f"{figure.label} lies outside the axis")
    ends = [float(row[end]) for row in rows for end in ("low", "high")]
    return domain_of(drawn.metric, min([low, *ends]), max([high, *ends])), pd.DataFrame(rows), outside


def seed_rows(drawn: Quality, labels: dict[str, Any], key: str = "label") -> pd.DataFrame:
    """Return one row for each figure of one seed: configuration, its place on the chart, seed, value."""
    rows = [
        {"configuration": name, key: labels[name], "seed": "–" if seed is None else str(int(seed)), "value": value}
        for (name, seed), value in drawn.values.items()
        if name in labels
    ]
    return pd.DataFrame(rows, columns=["configuration", key, "seed", "value"])


def mean_rows(drawn: Quality, labels: dict[str, Any], key: str = "label") -> pd.DataFrame:
    """Return one row for each configuration: mean, mean ± spread, seeds, and what was lost as a note."""
    rows = []
    for name, place in labels.items():
        figure = drawn.scores[name]
        spread = figure.spread if figure.n > 1 else 0.0
        note = f"× {figure.lost}" if figure.lost else "" if figure.known else "× no result"
        row = {"configuration": name, key: place, "mean": figure.mean}
        row |= {"low": figure.mean - spread, "high": figure.mean + spread, "n": figure.n, "note": note}
        rows.append(row | {"shown": score(drawn.metric, figure.mean)})
    return pd.DataFrame(rows, columns=["configuration", key, "mean", "low", "high", "n", "note", "shown"])


def series_rows(drawn: Quality, places: dict[str, Any], series: dict[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `seed_rows` and `mean_rows` along `x`, with the series that each configuration belongs to."""
    frames = (seed_rows(drawn, places, "x"), mean_rows(drawn, places, "x"))
    seeds, means = (frame.assign(series=frame["configuration"].map(series)) for frame in frames)
    return seeds, means


def names_axis(order: list[str], scale: Any = alt.Undefined, grid: bool = False) -> alt.Y:
    """Return the vertical axis of a chart with a row for each name: names of any length, and no line."""
    axis = alt.Axis(labelLimit=260, domain=False, ticks=False, grid=grid)
    return alt.Y("label:N", sort=order, title=None, axis=axis, scale=scale)


def tooltip(*pairs: tuple[str, str]) -> list[alt.Tooltip]:
    """Return tooltips: (column with its type, title); numbers with three significant digits."""
    return [
        alt.Tooltip(key, title=title, format=".3~g" if key.endswith(":Q") else alt.Undefined) for key, title in pairs
    ]


def series_colour(order: list[str], field: str = "series:N") -> dict[str, Any]:
    """Return the encoding that tells series apart, with a legend; nothing where there is but one."""
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300)
    return {"color": alt.Color(field, sort=order, legend=legend)} if len(order) > 1 else {}


def seeds_and_means(seeds: pd.DataFrame, means: pd.DataFrame, x: Any, y: Any, colour: dict[str, Any]) -> list[Any]:
    """Return the layers of figures along `x`: seeds as dots, means as a line with diamonds, and their spread."""
    base = alt.Chart(means[means["n"] > 0]).encode(x=x, **colour)
    return [
        alt.Chart(seeds).mark_point(style="seed").encode(x=x, y=y, tooltip=tooltip(*SEED_TIPS), **colour),
        base.mark_line(style="mean-line").encode(y="mean:Q"),
        base.mark_rule(style="spread").encode(y="low:Q", y2="high:Q"),
        base.mark_point(style="mean").encode(y="mean:Q", tooltip=tooltip(*MEAN_TIPS)),
    ]


def zero_line(channel: str) -> Any:
    """Return a line at zero across a chart of differences.

    :param channel: the axis of the differences, `x` or `y`
    """
    rule = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(style="reference")
    return rule.encode(**{channel: "zero:Q"})


def named_rows(field: str, order: list[str]) -> alt.Y:
    """Return the vertical axis of a chart that has one row for each name."""
    axis = alt.Axis(labelLimit=320, grid=False, domain=False, ticks=False)
    return alt.Y(field, sort=order, title=None, axis=axis)


def room(labels: Any, panels: int = 1) -> int:
    """Return the pixels that row labels and gaps take next to the plots, which do not shrink with them."""
    return min(max((len(str(label)) for label in labels), default=0) * 7, 260) + 40 * panels


def finish(chart: Any, title: str, description: str, margin: int = 130, least: int = 220) -> Any:
    """Return a chart with its title, a description for screen readers, and how it may be narrowed.

    :param margin: pixels next to the plots that do not shrink: axis labels and legends
    :param least: the narrowest plot that still reads
    """
    heading = alt.Title(title, anchor="start", frame="group")
    return chart.properties(title=heading, description=description, usermeta={"margin": margin, "least": least})


def along(results: Results, metric: str, factor: str, values: dict[str, float]) -> dict[str, float]:
    """Return published figure -> its value of a factor, for those whose value lies among the study's own."""
    low, high = min(values.values()), max(values.values())
    chosen = {figure.name: figure.settings.get(factor) for figure in figures(results, metric)}
    return {
        name: float(value)
        for name, value in chosen.items()
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
        text = line.mark_text(style="reference-label", align="left", baseline="bottom", dy=-3)
        layers += [line.mark_rule(style=str(row["style"].item())), text.encode(x=alt.value(4), text="label:N")]
    return layers


def marks(rows: pd.DataFrame, x: Any, y: Any) -> list[Any]:
    """Return hollow marks with their standard errors, and a short name above each.

    :param rows: `x`, `mean`, `low`, `high`, `label`, `name`
    """
    short = [name if len(name) <= _SHORT else f"{name[: _SHORT - 1].rstrip()}…" for name in rows["name"]]
    rows = rows.assign(short=short)
    base = alt.Chart(rows).encode(x=x)
    spread = alt.Chart(rows[rows["low"] < rows["high"]]).encode(x=x)
    tips = tooltip(("label:N", "published"), ("low:Q", "− standard error"), ("high:Q", "+ standard error"))
    text = base.mark_text(style="reference-label", baseline="bottom", dy=-7)
    return [
        spread.mark_rule(style="published-spread").encode(y="low:Q", y2="high:Q"),
        base.mark_point(style="published-point").encode(y=y, tooltip=tips),
        text.encode(y="high:Q", text="short:N"),
    ]


def with_cost(results: Results, metric: str, cost: str, low: float, high: float) -> list[PublishedFigure]:
    """Return the published figures that have this cost, near enough to the study's own to be drawn next to them."""
    priced = [figure for figure in figures(results, metric) if cost in figure.costs]
    return [figure for figure in priced if low / _FAR <= figure.costs[cost] <= high * _FAR]
