"""What did the study find: every configuration's figures, and how the best stands to its references."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.factors import sweeps
from lorafile.analysis.common.format import above, direction, kind_of, measured, metric_name, on
from lorafile.analysis.common.scores import (
    Score,
    averages,
    best,
    completeness,
    profiled,
    references,
    same_runs,
    scores,
    split_of,
)
from lorafile.analysis.compare.verdict_text import sentence
from lorafile.analysis.compare.verdicts import family
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.environments import places
from lorafile.results.results import Results, missing
from lorafile.specs.tables.analysis import AnalysisTable


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one table for each sweep, the best configuration, and its distance to untuned and full fine-tuning."""
    if not results.names:
        return [Analysis("summary", "summary", "Summary", results.question, ["No run has been recorded yet."])]
    metric = table.metric or results.primary
    title = "Summary" if metric == results.primary else f"Summary by {metric_name(metric)}"
    name = "summary" if metric == results.primary else f"summary-{metric.replace('_', '-')}"
    lines, tables = answer(results, metric), tuple(sweep_tables(results))
    made = Analysis("summary", name, title, results.question, lines, tables)
    if not averages(results, f"{split_of(results, metric)}.{metric}"):
        return [made]
    from lorafile.analysis.overview.chart import caption, overview

    return [made.with_chart(overview(results, metric), caption(results, metric), "summary")]


def answer(results: Results, metric: str) -> list[str]:
    """Return the study's answer in sentences: failures first, then the best one and what it is held against."""
    split = split_of(results, metric)
    found = scores(results, f"{split}.{metric}")
    lines = completeness(results)
    trained = [name for name in found if results.methods[name] != "none"]
    chosen = best(results, trained, metric)
    if chosen is None:
        return [*lines, f"No trained configuration has a figure for {metric_name(metric)} yet."]
    lines.append(_best(results, metric, split, chosen))
    if not found[chosen].known:
        return lines
    itself = {chosen, *same_runs(results, chosen)}
    others = [name for name in trained if name not in itself and found[name].known]
    second = best(results, others, metric)
    shown = {second: "next on validation"} if second else {}
    for name, role in references(results).items():
        shown[name] = f"{role}, {shown[name]}" if name in shown else role
    for name, role in shown.items():
        if name != chosen and found[name].known:
            lines.append(_relation(results, metric, found, chosen, name, role))
    if len(results.seeds) < 2 or max(one.n for one in found.values()) < 2:
        lines.append("There is one seed: nothing here says how much of a difference another seed would make.")
    return lines


def _relation(results: Results, metric: str, found: dict[str, Score], chosen: str, name: str, role: str) -> str:
    """Return the verdict on two configurations, or where the study compares them not, their distance."""
    verdict = family(results).of(chosen, name) if metric == results.primary else None
    if verdict is not None and verdict.decision is not None:
        return sentence(results, verdict)
    return above(metric, chosen, found[chosen], f"{name} ({role})", found[name])


def _best(results: Results, metric: str, split: str, chosen: str) -> str:
    on_validation = scores(results, f"validation.{metric}")[chosen]
    here = scores(results, f"{split}.{metric}")[chosen]
    extreme = "highest" if more_is_better(metric) else "lowest"
    if not on_validation.known:
        rest = "; it was chosen on the same examples, which flatters it"
        return f"{chosen} has the {extreme} mean {on(metric, split)}: {measured(metric, here)}{rest}."
    start = f"{chosen} has the {extreme} mean {on(metric, 'validation')}: {measured(metric, on_validation)}"
    if split == "validation":
        return f"{start}; it was chosen on the same examples, which flatters it."
    if not here.known:
        return f"{start}; it has no figure on test yet."
    return f"{start}. On test, which had no part in choosing it, it scores {measured(metric, here)}."


