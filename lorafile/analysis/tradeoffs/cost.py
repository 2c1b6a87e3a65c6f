"""What does each configuration cost: training time, inference latency attached and merged, and saved size."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table, filled
from lorafile.analysis.common.format import amount
from lorafile.analysis.common.scores import averages, profiled, profiles, scores
from lorafile.results.results import Results, missing
from lorafile.results.warnings import STEADY, TIME_SPREADS
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing, plural

PROFILED: tuple[tuple[str, str, ColumnKind], ...] = (
    ("train_step_seconds", "time of a training step", "seconds"),
    ("tokens_per_second", "training tokens per second", "number"),
    ("first_token_seconds", "first token, attached", "seconds"),
    ("merged_first_token_seconds", "first token, merged", "seconds"),
    ("token_seconds", "per token, attached", "seconds"),
    ("merged_token_seconds", "per token, merged", "seconds"),
)


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return the costs of every configuration; nothing where none was measured."""
    rows = cost_rows(results)
    columns = (
        Column("configuration", "configuration"),
        Column("seconds", "training time", "seconds", "seconds.spread", "seconds.n"),
        *(Column(key, title, kind) for key, title, kind in PROFILED),
        Column("adapter_bytes", "saved size", "bytes"),
    )
    shown = filled(columns, rows)
    if len(shown) < 2:
        return []
    from lorafile.analysis.tradeoffs.cost_charts import charts

    question = "How long does training take, how fast is inference, and how large is what is saved?"
    lines, table = _sentences(results, rows), Table("Time and size", pd.DataFrame(rows), shown)
    return [Analysis("cost", "cost", "Cost", question, lines, (table,), *charts(rows))]


def cost_rows(results: Results) -> list[dict[str, Any]]:
    """Return one row for each configuration: seconds, bytes and tokens per second, None where not measured."""
    seconds, size = scores(results, "seconds"), averages(results, "adapter_bytes")
    measured = {key: profiled(results, key) for key, _, _ in PROFILED}
    rows = []
    for name in results.names:
        time = seconds[name]
        row: dict[str, Any] = {"configuration": name, "method": results.methods[name], "adapter_bytes": size.get(name)}
        row |= {"seconds": time.mean, "seconds.spread": time.spread, "seconds.n": time.n if time.known else None}
        rows.append(row | {key: figures.get(name) for key, figures in measured.items()})
    return rows


def _sentences(results: Results, rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for key, what in (("seconds", "Training time"), ("token_seconds", "Time per token, nothing merged,")):
        measured = [row for row in rows if not missing(row[key])]
        if len(measured) > 1:
            low, high = (
                f"{amount('seconds', row[key])} ({row['configuration']})"
                for row in (pick(measured, key=lambda row: row[key]) for pick in (min, max))
            )
            lines.append(f"{what} goes from {low} to {high}.")
    lines += merging(rows) + _sizes(rows)
    if untimed := [row["configuration"] for row in rows if missing(row["token_seconds"])]:
        lines.append(f"Without a latency measurement: {listing(untimed, 20)}.")
    lines += untrusted(results)
    device, others = profiles(results)
    if len(device) and "device" in device.columns:
        lines.append(f"Latency was measured on {device['device'].iloc[0]}, while nothing else of the study ran there.")
    if others:
        lines.append(f"Profiles of other devices are left out: {listing(others)}.")
    return lines


def untrusted(results: Results) -> list[str]:
    """Return what was timed while its machine did other work: the same answer took times that lie far apart."""
    spreads = [profiled(results, key) for key in TIME_SPREADS]
    busy = [name for name in results.names if max(spread.get(name, 0) for spread in spreads) > STEADY]
    was = "was" if len(busy) == 1 else "were"
    line = f"{listing(busy)} {was} timed while the machine did other work: these times are not to be trusted."
    return [line] if busy else []


def merging(rows: list[dict[str, Any]]) -> list[str]:
    """Return what merging does to the time per token, over the configurations measured both ways."""
    pairs = [(row["token_seconds"], row["merged_token_seconds"]) for row in rows]
    ratios = [after / before - 1 for before, after in pairs if before and not missing(before) and not missing(after)]
    if not ratios:
        return []
    low, high = min(ratios), max(ratios)
    ends = signed_share(low) if f"{low:.2f}" == f"{high:.2f}" else f"{signed_share(low)} to {signed_share(high)}"
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
