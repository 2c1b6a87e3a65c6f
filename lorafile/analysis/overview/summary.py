"""What did the study find: every configuration's figures, and how the best stands to its references."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.factors import full_name, sweeps
from lorafile.analysis.common.format import above, direction, kind_of, measured, metric_name, on
from lorafile.analysis.common.scores import (
    TIME,
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
from lorafile.analysis.compare.outcomes import on_other_examples
from lorafile.analysis.compare.verdict_text import sentence
from lorafile.analysis.compare.verdicts import family
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.environments import places
from lorafile.results.results import Results, row_dicts
from lorafile.specs.tables.analysis import AnalysisTable


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one table for each sweep, the best configuration, and its distance to untuned and full fine-tuning."""
    if not results.names:
        return [Analysis("summary", "summary", "Summary", results.question, ["No run has been recorded yet."])]
    metric = table.metric or results.primary
    title = "Summary" if metric == results.primary else f"Summary by {metric_name(metric)}"
    name = "summary" if metric == results.primary else f"summary-{metric.replace('_', '-')}"
    lines, tables = answer(results, metric), tuple(sweep_tables(results))
    analysis = Analysis("summary", name, title, results.question, lines, tables)
    if not averages(results, f"{split_of(results, metric)}.{metric}"):
        return [analysis]
    from lorafile.analysis.overview.chart import overview

    return [analysis.with_chart(*overview(results, metric), "summary")]


def answer(results: Results, metric: str) -> list[str]:
    """Return the study's answer in sentences: failures first, then the best one and what it is compared with."""
    split = split_of(results, metric)
    by_name = scores(results, f"{split}.{metric}")
    lines = completeness(results)
    trained = [name for name in by_name if results.methods[name] != "none"]
    chosen = best(results, trained, metric)
    if chosen is None:
        return [*lines, f"No trained configuration has a result for {metric_name(metric)} yet."]
    lines.append(_best(results, metric, split, chosen))
    if not by_name[chosen].known:
        return lines
    same = {chosen, *same_runs(results, chosen)}
    second = best(results, [name for name in trained if name not in same and by_name[name].known], metric)
    roles = {second: "next on validation"} if second else {}
    for name, role in references(results).items():
        roles[name] = f"{role}, {roles[name]}" if name in roles else role
    for name, role in roles.items():
        if name != chosen and by_name[name].known:
            # The verdict, or where the study does not compare the two, their distance.
            verdict = family(results).of(chosen, name) if metric == results.primary else None
            if verdict is not None and verdict.decision is not None:
                lines.append(sentence(results, verdict))
            else:
                lines.append(above(metric, chosen, by_name[chosen], f"{name} ({role})", by_name[name]))
    if len(results.seeds) < 2 or max(figure.n for figure in by_name.values()) < 2:
        lines.append("There is only one seed, so the variation between seeds is unknown.")
    return lines


def _best(results: Results, metric: str, split: str, chosen: str) -> str:
    on_validation, here = (scores(results, f"{name}.{metric}")[chosen] for name in ("validation", split))
    extreme = "highest" if more_is_better(metric) else "lowest"
    shown, shown_split = (on_validation, "validation") if on_validation.known else (here, split)
    start = f"{chosen} has the {extreme} mean {on(metric, shown_split)}: {measured(metric, shown)}"
    if split == "validation" or not on_validation.known:
        return f"{start}; it was chosen on the same examples, so this is optimistic."
    if not here.known:
        return f"{start}; it has no result on test yet."
    return f"{start}. On test, which was not used to choose it, it scores {measured(metric, here)}."


def sweep_tables(results: Results) -> list[Table]:
    """Return a table for each sweep, with the untuned base and full fine-tuning below what it varies."""
    rows = configuration_rows(results)
    roles = references(results)
    columns = columns_of(results, pd.DataFrame(rows.values()))
    tables = []
    for sweep, members in sweeps(results).items():
        # A configuration that another sweep named stands under the name that this one knows it by.
        own = {name: full_name(sweep, short) for name, short in members.items()}
        shown = [
            rows[name] | {"shown": name if name in (own[name], short) else f"{own[name]} (= {name})"}
            for name, short in members.items()
        ]
        shown += [rows[name] | {"shown": f"{name} ({role})"} for name, role in roles.items() if name not in members]
        title = f"Sweep {sweep}" if sweep else "Configurations"
        tables.append(Table(title, pd.DataFrame(shown), columns))
    return tables


def configuration_rows(results: Results) -> dict[str, dict[str, Any]]:
    """Return configuration -> its raw figures: outcomes, metrics over seeds, size, memory and time."""
    rows: dict[str, dict[str, Any]] = {name: {"configuration": name} for name in results.names}
    for metric in results.metrics:
        split = split_of(results, metric)
        key, elsewhere = f"{split}.{metric}", on_other_examples(results, metric, split)
        for name, figure in scores(results, key).items():
            rows[name] |= {f"{key}.mean": figure.mean, f"{key}.spread": figure.spread, f"{key}.n": figure.n}
            if metric == results.primary or "runs" not in rows[name]:
                rows[name]["runs"] = f"{_runs(figure)}{', on other examples' if name in elsewhere else ''}"
    for name, time in averages(results, TIME).items():
        rows[name]["seconds"] = time
    columns: dict[str, Mapping[str, Any]] = {
        "rank": results.setting("rank"),
        **{key: averages(results, key) for key in ("trainable_parameters", "adapter_bytes")},
        "train_allocated_bytes": profiled(results, "train_allocated_bytes"),
        "environment": places(results, "quality"),
        "cost_environment": places(results, "cost"),
    }
    for key, cells in columns.items():
        for name in cells.keys() & rows.keys():
            rows[name][key] = cells[name]
    return rows


def _runs(figure: Score) -> str:
    """Return how many runs have figures, and what became of the others: `3`, `2 of 3: 1 diverged`."""
    if figure.n >= figure.wanted and not figure.lost:
        return str(figure.n)
    return f"{figure.n} of {figure.wanted}{f': {figure.lost}' if figure.lost else ''}"


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
        Column("seconds", "training time (median)", "seconds"),
    ]
    for key, what in (("environment", "runs"), ("cost_environment", "costs")):
        if key in frame:
            columns.append(Column(key, f"{what} computed on († more than one)"))
    full = filled(columns, row_dicts(frame))
    return tuple(column for column in columns if column.kind == "text" or column in full)
