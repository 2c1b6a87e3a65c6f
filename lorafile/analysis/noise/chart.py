"""The noise floor drawn: bars from zero, and below them the study's differences on the same axis."""

from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, named_rows, room, tooltip
from lorafile.analysis.common.format import axis_unit, difference, on
from lorafile.analysis.noise.floors import Floors

_FAR = 4  # times the largest floor: where the axis ends at the latest
_MOST = 20  # differences that are drawn, the largest first


def chart(noise: Floors, names: dict[str, str], rows: list[dict[str, Any]]) -> Any:
    """Return the floors as bars, the thresholds as lines through them, and the differences below.

    :param names: configuration -> what a reader would call it
    """
    metric = noise.scale
    factor, unit = axis_unit(metric)
    title = f"{on(metric, noise.split)}{', ' + unit if unit else ''}"
    bars = [_scaled(row, factor) for row in rows if row["kind"] == "floor"]
    limits = [_scaled(row, factor) for row in rows if row["kind"] == "threshold"]
    effects = _effects(noise, names, factor)
    edge = _edge([*bars, *limits], effects)
    scale, axis = alt.Scale(domain=[0, edge], nice=False), alt.Axis(format="~r", tickCount=7)
    x = alt.X("size:Q", title=title, scale=scale, axis=axis)
    panels = [_bars(bars, x), *([_points(effects, limits, x, edge)] if effects else [])]
    text = "; ".join(f"{row['what']}: {row['shown']}" for row in rows)
    whole = alt.vconcat(*panels, spacing=14)
    labels = [row["what"] for row in (*bars, *effects)]
    return finish(whole, "The noise floor and the differences", f"{title}. {text}", margin=room(labels) + 20)


def caption(noise: Floors) -> str:
    """Return what the marks mean."""
    parts = ["Bars: standard deviations. Thick line: the 95 % interval of the one between seeds."]
    if noise.effects:
        more = f" (the {_MOST} largest of {len(noise.effects)})" if len(noise.effects) > _MOST else ""
        parts.append(f"Diamonds: the study's absolute differences, with the intervals of their tests{more}.")
        parts.append("Arrow: beyond the axis.")
    return " ".join(parts)


def _scaled(row: dict[str, Any], factor: float) -> dict[str, Any]:
    ends = {end: row[end] if row[end] is None else factor * row[end] for end in ("low", "high")}
    return row | ends | {"size": factor * row["size"]}


def _effects(noise: Floors, names: dict[str, str], factor: float) -> list[dict[str, Any]]:
    """Return the differences by size, the largest first."""
    rows = list[dict[str, Any]]()
    for verdict in noise.effects:
        estimate, decision = verdict.estimate, verdict.decision
        if estimate is None or decision is None:
            continue
        size, (low, high) = abs(estimate.difference), sorted(abs(end) for end in decision.interval)
        if decision.interval[0] < 0 < decision.interval[1]:
            low = 0.0
        row = {
            "what": " − ".join(names.get(name, name) for name in verdict.pair.names),
            "verdict": verdict.word,
            "size": factor * size,
        }
        rows.append(row | {"low": factor * low, "high": factor * high, "shown": difference(noise.scale, size)})
    return sorted(rows, key=lambda row: -row["size"])[:_MOST]


def _bars(bars: list[dict[str, Any]], x: Any) -> Any:
    frame, y = pd.DataFrame(bars), named_rows("what:N", [row["what"] for row in bars])
    frame["edge"] = frame[["size", "high"]].astype(float).max(axis=1)
    base = alt.Chart(frame).encode(y=y, tooltip=tooltip(("what:N", "what changes"), ("shown:N", "size")))
    ends = alt.Chart(frame[frame["low"].notna()]).encode(x="low:Q", x2="high:Q", y=y)
    text = base.mark_text(style="value", align="left", dx=5).encode(text="shown:N", x="edge:Q")
    layers = [base.mark_bar(style="cost", size=14).encode(x=x), ends.mark_rule(style="spread"), text]
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(26))


def _points(effects: list[dict[str, Any]], limits: list[dict[str, Any]], x: Any, edge: float) -> Any:
    frame, y = pd.DataFrame(effects), named_rows("what:N", [row["what"] for row in effects])
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
