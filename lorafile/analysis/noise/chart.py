"""The noise floor drawn: bars from zero, and below them the study's differences on the same axis."""

from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, room, tooltip
from lorafile.analysis.common.format import axis_unit, difference, on
from lorafile.analysis.compare.outcomes import compared_as
from lorafile.analysis.noise.floors import Floors

_FAR = 4  # times the largest floor: where the axis ends at the latest
_MOST = 20  # differences that are drawn, the largest first


def chart(found: Floors, rows: list[dict[str, Any]]) -> Any:
    """Return the floors as bars, the thresholds as lines through them, and the differences below."""
    metric = compared_as(found.metric)
    factor, unit = axis_unit(metric)
    title = f"{on(metric, found.split)}{', ' + unit if unit else ''}"
    bars = [_scaled(row, factor) for row in rows if row["kind"] == "floor"]
    limits = [_scaled(row, factor) for row in rows if row["kind"] == "threshold"]
    effects = _effects(found, factor)
    edge = _edge([*bars, *limits], effects)
    x = alt.X("size:Q", title=title, scale=alt.Scale(domain=[0, edge], nice=False))
    x = x.axis(format=".3~g", tickCount=7)
    panels = [_bars(bars, x)]
    if effects:
        panels.append(_points(effects, limits, x, edge))
    text = "; ".join(f"{row['what']}: {row['shown']}" for row in rows)
    whole = alt.vconcat(*panels, spacing=14)
    labels = [row["what"] for row in (*bars, *effects)]
    return finish(whole, "The noise floor, and the differences beside it", f"{title}. {text}", margin=room(labels) + 20)


def caption(found: Floors) -> str:
    """Return what the marks mean."""
    parts = ["Bars: standard deviations; thick line: the 95 % interval of that between seeds."]
    if found.effects:
        more = f" (the {_MOST} largest of {len(found.effects)})" if len(found.effects) > _MOST else ""
        parts.append(f"Diamonds: the study's differences, whatever their sign, with 95 % intervals{more}.")
        parts.append("An arrow: beyond the axis.")
    return " ".join(parts)


def _scaled(row: dict[str, Any], factor: float) -> dict[str, Any]:
    ends = {end: row[end] if row[end] is None else factor * row[end] for end in ("low", "high")}
    return row | ends | {"size": factor * row["size"]}


def _effects(found: Floors, factor: float) -> list[dict[str, Any]]:
    """Return the differences by size, the largest first."""
    metric, rows = compared_as(found.metric), list[dict[str, Any]]()
    for verdict in found.effects:
        estimate, decision = verdict.estimate, verdict.decision
        if estimate is None or decision is None:
            continue
        size, (low, high) = abs(estimate.difference), sorted(abs(end) for end in decision.interval)
        if decision.interval[0] < 0 < decision.interval[1]:
            low = 0.0
        row: dict[str, Any] = {
            "what": f"{verdict.pair.one} − {verdict.pair.other}",
            "verdict": verdict.word,
            "size": factor * size,
        }
        row |= {"low": factor * low, "high": factor * high, "shown": difference(metric, size)}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["size"])[:_MOST]


def _y(rows: list[dict[str, Any]]) -> Any:
    order = [row["what"] for row in rows]
    axis = alt.Axis(labelLimit=320, domain=False, ticks=False, grid=False)
    return alt.Y("what:N", sort=order, title=None, axis=axis)


def _bars(bars: list[dict[str, Any]], x: Any) -> Any:
    frame, y = pd.DataFrame(bars), _y(bars)
    frame["edge"] = frame[["size", "high"]].astype(float).max(axis=1)
    base = alt.Chart(frame).encode(y=y, tooltip=tooltip(("what:N", "what changes"), ("shown:N", "size")))
    ends = alt.Chart(frame[frame["low"].notna()]).encode(x="low:Q", x2="high:Q", y=y)
    text = base.mark_text(style="value", align="left", dx=5).encode(text="shown:N", x="edge:Q")
    layers = [base.mark_bar(style="cost", size=14).encode(x=x), ends.mark_rule(style="spread"), text]
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(26))


def _points(effects: list[dict[str, Any]], limits: list[dict[str, Any]], x: Any, edge: float) -> Any:
    frame, y = pd.DataFrame(effects), _y(effects)
    frame["high"] = frame["high"].clip(upper=edge)
    here, beyond = frame[frame["size"] <= edge], frame[frame["size"] > edge]
    tips = tooltip(("what:N", "comparison"), ("shown:N", "difference"), ("verdict:N", "verdict"))
    base = alt.Chart(here).encode(y=y)
    layers = [
        *_limits(limits),
        base.mark_rule(style="spread").encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(style="mean").encode(x=x, tooltip=tips),
    ]
    if len(beyond):
        text = alt.Chart(beyond.assign(note=beyond["shown"] + " →")).mark_text(style="value", align="right", dx=-4)
        layers.append(text.encode(y=y, x=alt.value("width"), text="note:N", tooltip=tips))
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(24))


def _limits(limits: list[dict[str, Any]]) -> list[Any]:
    """Return a line through a panel for each threshold, labelled above it."""
    layers = []
    for place, (row, style) in enumerate(zip(limits, ("noise-limit", "power-limit"), strict=False)):
        base = alt.Chart(pd.DataFrame([row | {"label": f"{row['what']} {row['shown']}"}])).encode(x="size:Q")
        text = base.mark_text(style="reference-label", align="left", baseline="bottom", dx=-2, dy=-4 - 15 * place)
        layers += [base.mark_rule(style=style), text.encode(y=alt.value(0), text="label:N")]
    return layers


def _edge(floors: list[dict[str, Any]], effects: list[dict[str, Any]]) -> float:
    """Return where the axis ends: far enough for the floors, and not where one large difference would press them."""
    floor = max(max(row["size"], row["high"] or 0.0) for row in floors)
    largest = max((row["high"] for row in effects), default=0.0)
    return min(max(1.3 * floor, 1.08 * largest), _FAR * floor) or 1.0
