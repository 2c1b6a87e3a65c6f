"""A recommendation drawn: each candidate's distance to the best, with the margin, cheapest first."""

from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, named_rows, room, tooltip, zero_line
from lorafile.analysis.common.display_names import display_names
from lorafile.analysis.common.format import DASH, axis_unit, on
from lorafile.analysis.common.scores import price_of
from lorafile.analysis.compare.outcomes import margin_text, reach
from lorafile.analysis.compare.verdict_text import signed, signed_interval
from lorafile.analysis.recommend.budgets import TITLES, shown
from lorafile.analysis.recommend.choice import Recommendation
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.statistics.probabilities import interval

MOST = 40  # rows; the table has the others
TIPS = (("configuration:N", "configuration"), ("verdict:N", "verdict"), ("shown:N", "difference"), ("cost:N", "cost"))
_STYLES = {  # kind of candidate -> styles of its bar and its point
    "taken": ("frontier-spread", "frontier-point"),
    "good": ("spread", "mean"),
    "other": ("behind-spread", "behind"),
}


def chart(results: Results, found: Recommendation) -> Any:
    """Return one row for each candidate: its difference to the best mean with a 95 % interval, and its cost."""
    metric = found.scale
    more = metric != "log_loss" and more_is_better(found.metric)
    leader = found.leader
    costs = price_of(results, found.prefer)
    rows = pd.DataFrame([_row(found, name, leader, costs.get(name)) for name in found.order[:MOST]])
    factor, unit = axis_unit(metric)
    band = factor * (found.margin or 0.0) * (-1 if more else 1)
    domain = _domain(rows, band)
    for column in ("low", "high"):
        rows[column] = rows[column].clip(*domain)
    beyond = (rows["difference"] < domain[0]) | (rows["difference"] > domain[1])
    rows["at"] = rows["difference"].clip(*domain)
    names = display_names(results)
    rows["label"] = rows["configuration"].map(names)
    title = f"difference to {names[leader]} in {on(metric, found.split)}, {unit}".rstrip(", ")
    x = alt.X("at:Q", title=title, scale=alt.Scale(domain=domain, nice=False), axis=alt.Axis(format="~r", tickCount=7))
    y = named_rows("label:N", list(rows["label"]))
    layers = [zero_line("x")]
    if found.margin is not None:
        ends = pd.DataFrame({"from": [min(band, 0.0)], "to": [max(band, 0.0)]})
        layers.insert(0, alt.Chart(ends).mark_rect(style="margin").encode(x="from:Q", x2="to:Q"))
    for kind, (bar, point) in _STYLES.items():
        of_kind = alt.Chart(rows[(rows["kind"] == kind) & ~beyond])
        layers.append(of_kind.mark_rule(style=bar).encode(x="low:Q", x2="high:Q", y=y))
        layers.append(of_kind.mark_point(style=point).encode(x=x, y=y, tooltip=tooltip(*TIPS)))
    outside = alt.Chart(rows[beyond]).encode(x=x, y=y, tooltip=tooltip(*TIPS), text="far:N")
    # what lies far off is worse: left where more is better
    layers.append(outside.mark_text(style="value", align="left" if more else "right", dx=6 if more else -6))
    about = alt.Chart(rows).mark_text(style="value", align="left", dx=10).encode(x=alt.value(WIDTH), y=y, text="note:N")
    whole = alt.layer(*layers, about).properties(width=WIDTH, height=alt.Step(24))
    text = "; ".join(f"{row['configuration']}: {row['verdict']}, {row['shown']}" for row in rows.to_dict("records"))
    order = "best mean first" if found.budget.by == "quality" else "cheapest first"
    return finish(whole, f"Candidates for {found.names}, {order}", f"{title}. {text}", margin=room(rows["label"]) + 150)


def caption(found: Recommendation) -> str:
    """Return what the marks mean."""
    margin = "" if found.margin is None else f" Band: within the margin of {margin_text(found.metric, found.margin)}."
    more = f" Only the first {MOST} of {len(found.order)} are drawn." if len(found.order) > MOST else ""
    return (
        f"Orange diamond: {found.role}. Blue: shown to be within the margin. Grey: not shown to be. Bars: 95 % "
        "interval of the difference for this pair alone; verdicts are adjusted for all pairs. Arrow: outside the axis."
        f"{margin}{more}"
    )


def _row(found: Recommendation, name: str, leader: str, price: float | None) -> dict[str, Any]:
    metric, word = found.scale, found.word(name)
    factor, _ = axis_unit(metric)
    difference, low, high = 0.0, 0.0, 0.0
    if name != leader:
        estimate = found.against(name, leader)
        difference, (low, high) = estimate.difference, interval(estimate, reach=reach(metric))
    cost = DASH if price is None else shown(found.prefer, price)
    text = f"{signed(metric, difference)}, 95 % interval {signed_interval(metric, (low, high))}"
    return {
        "configuration": name,
        "difference": factor * difference,
        "low": factor * (difference if isnan(low) else low),
        "high": factor * (difference if isnan(high) else high),
        "verdict": word,
        "shown": "the best mean" if name == leader else text,
        "cost": f"{cost} {TITLES[found.prefer]}",
        "note": f"{cost}, {word if not word.startswith('behind') else 'behind'}",
        "far": f"{'◄' if difference < 0 else '►'} {signed(metric, difference)}",
        "kind": "taken" if name == found.taken else "good" if name in found.claimed else "other",
    }


def _domain(rows: pd.DataFrame, band: float) -> list[float]:
    """Return an axis on which the margin and what is near it can be read; what is far beyond is named at its edge."""
    near = rows[(rows["kind"] == "taken") | rows["verdict"].str.startswith(("non-inferior", "may be best"))]
    low, high = float(min(near["low"].min(), band, 0)), float(max(near["high"].max(), band, 0))
    room_for = max(high - low, 1e-9)
    inside = rows[(rows["difference"] >= low - 0.6 * room_for) & (rows["difference"] <= high + 0.6 * room_for)]
    low, high = min(low, float(inside["low"].min())), max(high, float(inside["high"].max()))
    gap = (high - low) * 0.05 or 0.01
    return [low - gap, high + gap]
