"""What did training cost elsewhere? The loss on a reference text before and after, held against the gain."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import kind_of, metric_name, number
from lorafile.analysis.common.scores import Score, references, scores, split_of
from lorafile.analysis.common.wording import on, without_figure
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import plural

UNIT = "nats per token"


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return the change of the reference text's loss beside each configuration's quality; nothing without a text."""
    if "reference.change" not in results.runs.columns:
        return []
    metric = table.metric or results.primary
    trained = dict(zip(results.configurations["configuration"], results.configurations["trained"], strict=True))
    changes = {name: one for name, one in scores(results, "reference.change").items() if trained[name]}
    known = {name: one for name, one in changes.items() if one.known}
    if not known:
        return []
    from lorafile.analysis.adapters.forgetting_chart import CAPTION, chart

    name = "forgetting" if metric == results.primary else f"forgetting-{metric.replace('_', '-')}"
    return [
        Analysis(
            kind="forgetting",
            name=name,
            title="Forgetting",
            question="What did training cost on the reference text?",
            sentences=_sentences(results, changes, known),
            tables=(_table(results, metric, known),),
            charts={name: chart(results, metric, known)},
            captions={name: CAPTION},
        )
    ]


def _sentences(results: Results, changes: dict[str, Score], known: dict[str, Score]) -> list[str]:
    before = scores(results, "reference.before")
    worst = max(known, key=lambda name: known[name].mean)
    least = min(known, key=lambda name: known[name].mean)
    told = _moved(worst, known[worst], before[worst])
    if known[worst].mean <= 0:
        rest = ", the least of all" if len(known) > 1 else ""
        lines = [f"No configuration raised the loss on the reference text: {told}{rest}."]
    else:
        lines = [f"{told}{', the most' if len(known) > 1 else ''}."]
    if worst != least and known[worst].mean > 0:
        lines.append(f"{_moved(least, known[least], before[least])}, the least.")
    lines.append(f"The reference text is {results.reference}; the same base, untuned, is what stands before.")
    lost = without_figure(changes)
    return [*lines, *([f"No figure on the reference text: {', '.join(lost)}."] if lost else [])]


def _moved(name: str, one: Score, before: Score) -> str:
    verb = "raised" if one.mean > 0 else "lowered" if one.mean < 0 else "did not move"
    by = f" by {number(abs(one.mean))} {UNIT}" if one.mean else ""
    spread = "" if isnan(one.spread) else f" ± {number(one.spread, 2)} over {plural(one.n, 'seed')}"
    return f"{name} {verb} the loss on the reference text{by}{spread}, from {number(before.mean)}"


def _table(results: Results, metric: str, known: dict[str, Score]) -> Table:
    split = split_of(results, metric)
    quality, before = scores(results, f"{split}.{metric}"), scores(results, "reference.before")
    untuned = [quality[name].mean for name, role in references(results).items() if role == "untuned"]
    rows: list[dict[str, Any]] = []
    for name, one in known.items():
        row = {"configuration": name, "before": before[name].mean, "after": before[name].mean + one.mean}
        row |= {"change": one.mean, "spread": one.spread, "quality": quality[name].mean}
        row["gain"] = quality[name].mean - untuned[0] if len(untuned) == 1 else float("nan")
        rows.append(row)
    frame = pd.DataFrame(rows)
    columns = [
        Column("configuration", "configuration"),
        Column("before", "loss before", "number"),
        Column("after", "loss after", "number"),
        Column("change", "change (lower is better)", "number", "spread"),
        Column("quality", on(metric, split), kind_of(metric)),
    ]
    if not frame["gain"].isna().all():
        columns.append(Column("gain", f"{metric_name(metric)} above untuned", kind_of(metric)))
    return Table(f"Loss on the reference text, {UNIT}", frame, tuple(columns))
