"""Bars of cost, all from zero: training time, latency attached and merged, saved size."""

from math import inf
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, names_axis, room, tooltip
from lorafile.analysis.common.format import amount, number, unit
from lorafile.results.results import missing
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing

Rows = list[dict[str, Any]]
LATENCY = {
    "first token": ("first_token_seconds", "merged_first_token_seconds"),
    "per token": ("token_seconds", "merged_token_seconds"),
}
WAYS = ["attached", "merged"]
_CAPTIONS = {
    "cost-train-time": "Bars: mean over seeds. Lines: ± sample standard deviation.",
    "cost-latency": "Median of repeated generations of one sequence. Attached: the adapter beside the base. "
    "Merged: the adapter added into the base's weights, which not every base allows. Rows without an adapter are "
    "the model as it is.",
}


def charts(rows: Rows) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a chart for each measure that any configuration has, and the captions of all."""
    saved = [row for row in rows if not missing(row["adapter_bytes"])]
    # A whole model among adapters would press all of them into one line.
    limit = 10 * max((float(row["adapter_bytes"]) for row in saved if row["method"] in METHODS), default=inf)
    beyond = {
        row["configuration"]: amount("bytes", row["adapter_bytes"]) for row in saved if row["adapter_bytes"] > limit
    }
    size = "Bytes of the saved adapter."
    if beyond:
        size += f" Not drawn, being a whole model: {listing([f'{name} ({shown})' for name, shown in beyond.items()])}."
    drawn = {
        "cost-train-time": _bars(rows, "seconds", "seconds", "training time", "seconds.spread"),
        "cost-latency": _latency(rows),
        "cost-size": _bars(
            [row for row in rows if row["configuration"] not in beyond], "adapter_bytes", "bytes", "saved size"
        ),
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}, _CAPTIONS | {"cost-size": size}


def _bars(rows: Rows, key: str, kind: str, what: str, spread: str = "") -> Any:
    """Return bars of one measure from zero, all in one unit, with their spread over seeds where there is one."""
    measured = [row for row in rows if not missing(row.get(key))]
    if not measured:
        return None
    size, name = unit(kind, max(float(row[key]) for row in measured))
    bars = []
    for row in measured:
        value, half = float(row[key]), 0.0 if missing(row.get(spread)) else float(row[spread])
        bar = {"label": row["configuration"], "value": value / size, "shown": f"{number(value / size)} {name}"}
        bars.append(bar | {"low": (value - half) / size, "high": (value + half) / size})
    scale = alt.Scale(domain=[0, max(bar["high"] for bar in bars) * 1.16], nice=False)
    x = alt.X("value:Q", title=f"{what}, {name}", scale=scale, axis=alt.Axis(tickCount=5, format="~g"))
    tips = tooltip(("label:N", "configuration"), ("shown:N", what))
    base = alt.Chart(pd.DataFrame(bars)).encode(y=_names(measured), tooltip=tips)
    layers = [base.mark_bar(style="cost", height={"band": 0.7}).encode(x=x)]
    if spread:
        layers.append(base.mark_rule(style="spread").encode(x="low:Q", x2="high:Q"))
    layers.append(base.mark_text(style="value", align="left", dx=7).encode(x="high:Q", text="shown:N"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(22))
    text = "; ".join(f"{bar['label']}: {bar['shown']}" for bar in bars)
    margin = room(bar["label"] for bar in bars)
    return finish(whole, what.capitalize(), f"{what.capitalize()}. {text}", margin=margin)


def _names(rows: Rows) -> alt.Y:
    order = [row["configuration"] for row in rows]
    return names_axis(order, alt.Scale(domain=order))


def _latency(rows: Rows) -> Any:
    """Return attached next to merged for the first token and for each further one, names shared."""
    keys = [key for pair in LATENCY.values() for key in pair]
    timed = [row for row in rows if any(not missing(row.get(key)) for key in keys)]
    if not timed:
        return None
    panels: list[Any] = []
    for title, pair in LATENCY.items():
        bars = [
            {"label": row["configuration"], "way": way, "value": float(row[key]), "shown": amount("seconds", row[key])}
            for row in timed
            for way, key in zip(WAYS, pair, strict=True)
            if not missing(row.get(key))
        ]
        if bars:
            names = _names(timed)
            if panels:
                names["axis"] = None
            panels.append(_panel(pd.DataFrame(bars), title, names, len(timed)))
    text = "; ".join(f"{row['configuration']}: {amount('seconds', row['token_seconds'])} per token" for row in timed)
    margin = room([row["configuration"] for row in timed], 2)
    whole = alt.hconcat(*panels, spacing=16)
    return finish(whole, "Inference latency", f"Inference latency. {text}", margin=margin, least=120)


def _panel(frame: pd.DataFrame, title: str, y: alt.Y, count: int) -> Any:
    size, name = unit("seconds", float(frame["value"].max()))
    frame = frame.assign(value=frame["value"] / size)
    scale = alt.Scale(domain=[0, float(frame["value"].max()) * 1.05], nice=False)
    ways = alt.Scale(domain=WAYS)
    bars = alt.Chart(frame).mark_bar()
    bars = bars.encode(
        x=alt.X("value:Q", title=f"{title}, {name}", scale=scale, axis=alt.Axis(tickCount=5)),
        y=y,
        yOffset=alt.YOffset("way:N", sort=WAYS, scale=ways),
        color=alt.Color("way:N", sort=WAYS, legend=alt.Legend(title=None, orient="top"), scale=ways),
        tooltip=tooltip(("label:N", "configuration"), ("way:N", "adapter"), ("shown:N", title)),
    )
    return bars.properties(width=WIDTH // 2 - 20, height=count * 26)
