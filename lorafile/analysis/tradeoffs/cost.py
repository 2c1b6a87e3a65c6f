"""What does each configuration cost: training time, inference latency attached and merged, and saved size."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table
from lorafile.analysis.common.format import amount
from lorafile.analysis.common.scores import averages, profiled, profiles, scores
from lorafile.results.results import Results, missing
from lorafile.results.warnings import STEADY, TIME_SPREADS
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing

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
    columns = _columns(rows)
    if len(columns) < 2:
        return []
    from lorafile.analysis.tradeoffs.cost_charts import captions, charts

    question = "How long does training take, how fast is inference, and how large is what is saved?"
    lines, table = _sentences(results, rows), Table("Time and size", pd.DataFrame(rows), columns)
    return [Analysis("cost", "cost", "Cost", question, lines, (table,), charts(rows), captions(rows))]


def cost_rows(results: Results) -> list[dict[str, Any]]:
    """Return one row for each configuration: seconds, bytes and tokens per second, None where not measured."""
    seconds, size = scores(results, "seconds"), averages(results, "adapter_bytes")
    measured = {key: profiled(results, key) for key, _, _ in PROFILED}
    rows = []
    for name in results.names:
        one = seconds[name]
        row: dict[str, Any] = {"configuration": name, "method": results.methods[name], "adapter_bytes": size.get(name)}
        row |= {"seconds": one.mean, "seconds.spread": one.spread, "seconds.n": one.n if one.known else None}
        rows.append(row | {key: found.get(name) for key, found in measured.items()})
    return rows


def _columns(rows: list[dict[str, Any]]) -> tuple[Column, ...]:
    columns = [
        Column("configuration", "configuration"),
        Column("seconds", "training time", "seconds", "seconds.spread", "seconds.n"),
        *(Column(key, title, kind) for key, title, kind in PROFILED),
        Column("adapter_bytes", "saved size", "bytes"),
    ]
    return tuple(column for column in columns if any(not missing(row.get(column.key)) for row in rows))


def _sentences(results: Results, rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for key, what in (("seconds", "Training time"), ("token_seconds", "Time per token, nothing merged,")):
        known = [row for row in rows if not missing(row[key])]
        if len(known) > 1:
            low, high = min(known, key=lambda row: row[key]), max(known, key=lambda row: row[key])
            lines.append(
                f"{what} goes from {amount('seconds', low[key])} ({low['configuration']}) "
                f"to {amount('seconds', high[key])} ({high['configuration']})."
            )
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
    found = [name for name in results.names if max(spread.get(name, 0) for spread in spreads) > STEADY]
    was = "was" if len(found) == 1 else "were"
    told = f"{listing(found)} {was} timed while the machine did other work: these times are not to be trusted."
    return [told] if found else []


def merging(rows: list[dict[str, Any]]) -> list[str]:
    """Return what merging does to the time per token, over the configurations measured both ways."""
    both = [row for row in rows if not missing(row["token_seconds"]) and not missing(row["merged_token_seconds"])]
    ratios = [row["merged_token_seconds"] / row["token_seconds"] - 1 for row in both if row["token_seconds"]]
    if not ratios:
        return []
    low, high = min(ratios), max(ratios)
    ends = f"{signed_share(low)}" if f"{low:.2f}" == f"{high:.2f}" else f"{signed_share(low)} to {signed_share(high)}"
    count = f"{len(ratios)} configuration{'s' if len(ratios) > 1 else ''} measured both ways"
    return [f"Merging the adapter changes the time per token by {ends} ({count})."]


def signed_share(share: float) -> str:
    """Return a change as a share with its sign: `+40.0 %`."""
    return f"{'+' if share >= 0 else '−'}{amount('share', abs(share))}"


def _sizes(rows: list[dict[str, Any]]) -> list[str]:
    adapters = [row for row in rows if row["method"] in METHODS and not missing(row["adapter_bytes"])]
    full = [row for row in rows if row["method"] == "full" and not missing(row["adapter_bytes"])]
    if not adapters:
        return []
    low, high = (pick(adapters, key=lambda row: row["adapter_bytes"]) for pick in (min, max))
    text = f"An adapter takes {amount('bytes', low['adapter_bytes'])} ({low['configuration']})"
    if high["adapter_bytes"] != low["adapter_bytes"]:
        text += f" to {amount('bytes', high['adapter_bytes'])} ({high['configuration']})"
    return [text + (f"; full fine-tuning saves {amount('bytes', full[0]['adapter_bytes'])}." if full else ".")]
