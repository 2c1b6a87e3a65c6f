"""Does merging change the model: attached against merged for each type, with the declared gate, and what it saves."""

import math
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import amount, number
from lorafile.analysis.common.scores import profiled
from lorafile.results.results import Results, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

Row = dict[str, Any]
LATENCY = ("token_seconds", "merged_token_seconds")
_FIGURES = ("max_logit_difference", "mean_logit_difference", "argmax_agreement", "log_loss_difference")
Rows = list[dict[str, Any]]
CAPTION = (
    "How far the log loss of held-out text moves when the adapter is merged, the worst seed's, on a logarithmic axis. "
    "Crosses fail the declared gate. Types that overflow have no figure and are not drawn."
)
_LEAST = 1e-9  # what float64 sums of float32 logits cannot tell from nothing


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what merging did; nothing where nothing was merged."""
    rows = merge_rows(results)
    if not rows:
        return []
    question = "Is the merged model the same as the one that was measured?"
    made = Analysis("merge", "merge", "Merging", question, _sentences(rows), (_table_of(rows),))
    return [made.with_chart(_chart(rows), CAPTION)]


def merge_rows(results: Results) -> list[Row]:
    """Return one row for each configuration and type: of every figure the worst seed's, and who failed the gate."""
    found: dict[tuple[str, str], list[Row]] = {}
    for one in results.merges.to_dict("records"):
        known = {str(key): value for key, value in one.items()}
        found.setdefault((str(known["configuration"]), str(known["dtype"])), []).append(known)
    latency = {key: profiled(results, key) for key in LATENCY}
    rows = []
    for (name, dtype), mine in found.items():
        failed = [row for row in mine if not row["passes"]]
        row: Row = {"configuration": name, "dtype": dtype, "seeds": len(mine), "failed": len(failed)}
        row["gate"] = "passes" if not failed else f"fails ({len(failed)} of {len(mine)})"
        row["reasons"] = max((other["failures"] for other in failed), key=len, default=[])
        row |= {key: _worst(key, [other.get(key) for other in mine]) for key in _FIGURES}
        rows.append(row | {key: measured.get(name) for key, measured in latency.items()})
    return rows


def _worst(key: str, values: list[Any]) -> float | None:
    known = [float(value) for value in values if not missing(value)]
    if not known:
        return None
    return min(known) if key == "argmax_agreement" else max(known, key=abs)


def _sentences(rows: list[Row]) -> list[str]:
    lines = []
    for row in (row for row in rows if row["failed"]):
        seeds = f"{row['failed']} of {plural(row['seeds'], 'seed')}"
        reasons = listing(row["reasons"])
        lines.append(f"{row['configuration']} in {row['dtype']} fails the gate under {seeds}, with {reasons}.")
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        mine = [row for row in rows if row["dtype"] == dtype]
        known = [row for row in mine if row["log_loss_difference"] is not None]
        passed = sum(not row["failed"] for row in mine)
        text = f"Merged in {dtype}, {passed} of {plural(len(mine), 'configuration')} pass"
        if known:
            loss = max(abs(row["log_loss_difference"]) for row in known)
            logit = max(row["max_logit_difference"] for row in known)
            agreed = min(row["argmax_agreement"] for row in known)
            text += (
                f"; at worst the log loss moves by {number(loss)} nats per token, a logit by {number(logit)}, and the "
                f"first choice agrees at {amount('share', agreed)} of tokens"
            )
        lines.append(f"{text}.")
    return lines


def _table_of(rows: list[Row]) -> Table:
    columns = (
        Column("configuration", "configuration"),
        Column("dtype", "merged in"),
        Column("gate", "gate"),
        Column("log_loss_difference", "log loss moved, nats per token", "number"),
        Column("max_logit_difference", "largest logit difference", "number"),
        Column("mean_logit_difference", "mean logit difference", "number"),
        Column("argmax_agreement", "argmax agreement", "share"),
        Column("token_seconds", "per token, attached", "seconds"),
        Column("merged_token_seconds", "per token, merged", "seconds"),
    )
    known = tuple(column for column in columns if any(not missing(row.get(column.key)) for row in rows))
    frame = pd.DataFrame(rows).drop(columns=["reasons"])
    return Table("Attached against merged, of each figure the worst seed's", frame, known)


def _chart(rows: Rows) -> Any:
    """Return a mark for each configuration and type, log loss moved on a logarithmic axis."""
    import altair as alt

    from lorafile.analysis.common.chart_parts import WIDTH, finish, room, tooltip

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
