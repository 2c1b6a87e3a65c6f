"""What does a setting do: quality and peak training memory along one factor of one sweep, the others held fixed."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import above, amount, kind_of, measured, metric_name, on, slug, without_figure
from lorafile.analysis.compare.verdict_text import signed_difference, signed_interval
from lorafile.analysis.factors.eligible import PARAMETERS, RANK, RATE, Trend, by_parameters, trends
from lorafile.analysis.factors.steps import TrendFigures, step_sentences, trend_figures
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for each sweep and factor, the rank first; a declared factor alone where there is one."""
    eligible = by_parameters(results) if table.factor == PARAMETERS else trends(results)
    if table.factor is not None:
        eligible = [trend for trend in eligible if trend.factor == table.factor]
        if not eligible:
            return [_nothing(results, table.factor)]
    else:
        # Rates are chosen on validation, which is what `rates` shows; a trend would show them on test.
        eligible = [trend for trend in eligible if trend.factor != RATE] or eligible
        eligible.sort(key=lambda trend: trend.factor != RANK)
    return [_analysis(results, trend, table.metric or results.primary) for trend in eligible]


def _analysis(results: Results, trend: Trend, metric: str) -> Analysis:
    figures = trend_figures(results, trend, metric)
    name = slug("trend", trend.sweep, trend.factor, "" if metric == results.primary else metric)
    title = f"{trend.factor}{f', sweep {trend.sweep}' if trend.sweep else ''}"
    question = f"How does {trend.factor} affect {metric_name(metric)} and memory?"
    analysis = Analysis("trend", name, title, question, _sentences(figures), (_table(figures),), factor=trend.factor)
    if not (figures.memory or any(score.known for score in figures.scores.values())):
        return analysis
    from lorafile.analysis.factors.trend_charts import caption, chart

    return analysis.with_chart(chart(results, figures), caption(results, figures))


def _nothing(results: Results, factor: str) -> Analysis:
    there = listing([f"{trend.factor} (sweep {trend.sweep})" for trend in trends(results)]) or "none"
    line = f"No sweep has two values of {factor} with the other settings fixed. Factors with two values: {there}."
    return Analysis("trend", slug("trend", factor), factor, f"What is the effect of {factor}?", [line])


def _sentences(figures: TrendFigures) -> list[str]:
    trend, scores, lines = figures.trend, figures.scores, []
    if lost := [f"{name} ({score.lost})" for name, score in scores.items() if score.lost]:
        lines.append(f"Not every run has a result: {listing(lost)}. Means cover only the runs that finished.")
    elif nothing := without_figure(scores):
        lines.append(f"No result: {listing(nothing)}.")
    if trend.tied:
        lines.append(f"{listing(trend.tied)} changes together with {trend.factor}; their effects cannot be separated.")
    lines += trend.added.values()
    for series in dict.fromkeys(trend.series.values()):
        members = [name for name in trend.values if trend.series[name] == series]
        tested = [stepped for stepped in figures.stepped if stepped.members[0] in members]
        lines += _series_sentences(figures, members, not tested)
        lines += [line for stepped in tested for line in step_sentences(stepped)]
    return lines + _memory_sentences(trend, figures.memory)


def _series_sentences(figures: TrendFigures, members: list[str], others: bool) -> list[str]:
    """Return the best value of the factor and, compared with it, the ends of an ordered one or every other value.

    :param others: whether the others are described as well, where no step of the series can be tested
    """
    trend, metric, scores = figures.trend, figures.metric, figures.scores
    known = [name for name in members if scores[name].known]
    if len(known) < 2:
        return []
    sign = 1 if more_is_better(metric) else -1
    top = max(known, key=lambda name: sign * scores[name].mean)
    series = f" at {trend.series[top]}" if trend.series[top] else ""
    extreme = "highest" if sign > 0 else "lowest"
    label = f"{trend.factor} = {trend.values[top]}"
    lines = [f"{label} has the {extreme} mean {on(metric, figures.split)}{series}: {measured(metric, scores[top])}."]
    start = f"{trend.factor} = " if trend.numbers else ""
    for name in dict.fromkeys([known[0], known[-1]] if trend.numbers else known) if others else ():
        if name != top:
            best, other = (f"{start}{trend.values[place]}" for place in (top, name))
            lines.append(above(metric, best, scores[top], other, scores[name]))
    return lines


def _memory_sentences(trend: Trend, memory: dict[str, float]) -> list[str]:
    if len(memory) < 2:
        return []
    if len(set(memory.values())) == 1:
        same = amount("bytes", next(iter(memory.values())))
        return [f"Peak training memory is {same} at every measured value."]
    low, high = min(memory, key=memory.__getitem__), max(memory, key=memory.__getitem__)
    share = memory[high] / memory[low] - 1 if memory[low] else float("nan")
    more = "" if isnan(share) else f", {amount('share', share)} more"
    return [
        f"Peak training memory goes from {amount('bytes', memory[low])} at {trend.values[low]} "
        f"to {amount('bytes', memory[high])} at {trend.values[high]}{more}."
    ]


def _table(figures: TrendFigures) -> Table:
    trend, metric, rows, gains = figures.trend, figures.metric, [], _gains(figures)
    for name, value in trend.values.items():
        score = figures.scores[name]
        row: dict[str, Any] = {"configuration": name, "value": value, "series": trend.series[name]}
        row |= {"runs": score.lost or "all done"}
        row |= {"mean": score.mean, "spread": score.spread, "n": score.n, "memory": figures.memory.get(name)}
        rows.append(row | gains.get(name, {}))
    columns = [Column("value", trend.factor), Column("mean", on(metric, figures.split), kind_of(metric), "spread", "n")]
    if any(trend.series.values()):
        columns.insert(1, Column("series", "other settings"))
    if any(score.lost for score in figures.scores.values()):
        columns.insert(1, Column("runs", "runs"))
    if gains:
        columns.append(Column("gain", "per doubling, from the previous value"))
        columns.append(Column("interval", "simultaneous interval for all steps"))
    if figures.memory:
        columns.append(Column("memory", "peak training memory", "bytes"))
    columns.append(Column("configuration", "configuration"))
    return Table(f"{trend.factor}: {plural(len(rows), 'configuration')}", pd.DataFrame(rows), tuple(columns))


def _gains(figures: TrendFigures) -> dict[str, dict[str, Any]]:
    """Return configuration -> what a doubling on the way to its value adds, with its interval."""
    rows: dict[str, dict[str, Any]] = {}
    for stepped in figures.stepped:
        for at in stepped.doubled:
            gain, ends = stepped.gain(at)
            row: dict[str, Any] = {"per_doubling": gain, "least": ends[0], "most": ends[1]}
            row |= {"gain": signed_difference(stepped.scale, gain), "interval": signed_interval(stepped.scale, ends)}
            rows[stepped.members[at + 1]] = row
    return rows
