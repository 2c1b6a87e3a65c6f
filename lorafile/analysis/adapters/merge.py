"""Does merging change the model: attached against merged for each type, with the declared gate, and what it saves."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import amount, missing, number
from lorafile.analysis.common.scores import profiled
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

Row = dict[str, Any]
LATENCY = ("token_seconds", "merged_token_seconds")
_FIGURES = ("max_logit_difference", "mean_logit_difference", "argmax_agreement", "log_loss_difference")


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what merging did; nothing where nothing was merged."""
    rows = merge_rows(results)
    if not rows:
        return []
    from lorafile.analysis.adapters.merge_chart import CAPTION, chart

    return [
        Analysis(
            kind="merge",
            name="merge",
            title="Merging",
            question="Is the merged model the same as the one that was measured?",
            sentences=_sentences(rows),
            tables=(_table_of(rows),),
            charts={"merge": chart(rows)},
            captions={"merge": CAPTION},
        )
    ]


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
