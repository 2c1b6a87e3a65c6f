"""The chart of merging: how far the log loss moved, for each configuration and type."""

import math
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, room, tooltip
from lorafile.analysis.common.format import number

Rows = list[dict[str, Any]]
CAPTION = (
    "How far the log loss of held-out text moves when the adapter is merged, the worst seed's, on a logarithmic axis. "
    "Crosses fail the declared gate. Types that overflow have no figure and are not drawn."
)
_LEAST = 1e-9  # what float64 sums of float32 logits cannot tell from nothing


def chart(rows: Rows) -> Any:
    """Return a mark for each configuration and type, log loss moved on a logarithmic axis."""
    frame = pd.DataFrame(
        {
            "label": row["configuration"],
            "dtype": row["dtype"],
            "moved": max(abs(row["log_loss_difference"]), _LEAST),
            "shown": f"{number(abs(row['log_loss_difference']))} nats per token",
            "gate": "fails" if row["failed"] else "passes",
        }
        for row in rows
        if row["log_loss_difference"] is not None
    )
    order = list(dict.fromkeys(row["configuration"] for row in rows))
    if frame.empty:
        frame = pd.DataFrame(columns=["label", "dtype", "moved", "shown", "gate"])
    low, high = (float(frame["moved"].min()), float(frame["moved"].max())) if len(frame) else (1e-6, 1e-2)
    scale = alt.Scale(type="log", domain=[low / 3, high * 3], nice=False)
    tens = [10.0**power for power in range(math.ceil(math.log10(low / 3)), math.floor(math.log10(high * 3)) + 1)]
    axis = alt.Axis(format=".0e", values=tens)
    x = alt.X("moved:Q", scale=scale, axis=axis, title="log loss moved by merging, nats per token")
    labels = alt.Axis(labelLimit=260, domain=False, ticks=False, grid=True)
    y = alt.Y("label:N", sort=order, title=None, axis=labels, scale=alt.Scale(domain=order))
    types = list(dict.fromkeys(row["dtype"] for row in rows))
    legend = alt.Legend(title=None, orient="top")
    shape = alt.Shape("gate:N", scale=alt.Scale(domain=["passes", "fails"], range=["circle", "cross"]), legend=None)
    angle = alt.condition("datum.gate == 'fails'", alt.value(45), alt.value(0))
    base = alt.Chart(frame).mark_point(filled=True, size=90, opacity=0.9)
    drawn = base.encode(
        x=x,
        y=y,
        color=alt.Color("dtype:N", sort=types, legend=legend),
        shape=shape,
        angle=angle,
        tooltip=tooltip(("label:N", "configuration"), ("dtype:N", "type"), ("shown:N", "moved"), ("gate:N", "gate")),
    )
    text = "; ".join(f"{row['label']} in {row['dtype']}: {row['shown']}" for row in frame.to_dict("records"))
    whole = drawn.properties(width=WIDTH, height=alt.Step(26))
    return finish(whole, "Attached against merged", f"Log loss moved by merging. {text}", margin=room(order))
