"""What does each configuration cost: training time, inference latency attached and merged, and saved size.

Bars of cost are all drawn from zero.
"""

from math import inf
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table, filled
from lorafile.analysis.common.chart_parts import WIDTH, finish, names_axis, room, tooltip
from lorafile.analysis.common.display_names import display_names
from lorafile.analysis.common.format import amount, unit
from lorafile.analysis.common.scores import TIME, averages, disturbed, profiled, profiles, unmeasurable, values
from lorafile.analysis.tradeoffs.speed import SCATTERED, base_ratios, marks, not_measurable, trusted
from lorafile.results.results import Results, grouped, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing, plural

PROFILED: tuple[tuple[str, str, ColumnKind], ...] = (
    ("train_step_seconds", "training step time", "seconds"),
    ("tokens_per_second", "training tokens per second", "number"),
    ("first_token_seconds", "first token, attached", "seconds"),
    ("merged_first_token_seconds", "first token, merged", "seconds"),
    ("token_seconds", "per token, attached", "seconds"),
    ("merged_token_seconds", "per token, merged", "seconds"),
    ("base_token_seconds", "per token, bare base", "seconds"),
)
TIMED = tuple(key for key, _, _ in PROFILED)
Rows = list[dict[str, Any]]
LATENCY = {
    "first token": ("first_token_seconds", "merged_first_token_seconds"),
    "per token": ("token_seconds", "merged_token_seconds"),
}
WAYS = ["attached", "merged"]
_CAPTIONS = {
    "cost-train-time": "Bars: median over seeds. Lines: from the fastest seed to the slowest.",
    "cost-latency": "Median of repeated generations of one sequence. Attached: the adapter next to the base. "
    "Merged: the adapter added into the base's weights, which not every base allows. Rows without an adapter are "
    "the untuned model.",
}


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return the costs of every configuration; nothing where none was measured."""
    rows = cost_rows(results)
    columns = (
        Column("configuration", "configuration"),
        Column("seconds", "training time (median)", "seconds"),
        *(Column(key, title, kind) for key, title, kind in PROFILED),
        Column("adapter_bytes", "saved size", "bytes"),
        Column("times", "times"),
    )
    shown = filled(columns, rows)
    if len(shown) < 2:
        return []
    question = "How long does training take, how fast is inference, and how large are the saved files?"
    names = display_names(results)
    named = [row | {"label": names[row["configuration"]]} for row in rows]
    lines, table = _sentences(results, rows), Table("Time and size", pd.DataFrame(rows), shown)
    drawn, captions = charts(trusted(results, named, TIMED))
    if left := [row["configuration"] for row in rows if row["configuration"] in disturbed(results)]:
        captions["cost-latency"] += f" Not drawn ({len(left)}): {listing(left, 20)}, timed while the machine was busy "
        captions["cost-latency"] += "with other work."
    return [Analysis("cost", "cost", "Cost", question, lines, (table,), drawn, captions)]


def cost_rows(results: Results) -> list[dict[str, Any]]:
    """Return one row for each configuration: seconds, bytes and tokens per second, None where not measured."""
    seconds, size = averages(results, TIME), averages(results, "adapter_bytes")
    taken = grouped((name, value) for (name, _), value in values(results, TIME).items())
    measured = {key: profiled(results, key) for key, _, _ in PROFILED}
    says_nothing = marks(results)
    rows = []
    for name in results.names:
        row: dict[str, Any] = {"configuration": name, "method": results.methods[name], "adapter_bytes": size.get(name)}
        row |= {"seconds": seconds.get(name)}
        row |= {"seconds.low": min(own), "seconds.high": max(own)} if (own := taken.get(name)) else {}
        row |= {"times": says_nothing.get(name, "")}
        rows.append(row | {key: figures.get(name) for key, figures in measured.items()})
    return rows


def _sentences(results: Results, all_rows: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    rows = trusted(results, all_rows, TIMED)
    for key, what in (("seconds", "Training time"), ("token_seconds", "Time per token, without merging,")):
        measured = [row for row in rows if not missing(row[key])]
        if len(measured) > 1:
            low, high = (
                f"{amount('seconds', row[key])} ({row['configuration']})"
                for row in (pick(measured, key=lambda row: row[key]) for pick in (min, max))
            )
            lines.append(f"{what} ranges from {low} to {high}.")
    if scattered := [name for name in results.names if name in unmeasurable(results, "train_time")]:
        lines.append(f"The training time of {listing(scattered, 20)} is not measurable here: {SCATTERED}.")
    lines += merging(rows) + _sizes(rows)
    if untimed := [row["configuration"] for row in all_rows if missing(row["token_seconds"])]:
        lines.append(f"No latency measurement: {listing(untimed, 20)}.")
    lines += not_measurable(results) or untrusted(results)
    device, others = profiles(results)
    if len(device) and "device" in device.columns:
        lines.append(
            f"Latency was measured on {device['device'].iloc[0]}, with nothing else from the study running there."
        )
    if others:
        lines.append(f"Profiles from other devices are excluded: {listing(others)}.")
    return lines


def untrusted(results: Results) -> list[str]:
    """Return what was timed while its machine did other work."""
    busy = [name for name in results.names if name in disturbed(results)]
    was = "was" if len(busy) == 1 else "were"
    line = f"{listing(busy)} {was} timed while the machine was busy with other work: do not rely on these times."
    return [line] if busy else []


def merging(rows: list[dict[str, Any]]) -> list[str]:
    """Return what merging does to the time per token, over the configurations measured both ways.

    Where the bare base was timed in the same process, a merged adapter is compared with that.
    """
    against = list(base_ratios(rows, "merged_token_seconds").values())
    pairs = [(row["token_seconds"], row["merged_token_seconds"]) for row in rows]
    ratios = against or [
        after / before - 1 for before, after in pairs if before and not missing(before) and not missing(after)
    ]
    if not ratios:
        return []
    low, high = min(ratios), max(ratios)
    ends = signed_share(low) if f"{low:.2f}" == f"{high:.2f}" else f"{signed_share(low)} to {signed_share(high)}"
    if against:
        of = f"({plural(len(ratios), 'configuration')}, each compared with the bare base in the same process)"
        return [f"A merged adapter changes the time per token by {ends} {of}."]
    return [
        f"Merging the adapter changes the time per token by {ends} ({plural(len(ratios), 'configuration')} measured "
        "both ways)."
    ]


def signed_share(share: float) -> str:
    """Return a change as a share with its sign: `+40.0 %`."""
    return f"{'+' if share >= 0 else '−'}{amount('share', abs(share))}"


def _sizes(rows: list[dict[str, Any]]) -> list[str]:
    saved = [row for row in rows if not missing(row["adapter_bytes"])]
    adapters = [row for row in saved if row["method"] in METHODS]
    if not adapters:
        return []
    low, high = (pick(adapters, key=lambda row: row["adapter_bytes"]) for pick in (min, max))
    text = f"An adapter takes {amount('bytes', low['adapter_bytes'])} ({low['configuration']})"
    if high["adapter_bytes"] != low["adapter_bytes"]:
        text += f" to {amount('bytes', high['adapter_bytes'])} ({high['configuration']})"
    full = [
        f"; full fine-tuning saves {amount('bytes', row['adapter_bytes'])}" for row in saved if row["method"] == "full"
    ]
    return [f"{text}{full[0] if full else ''}."]


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
        whole = listing([f"{name} ({shown})" for name, shown in beyond.items()])
        size += f" Not drawn because a whole model is saved: {whole}."
    drawn = {
        "cost-train-time": _bars(rows, "seconds", "seconds", "training time", ("seconds.low", "seconds.high")),
        "cost-latency": _latency(rows),
        "cost-size": _bars(
            [row for row in rows if row["configuration"] not in beyond], "adapter_bytes", "bytes", "saved size"
        ),
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}, _CAPTIONS | {"cost-size": size}


def _bars(rows: Rows, key: str, kind: str, what: str, ends: tuple[str, str] | None = None) -> Any:
    """Return bars of one measure from zero, all in one unit, with their range over seeds where there is one."""
    measured = [row for row in rows if not missing(row.get(key))]
    if not measured:
        return None
    size, name = unit(kind, max(float(row[key]) for row in measured))
    bars = []
    for row in measured:
        value = float(row[key])
        low, high = (float(row[end]) for end in ends) if ends else (value, value)
        bar = {"label": row["label"], "configuration": row["configuration"], "value": value / size}
        bar["shown"] = amount(kind, value)
        bars.append(bar | {"low": low / size, "high": high / size})
    scale = alt.Scale(domain=[0, max(bar["high"] for bar in bars) * 1.16], nice=False)
    x = alt.X("value:Q", title=f"{what}, {name}", scale=scale, axis=alt.Axis(tickCount=5, format="~r"))
    tips = tooltip(("configuration:N", "configuration"), ("shown:N", what))
    base = alt.Chart(pd.DataFrame(bars)).encode(y=_names(measured), tooltip=tips)
    layers = [base.mark_bar(style="cost", height={"band": 0.7}).encode(x=x)]
    if ends:
        layers.append(base.mark_rule(style="spread").encode(x="low:Q", x2="high:Q"))
    layers.append(base.mark_text(style="value", align="left", dx=7).encode(x="high:Q", text="shown:N"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(22))
    text = "; ".join(f"{bar['label']}: {bar['shown']}" for bar in bars)
    margin = room(bar["label"] for bar in bars)
    return finish(whole, what.capitalize(), f"{what.capitalize()}. {text}", margin=margin)


def _names(rows: Rows) -> alt.Y:
    order = [row["label"] for row in rows]
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
            {"label": row["label"], "configuration": row["configuration"], "way": way, "value": float(row[key])}
            | {"shown": amount("seconds", row[key])}
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
    margin = room([row["label"] for row in timed], 2)
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
        tooltip=tooltip(("configuration:N", "configuration"), ("way:N", "adapter"), ("shown:N", title)),
    )
    return bars.properties(width=WIDTH // 2 - 20, height=count * 26)
