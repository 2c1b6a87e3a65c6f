"""Bars of cost, all from zero: training time, latency attached and merged, saved size."""

from math import isnan
from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd

from lorafile.analysis.draw import WIDTH, finish, tooltip
from lorafile.analysis.text import amount, missing, unit

if TYPE_CHECKING:
    from collections.abc import Iterable

Rows = list[dict[str, Any]]
LATENCY = {"first token": ("first_token_seconds", "merged_first_token_seconds"), "per token": ("token_seconds", "merged_token_seconds")}


def charts(rows: Rows) -> dict[str, Any]:
    """Return a chart for each measure that any configuration has."""
    found = {
        "cost-train-time": _bars(rows, "seconds", "seconds", "training time", "seconds.spread"),
        "cost-latency": _latency(rows),
        "cost-size": _bars(rows, "adapter_bytes", "bytes", "saved size"),
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def captions(rows: Rows) -> dict[str, str]:
    """Return what the bars of each chart mean."""
    del rows
    return {
        "cost-train-time": "Bars: mean over seeds. Lines: ± sample standard deviation. From zero.",
        "cost-latency": "Median of repeated generations with one sequence; attached is the adapter beside the base, merged "
        "is the adapter added into the base's weights (not possible for every base). From zero.",
        "cost-size": "Bytes of the saved adapter, or of the saved model for full fine-tuning.",
    }


def _known(rows: Rows, keys: "Iterable[str]") -> Rows:
    return [row for row in rows if any(not missing(row.get(key)) for key in keys)]


def _bars(rows: Rows, key: str, kind: str, what: str, spread: str = "") -> Any:
    """Return bars of one measure; sizes that span a thousandfold are dots on a logarithmic axis, which has no zero."""
    known = _known(rows, [key])
    if not known:
        return None
    values = [float(row[key]) for row in known]
    size, name = unit(kind, max(values))
    log = min(values) > 0 and max(values) / min(values) > 300
    frame = pd.DataFrame(
        {
            "label": row["configuration"],
            "value": value / size,
            "shown": amount(kind, value),
            "low": (value - _spread(row, spread)) / size,
            "high": (value + _spread(row, spread)) / size,
        }
        for row, value in zip(known, values, strict=True)
    )
    top = float(frame["high"].max())
    bottom = float(frame["value"].min())
    scale = alt.Scale(type="log", domain=[bottom / 2, top * 4]) if log else alt.Scale(domain=[0, top * 1.16], nice=False)
    note = "; logarithmic" if log else ""
    x = alt.X("value:Q", title=f"{what}, {name}{note}", scale=scale, axis=alt.Axis(tickCount=5, format="~g"))
    base = alt.Chart(frame).encode(y=_names(known), tooltip=tooltip(("label:N", "configuration"), ("shown:N", what)))
    mark = base.mark_point(style="mean") if log else base.mark_bar(style="cost", height={"band": 0.7})
    text = base.mark_text(style="value", align="left", dx=7).encode(x=alt.X("high:Q"), text="shown:N")
    layers = [mark.encode(x=x), text]
    if spread:
        layers.insert(1, base.mark_rule(style="spread").encode(x="low:Q", x2="high:Q"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(22))
    described = "; ".join(f"{row['label']}: {row['shown']}" for row in frame.to_dict("records"))
    return finish(whole, what.capitalize(), f"{what.capitalize()}. {described}", margin=250)


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
    panels = []
    for title, pair in LATENCY.items():
        frame = _long(known, pair)
        if not frame.empty:
            panels.append(_panel(frame, title, _names(known, shown=not panels), len(known)))
    described = "; ".join(f"{row['configuration']}: {amount('seconds', row['token_seconds'])} per token" for row in known)
    whole = alt.hconcat(*panels, spacing=16)
    return finish(whole, "Inference latency", f"Inference latency. {described}", margin=260, least=120)


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
    x = alt.X("value:Q", title=f"{title}, {name}", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=5))
    ways = ["attached", "merged"]
    legend = alt.Legend(title=None, orient="top")
    tips = tooltip(("label:N", "configuration"), ("way:N", "adapter"), ("shown:N", title))
    bars = alt.Chart(frame).mark_bar().encode(
        x=x,
        y=y,
        yOffset=alt.YOffset("way:N", sort=ways, scale=alt.Scale(domain=ways)),
        color=alt.Color("way:N", sort=ways, legend=legend, scale=alt.Scale(domain=ways)),
        tooltip=tips,
    )
    return bars.properties(width=WIDTH // 2 - 20, height=count * 26)