def sweep_tables(results: Results) -> list[Table]:
    """Return a table for each sweep, with the untuned row and full fine-tuning below what it varies."""
    rows = configuration_rows(results)
    roles = references(results)
    columns = columns_of(results, pd.DataFrame(rows.values()))
    tables = []
    for sweep, members in sweeps(results).items():
        shown = [rows[name] | {"shown": _shown(name, sweep, short)} for name, short in members.items()]
        shown += [rows[name] | {"shown": f"{name} ({role})"} for name, role in roles.items() if name not in members]
        title = f"Sweep {sweep}" if sweep else "Configurations"
        tables.append(Table(title, pd.DataFrame(shown), columns))
    return tables


def _shown(name: str, sweep: str, short: str) -> str:
    """Return a configuration's name, with the name that this sweep knows it by where another sweep named it."""
    own = f"{sweep}/{short}" if sweep else short
    return name if name in (own, short) else f"{own} (= {name})"


def configuration_rows(results: Results) -> dict[str, dict[str, Any]]:
    """Return configuration -> its raw figures: outcomes, metrics over seeds, size, memory and time."""
    rows: dict[str, dict[str, Any]] = {name: {"configuration": name} for name in results.names}
    for metric in results.metrics:
        split = split_of(results, metric)
        for name, one in scores(results, f"{split}.{metric}").items():
            key = f"{split}.{metric}"
            rows[name] |= {f"{key}.mean": one.mean, f"{key}.spread": one.spread, f"{key}.n": one.n}
            if metric == results.primary or "runs" not in rows[name]:
                rows[name]["runs"] = _runs(one)
    for name, one in scores(results, "seconds").items():
        rows[name] |= {"seconds": one.mean, "seconds.spread": one.spread}
    for name, rank in results.setting("rank").items():
        rows[name]["rank"] = rank
    for key in ("trainable_parameters", "adapter_bytes"):
        for name, value in averages(results, key).items():
            rows[name][key] = value
    for name, value in profiled(results, "train_allocated_bytes").items():
        if name in rows:
            rows[name]["train_allocated_bytes"] = value
    for key, found in (("environment", places(results, "quality")), ("cost_environment", places(results, "cost"))):
        for name, place in found.items():
            rows[name][key] = place
    return rows


def _runs(one: Score) -> str:
    """Return how many runs have figures, and what became of the others: `3`, `2 of 3: 1 diverged`."""
    if one.n >= one.wanted and not one.lost:
        return str(one.n)
    return f"{one.n} of {one.wanted}{f': {one.lost}' if one.lost else ''}"


def columns_of(results: Results, frame: pd.DataFrame) -> tuple[Column, ...]:
    """Return how the columns of `configuration_rows` read, without those that nothing has."""
    columns = [Column("shown", "configuration"), Column("runs", "runs")]
    keys = [f"{split_of(results, metric)}.{metric}" for metric in results.metrics]
    counts = frame[[f"{key}.n" for key in keys]]
    alike = bool((counts.nunique(axis=1) <= 1).all())
    for metric, key in zip(results.metrics, keys, strict=True):
        title = f"{on(metric, key.partition('.')[0])} ({direction(metric)})"
        kind = kind_of(metric)
        columns.append(Column(f"{key}.mean", title, kind, f"{key}.spread", "" if alike else f"{key}.n"))
    columns += [
        Column("rank", "rank", "count"),
        Column("trainable_parameters", "trainable parameters", "count"),
        Column("adapter_bytes", "saved size", "bytes"),
        Column("train_allocated_bytes", "peak training memory", "bytes"),
        Column("seconds", "training time", "seconds", "seconds.spread"),
    ]
    for key, what in (("environment", "runs"), ("cost_environment", "costs")):
        if key in frame:
            columns.append(Column(key, f"{what} computed on († more than one)"))
    known = [name for name in frame.columns if not all(missing(value) for value in frame[name])]
    return tuple(column for column in columns if column.kind == "text" or column.key in known)
