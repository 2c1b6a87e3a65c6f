"""Does merging change the model: attached against merged for each type, with the declared gate, and what it saves."""

import math
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.format import amount, number
from lorafile.analysis.common.scores import cost_of
from lorafile.results.merging import ROUNDING, batch_rounding
from lorafile.results.results import Results, grouped, missing, row_dicts
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

Row = dict[str, Any]
_BATCH = "batch_mean_logit_difference"
_LATENCY = {"token_seconds": "token_latency", "merged_token_seconds": "merged_token_latency"}
_FIGURES = ("max_logit_difference", "mean_logit_difference", "argmax_agreement", "log_loss_difference")
CAPTION = (
    "How much the {} of held-out text changes when the adapter is merged (worst seed, logarithmic axis). Crosses fail "
    "the declared gate. Data types that overflow have no value and are not drawn."
)
_LEAST = 1e-9  # what float64 sums of float32 logits cannot tell from nothing


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what merging did; nothing where nothing was merged."""
    rows = merge_rows(results.merges, {key: cost_of(results, measure) for key, measure in _LATENCY.items()})
    if not rows:
        return []
    question = "Does the merged model match the one that was measured?"
    analysis = Analysis("merge", "merge", "Merging", question, _sentences(rows), (_table_of(rows),))
    return [analysis.with_chart(_chart(rows), CAPTION.format(_drawn(rows)[1]))]


def merge_rows(merges: pd.DataFrame, latency: dict[str, dict[str, float]]) -> list[Row]:
    """Return one row for each configuration and type: of every figure the worst seed's, and which failed the gate."""
    rows = []
    by_type = grouped(((str(row["configuration"]), str(row["dtype"])), row) for row in row_dicts(merges))
    for (name, dtype), seeds in by_type.items():
        failed = [row for row in seeds if not row["passes"]]
        row: Row = {"configuration": name, "dtype": dtype, "seeds": len(seeds), "failed": len(failed)}
        row["gate"] = "passes" if not failed else f"fails ({len(failed)} of {len(seeds)})"
        row["reasons"] = max((seed["failures"] for seed in failed), key=len, default=[])
        row |= {key: _worst(key, [seed.get(key) for seed in seeds]) for key in _FIGURES}
        moved = [seed for seed in seeds if not missing(seed.get("mean_logit_difference"))]
        row[_BATCH] = (
            batch_rounding(max(moved, key=lambda seed: float(seed["mean_logit_difference"]))) if moved else None
        )
        rows.append(row | {key: seconds.get(name) for key, seconds in latency.items()})
    return rows


def _worst(key: str, values: list[Any]) -> float | None:
    figures = [float(value) for value in values if not missing(value)]
    if key == "argmax_agreement":
        return min(figures, default=None)
    return max(figures, key=abs, default=None)


def _sentences(rows: list[Row]) -> list[str]:
    lines = []
    for row in (row for row in rows if row["failed"]):
        seeds = f"{row['failed']} of {plural(row['seeds'], 'seed')}"
        reasons = listing(row["reasons"])
        lines.append(f"{row['configuration']} in {row['dtype']} fails the gate for {seeds}: {reasons}.")
    for dtype, members in grouped((row["dtype"], row) for row in rows).items():
        passed = sum(not row["failed"] for row in members)
        text = f"Merged in {dtype}, {passed} of {plural(len(members), 'configuration')} pass"
        lines.append(f"{text}{_at_worst([row for row in members if row['max_logit_difference'] is not None])}.")
        lines += _rounding([row for row in members if row[_BATCH] is not None])
    return lines


def _rounding(rounded: list[Row]) -> list[str]:
    """Return what merging moves next to what a change of batch alone does, of the configuration that moves most."""
    if not rounded:
        return []
    row = max(rounded, key=lambda row: row["mean_logit_difference"] / row[_BATCH])
    return [
        f"The attached model computes in half precision, so every result is subject to rounding: merging changes a "
        f"logit by {number(row['mean_logit_difference'])} on average ({row['configuration']}), and a different batch "
        f"alone changes it by {number(row[_BATCH])}. Up to {ROUNDING} times as much counts as rounding."
    ]


