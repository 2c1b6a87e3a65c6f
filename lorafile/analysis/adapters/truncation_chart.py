"""The chart of truncation: quality against the rank that is kept, one line for each configuration."""

from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, quality, tooltip
from lorafile.analysis.common.format import score
from lorafile.results.results import Results

Rows = list[dict[str, Any]]
_TIPS = (("configuration:N", "configuration"), ("rank:Q", "rank"), ("kind:N", "how"), ("shown:N", "mean"))


def chart(results: Results, metric: str, rows: Rows) -> Any:
    """Return one line for each configuration, its own rank included; hollow squares: trained at that rank."""
    found = quality(results, metric)
    frame = _frame(metric, rows)
    ranks = sorted({int(rank) for rank in frame["rank"]})
    scale = alt.Scale(type="log", domain=[ranks[0] / 1.1, ranks[-1] * 1.1], nice=False)
    axis = alt.Axis(values=ranks, format="~g", grid=False, labelOverlap="greedy")
    x = alt.X("rank:Q", scale=scale, axis=axis, title="rank kept")
    domain = domain_of(metric, float(frame["low"].min()), float(frame["high"].max()))
    y = alt.Y(
        "mean:Q",
        title=found.title,
        scale=found.scale(domain),
        axis=alt.Axis(format=found.format, tickCount=6),
    )
    order = list(dict.fromkeys(row["configuration"] for row in rows))
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300)
    colour: dict[str, Any] = {}
    if len(order) > 1:
        colour["color"] = alt.Color("configuration:N", sort=order, legend=legend)
    cut, trained = frame[frame["kind"] != "trained"], frame[frame["kind"] == "trained"]
    base = alt.Chart(cut).encode(x=x, y=y, tooltip=tooltip(*_TIPS), **colour)
    layers = [
        base.mark_line(style="mean-line"),
        base.mark_rule(style="spread").encode(y=alt.Y("low:Q", title=found.title), y2="high:Q"),
        base.mark_point(style="mean"),
    ]
    if len(trained):
        square = alt.Chart(trained.drop_duplicates(["configuration", "rank"])).mark_point(style="trained-point")
        layers.append(square.encode(x=x, y=y, tooltip=tooltip(*_TIPS)))
    text = "; ".join(f"{row['configuration']} at {row['rank']}: {row['shown']}" for row in cut.to_dict("records"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=280)
    return finish(whole, "Quality against the rank kept", f"{found.title} by rank kept. {text}", margin=110)


def caption(rows: Rows) -> str:
    """Return what the marks mean."""
    text = "Line and bar: mean ± sample standard deviation over seeds; the rightmost point is the adapter as trained."
    trained = any(row["trained"] is not None for row in rows)
    return f"{text} Squares: adapters that were trained at that rank." if trained else text


def _frame(metric: str, rows: Rows) -> pd.DataFrame:
    found = []
    for row in rows:
        for kind, one in (("cut" if row["kept"] else "as trained", row["score"]), ("trained", row["trained"])):
            if one is not None and one.known:
                spread = 0.0 if isnan(one.spread) else one.spread
                name = row["configuration"] if kind != "trained" else row["twin"]
                place = {"configuration": name, "rank": row["rank"], "kind": kind, "mean": one.mean}
                place |= {"low": one.mean - spread, "high": one.mean + spread}
                found.append(place | {"shown": score(metric, one.mean)})
    return pd.DataFrame(found)
