"""What does a setting do: quality and peak training memory along one factor of one sweep, the others held fixed."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import above, amount, kind_of, measured, metric_name, on, slug, without_figure
from lorafile.analysis.common.scores import Score, profiled, scores, split_of
from lorafile.analysis.compare.verdict_text import signed, signed_difference
from lorafile.analysis.factors.eligible import PARAMETERS, Trend, by_parameters, trends
from lorafile.analysis.factors.steps import SteppedSeries, step_sentences, stepped_series
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

RANK, RATE = "lora.r", "train.learning_rate"


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for each sweep and factor, the rank first; a declared factor alone where there is one."""
    found = by_parameters(results) if table.factor == PARAMETERS else trends(results)
    if table.factor is not None:
        chosen = [trend for trend in found if trend.factor == table.factor]
        return [_analysis(results, trend, table.metric) for trend in chosen] or [_nothing(results, table.factor)]
    # Rates are chosen on validation, which is what `rates` shows; a trend would show them on test.
    found = [trend for trend in found if trend.factor != RATE] or found
    found.sort(key=lambda trend: trend.factor != RANK)
    return [_analysis(results, trend, table.metric) for trend in found]


def _analysis(results: Results, trend: Trend, metric: str | None) -> Analysis:
    metric = metric or results.primary
    split = split_of(results, metric)
    found = scores(results, f"{split}.{metric}")
    memory = {name: value for name, value in profiled(results, "train_allocated_bytes").items() if name in trend.values}
    known = any(found[name].known for name in trend.values)
    extra = "" if metric == results.primary else metric
    name = slug("trend", trend.sweep, trend.factor, extra)
    series_made = [
        stepped_series(results, trend, metric, split, series) for series in dict.fromkeys(trend.series.values())
    ]
    compared = [one for one in series_made if one is not None]
    title = f"{trend.factor}{f' in sweep {trend.sweep}' if trend.sweep else ''}"
    question = f"What does {trend.factor} do to {metric_name(metric)} and to memory?"
    lines = _sentences(results, trend, metric, found, memory, compared)
    table = _table(trend, metric, split, found, memory, compared)
    made = Analysis("trend", name, title, question, lines, (table,))
    if not (known or memory):
        return made
    from lorafile.analysis.factors.trend_charts import caption, chart

    about = (results, trend, metric, memory, compared)
    return made.with_chart(chart(*about), caption(*about))


def _nothing(results: Results, factor: str) -> Analysis:
    there = listing([f"{trend.factor} (sweep {trend.sweep})" for trend in trends(results)]) or "none"
    line = f"{factor} takes no two values within one sweep with the other settings fixed; factors that do: {there}."
    return Analysis("trend", slug("trend", factor), factor, f"What does {factor} do?", [line])


def _sentences(
    results: Results,
    trend: Trend,
    metric: str,
    found: dict[str, Score],
    memory: dict[str, float],
    compared: list[SteppedSeries],
) -> list[str]:
    among = {name: found[name] for name in trend.values}
    lines = []
    if lost := [f"{name} ({one.lost})" for name, one in among.items() if one.lost]:
        lines.append(f"Not every run has a figure: {listing(lost)}. Means are over the runs that finished.")
    elif nothing := without_figure(among):
        lines.append(f"Without a figure: {listing(nothing)}.")
    if trend.tied:
        lines.append(
            f"{listing(trend.tied)} changes together with {trend.factor}; what belongs to which cannot be told."
        )
    lines += trend.added.values()
    for series in dict.fromkeys(trend.series.values()):
        members = [name for name in trend.values if trend.series[name] == series]
        tested = [one for one in compared if one.members[0] in members]
        lines += _series_sentences(results, trend, metric, members, found, not tested)
        lines += [line for one in tested for line in step_sentences(one)]
    return lines + _memory_sentences(trend, memory)


def _series_sentences(
    results: Results, trend: Trend, metric: str, members: list[str], found: dict[str, Score], beside: bool
) -> list[str]:
    """Return the best value of the factor and, held against it, the ends of an ordered one or every other value.

    :param beside: whether the others are described as well, where no step of the series can be tested
    """
    known = [name for name in members if found[name].known]
    if len(known) < 2:
        return []
    sign = 1 if more_is_better(metric) else -1
    top = max(known, key=lambda name: sign * found[name].mean)
    where = f" at {trend.series[top]}" if trend.series[top] else ""
    extreme = "highest" if sign > 0 else "lowest"
    label = f"{trend.factor} = {trend.values[top]}"
    split = split_of(results, metric)
    lines = [f"{label} has the {extreme} mean {on(metric, split)}{where}: {measured(metric, found[top])}."]
    others = [known[0], known[-1]] if trend.numbers else known
    for name in dict.fromkeys(others):
        if name != top and beside:
            other = f"{trend.factor} = {trend.values[name]}" if trend.numbers else trend.values[name]
            lines.append(above(metric, label if trend.numbers else trend.values[top], found[top], other, found[name]))
    return lines


def _memory_sentences(trend: Trend, memory: dict[str, float]) -> list[str]:
    if len(memory) < 2:
        return []
    if len(set(memory.values())) == 1:
        same = amount("bytes", next(iter(memory.values())))
        return [f"Peak training memory is {same} at every value that was measured."]
    low, high = min(memory, key=memory.__getitem__), max(memory, key=memory.__getitem__)
    share = memory[high] / memory[low] - 1 if memory[low] else float("nan")
    more = "" if isnan(share) else f", {amount('share', share)} more"
    return [
        f"Peak training memory goes from {amount('bytes', memory[low])} at {trend.values[low]} "
        f"to {amount('bytes', memory[high])} at {trend.values[high]}{more}."
    ]


def _table(
    trend: Trend,
    metric: str,
    split: str,
    found: dict[str, Score],
    memory: dict[str, float],
    compared: list[SteppedSeries],
) -> Table:
    rows, gains = [], _gains(compared)
    for name, value in trend.values.items():
        one = found[name]
        row = {"configuration": name, "value": value, "series": trend.series[name], "runs": one.lost or "all done"}
        rows.append(
            row | {"mean": one.mean, "spread": one.spread, "n": one.n, "memory": memory.get(name)} | gains.get(name, {})
        )
    kind = kind_of(metric)
    columns = [Column("value", trend.factor), Column("mean", on(metric, split), kind, "spread", "n")]
    if any(trend.series.values()):
        columns.insert(1, Column("series", "other settings"))
    if any(row["runs"] != "all done" for row in rows):
        columns.insert(1, Column("runs", "runs"))
    if gains:
        columns += [
            Column("gain", "per doubling, from the value before"),
            Column("interval", "95 % interval, all steps"),
        ]
    if any(not missing(row["memory"]) for row in rows):
        columns.append(Column("memory", "peak training memory", "bytes"))
    columns.append(Column("configuration", "configuration"))
    return Table(f"{trend.factor}: {plural(len(rows), 'configuration')}", pd.DataFrame(rows), tuple(columns))


def _gains(compared: list[SteppedSeries]) -> dict[str, dict[str, Any]]:
    """Return configuration -> what a doubling on the way to its value adds, with its interval."""
    found: dict[str, dict[str, Any]] = {}
    for one in compared:
        for at, times in enumerate(one.doublings):
            if not isnan(times):
                gain, low, high = one.gain(at)
                row = {"per_doubling": gain, "least": low, "most": high, "gain": signed_difference(one.scale, gain)}
                found[one.members[at + 1]] = row | {
                    "interval": f"{signed(one.scale, low)} to {signed(one.scale, high)}"
                }
    return found