def _at_worst(measured: list[Row]) -> str:
    """Return how far merging moved anything, in words; nothing where nothing could be measured."""
    if not measured:
        return ""
    logit = max(row["max_logit_difference"] for row in measured)
    if measured[0]["log_loss_difference"] is None:
        return f"; at worst a predicted number changes by {number(logit)}"
    loss = max(abs(row["log_loss_difference"]) for row in measured)
    agreed = min(row["argmax_agreement"] for row in measured)
    return (
        f"; at worst the log loss changes by {number(loss)} nats per token, a logit by {number(logit)}, and the top "
        f"token agrees for {amount('share', agreed)} of tokens"
    )


def _drawn(rows: list[Row]) -> tuple[str, str, str]:
    """Return what the chart draws: a figure, what it is of, and its unit."""
    if all(row["log_loss_difference"] is None for row in rows) and any(row["max_logit_difference"] for row in rows):
        return "max_logit_difference", "predicted number", "units of the label"
    return "log_loss_difference", "log loss", "nats per token"


def _table_of(rows: list[Row]) -> Table:
    columns = (
        Column("configuration", "configuration"),
        Column("dtype", "merged in"),
        Column("gate", "gate"),
        Column("log_loss_difference", "log loss change, nats per token", "number"),
        Column("max_logit_difference", "largest logit difference", "number"),
        Column("mean_logit_difference", "mean logit difference", "number"),
        Column(_BATCH, "mean logit difference, another batch", "number"),
        Column("argmax_agreement", "argmax agreement", "share"),
        Column("token_seconds", "per token, attached", "seconds"),
        Column("merged_token_seconds", "per token, merged", "seconds"),
    )
    frame = pd.DataFrame(rows).drop(columns=["reasons"])
    return Table("Attached versus merged, worst seed in each column", frame, filled(columns, rows))


def _chart(rows: list[Row]) -> Any:
    """Return a mark for each configuration and type, how far it moved on a logarithmic axis."""
    import altair as alt

    from lorafile.analysis.common.chart_parts import WIDTH, finish, names_axis, room, tooltip

    figure, what, unit = _drawn(rows)
    drawn = [
        {
            "label": row["configuration"],
            "dtype": row["dtype"],
            "moved": max(abs(row[figure]), _LEAST),
            "shown": f"{number(abs(row[figure]))} {unit}",
            "gate": "fails" if row["failed"] else "passes",
        }
        for row in rows
        if row[figure] is not None
    ]
    frame = pd.DataFrame(drawn, columns=["label", "dtype", "moved", "shown", "gate"])
    moved = [row["moved"] for row in drawn] or [1e-6, 1e-2]
    low, high = min(moved) / 3, max(moved) * 3
    tens = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    scale, axis = alt.Scale(type="log", domain=[low, high], nice=False), alt.Axis(format=".0e", values=tens)
    order, types = (list(dict.fromkeys(row[key] for row in rows)) for key in ("configuration", "dtype"))
    shapes = alt.Scale(domain=["passes", "fails"], range=["circle", "cross"])
    marks = alt.Chart(frame).mark_point(filled=True, size=90, opacity=0.9)
    whole = marks.encode(
        x=alt.X("moved:Q", scale=scale, axis=axis, title=f"change in {what} from merging, {unit}"),
        y=names_axis(order, alt.Scale(domain=order), grid=True),
        color=alt.Color("dtype:N", sort=types, legend=alt.Legend(title=None, orient="top")),
        shape=alt.Shape("gate:N", scale=shapes, legend=None),
        angle=alt.condition("datum.gate == 'fails'", alt.value(45), alt.value(0)),
        tooltip=tooltip(("label:N", "configuration"), ("dtype:N", "type"), ("shown:N", "change"), ("gate:N", "gate")),
    ).properties(width=WIDTH, height=alt.Step(26))
    text = "; ".join(f"{row['label']} in {row['dtype']}: {row['shown']}" for row in drawn)
    description = f"Change in {what} from merging. {text}"
    return finish(whole, "Attached versus merged", description, margin=room(order))
