"""Bars of cost, all from zero: training time, latency attached and merged, saved size."""

from collections.abc import Iterable
from math import inf, isnan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, room, tooltip
from lorafile.analysis.common.format import amount, number, unit
from lorafile.results.results import missing
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing

Rows = list[dict[str, Any]]
LATENCY = {
    "first token": ("first_token_seconds", "merged_first_token_seconds"),
    "per token": ("token_seconds", "merged_token_seconds"),
}


def charts(rows: Rows) -> dict[str, Any]:
    """Return a chart for each measure that any configuration has."""
    size, _ = _sizes(rows)
    found = {
        "cost-train-time": _bars(rows, "seconds", "seconds", "training time", "seconds.spread"),
        "cost-latency": _latency(rows),
        "cost-size": _bars(size, "adapter_bytes", "bytes", "saved size"),
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def captions(rows: Rows) -> dict[str, str]:
    """Return what the bars of each chart mean, and which of them would not fit."""
    _, beyond = _sizes(rows)
    size = "Bytes of the saved adapter."
    if beyond:
        size += f" Not drawn, being a whole model: {listing([f'{name} ({shown})' for name, shown in beyond.items()])}."
    return {
        "cost-train-time": "Bars: mean over seeds. Lines: ± sample standard deviation.",
        "cost-latency": "Median of repeated generations of one sequence. Attached: the adapter beside the base. "
        "Merged: the adapter added into the base's weights, which not every base allows. Rows without an adapter are "
        "the model as it is.",
        "cost-size": size,
    }


def _sizes(rows: Rows) -> tuple[Rows, dict[str, str]]:
    """Return the rows whose size can be drawn from zero beside the others, and the sizes of those that cannot."""
    sizes = [
        float(row["adapter_bytes"]) for row in rows if row["method"] in METHODS and not missing(row["adapter_bytes"])
    ]
    limit = 10 * max(sizes) if sizes else inf
    beyond = [row for row in rows if not missing(row["adapter_bytes"]) and row["adapter_bytes"] > limit]
    shown = {row["configuration"]: amount("bytes", row["adapter_bytes"]) for row in beyond}
    return [row for row in rows if row["configuration"] not in shown], shown


def _known(rows: Rows, keys: Iterable[str]) -> Rows:
    return [row for row in rows if any(not missing(row.get(key)) for key in keys)]


def _bars(rows: Rows, key: str, kind: str, what: str, spread: str = "") -> Any:
    """Return bars of one measure from zero, all in one unit, with their spread over seeds where there is one."""
    known = _known(rows, [key])
    if not known:
        return None
    frame, name = _bar_rows(known, key, kind, spread)
    scale = alt.Scale(domain=[0, float(frame["high"].max()) * 1.16], nice=False)
    x = alt.X("value:Q", title=f"{what}, {name}", scale=scale, axis=alt.Axis(tickCount=5, format="~g"))
    base = alt.Chart(frame).encode(y=_names(known), tooltip=tooltip(("label:N", "configuration"), ("shown:N", what)))
    layers = [base.mark_bar(style="cost", height={"band": 0.7}).encode(x=x)]
    if spread:
        layers.append(base.mark_rule(style="spread").encode(x="low:Q", x2="high:Q"))
    layers.append(base.mark_text(style="value", align="left", dx=7).encode(x="high:Q", text="shown:N"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(22))
    described = "; ".join(f"{row['label']}: {row['shown']}" for row in frame.to_dict("records"))
    return finish(whole, what.capitalize(), f"{what.capitalize()}. {described}", margin=room(frame["label"]))


def _bar_rows(known: Rows, key: str, kind: str, spread: str) -> tuple[pd.DataFrame, str]:
    values = [float(row[key]) for row in known]
    size, name = unit(kind, max(values))
    rows = [
        {
            "label": row["configuration"],
            "value": value / size,
            "shown": f"{number(value / size)} {name}",
            "low": (value - _spread(row, spread)) / size,
            "high": (value + _spread(row, spread)) / size,
        }
        for row, value in zip(known, values, strict=True)
    ]
    return pd.DataFrame(rows), name


def _spread(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    return 0.0 if missing(value) or isnan(float(value)) else float(value)  # type: ignore[arg-type]


def _names(rows: Rows, shown: bool = True) -> Any:
    axis = alt.Axis(labelLimit=260, domain=False, ticks=False, grid=False) if shown else None
    order = [row["configuration"] for row in rows]
    return alt.Y("label:N", sort=order, title=None, axis=axis, scale=alt.Scale(domain=order))


def _latency(rows: Rows) -> Any:
    """Return attached beside merged for the first token and for each further one, names shared."""
    known = _known(rows, [key for pair in LATENCY.values() for key in pair])
    if not known:
        return None
    panels: list[Any] = []
    for title, pair in LATENCY.items():
        frame = _long(known, pair)
        if not frame.empty:
            panels.append(_panel(frame, title, _names(known, shown=not panels), len(known)))
    described = "; ".join(
        f"{row['configuration']}: {amount('seconds', row['token_seconds'])} per token" for row in known
    )
    whole = alt.hconcat(*panels, spacing=16)
    return finish(
        whole,
        "Inference latency",
        f"Inference latency. {described}",
        margin=room([row["configuration"] for row in known], 2),
        least=120,
    )


def _long(rows: Rows, pair: tuple[str, str]) -> pd.DataFrame:
    found = [
        {"label": row["configuration"], "way": way, "value": float(row[key]), "shown": amount("seconds", row[key])}
        for row in rows
        for way, key in zip(("attached", "merged"), pair, strict=True)
        if not missing(row.get(key))
    ]
    return pd.DataFrame(found, columns=["label", "way", "value", "shown"])


def _panel(frame: pd.DataFrame, title: str, y: Any, count: int) -> Any:
    size, name = unit("seconds", float(frame["value"].max()))
    frame = frame.assign(value=frame["value"] / size)
    top = float(frame["value"].max()) * 1.05
    x = alt.X(
        "value:Q", title=f"{title}, {name}", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=5)
    )
    ways = ["attached", "merged"]
    legend = alt.Legend(title=None, orient="top")
    tips = tooltip(("label:N", "configuration"), ("way:N", "adapter"), ("shown:N", title))
    bars = (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=x,
            y=y,
            yOffset=alt.YOffset("way:N", sort=ways, scale=alt.Scale(domain=ways)),
            color=alt.Color("way:N", sort=ways, legend=legend, scale=alt.Scale(domain=ways)),
            tooltip=tips,
        )
    )
    return bars.properties(width=WIDTH // 2 - 20, height=count * 26)
