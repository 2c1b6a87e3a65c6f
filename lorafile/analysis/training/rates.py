"""Was each configuration run at a learning rate that suits it: what is known, what is not, what speaks against it."""

from itertools import pairwise
from math import isnan, nan
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.chart_parts import (
    WIDTH,
    Quality,
    domain_of,
    finish,
    quality,
    seeds_and_means,
    series_colour,
    series_rows,
)
from lorafile.analysis.common.factors import equal_settings, setting_values, tuned
from lorafile.analysis.common.format import (
    compared_with_spread,
    difference,
    direction,
    kind_of,
    on,
    rate,
    score,
    slug,
    spread_of,
)
from lorafile.analysis.common.rate_groups import RANK, RATE, RateGroup, groups
from lorafile.analysis.common.scores import Score, outcomes, scores
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, grouped, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

NOT_BRACKETED = "so the best rate is not bracketed."
CAPTION = (
    "Dots: one seed each. Lines and bars: mean ± sample standard deviation over seeds, on validation. "
    "A line that still rises at its end has not reached its best rate. ×: runs without a result."
)


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return what validation says about learning rates; nothing where nothing was trained."""
    every = groups(results)
    if not every:
        return []
    metric = table.metric or results.primary
    by_name = scores(results, f"validation.{metric}")
    several = [group for group in every if len(group.rates) > 1]
    drawn = [group for group in several if sum(by_name[name].known for name in group.rates) > 1]
    name = slug("rates", "" if metric == results.primary else metric)
    sentences = [*_diverged(results), *(line for group in several for line in _tried(metric, group, by_name))]
    open_ended = tuple(line for line in sentences if line.endswith(NOT_BRACKETED))
    sentences += _untried(every) + _ranks(results, metric, by_name)
    question = "Was each configuration run at a learning rate that suits it?"
    tables = (_table(metric, several, by_name),) if several else ()
    analysis = Analysis("rates", name, "Learning rates", question, sentences, tables, limits=open_ended)
    return [analysis.with_chart(_chart(quality(results, metric, "validation"), drawn), CAPTION) if drawn else analysis]


def _diverged(results: Results) -> list[str]:
    ended = outcomes(results)
    counts = {name: ended[name] for name in results.names if name in ended and ended[name]["diverged"]}
    lines = [f"{name} ({count['diverged']} of {count.total()} runs)" for name, count in counts.items()]
    return [f"Diverged, a sign that the learning rate is too high: {listing(lines)}."] if lines else []


def _tried(metric: str, group: RateGroup, by_name: dict[str, Score]) -> list[str]:
    """Return the best rate of a group on validation, and whether rates on both sides of it were tried."""
    tried = listing([rate(value) for value in dict.fromkeys(group.rates.values())], 12)
    sign = 1 if more_is_better(metric) else -1
    best_first = sorted(
        (name for name in group.rates if by_name[name].known), key=lambda name: -sign * by_name[name].mean
    )
    if len(best_first) < 2:
        return [f"{group.label}: declared at the rates {tried}, of which fewer than two have a validation result."]
    top, second = best_first[:2]
    best, rates = group.rates[top], list(group.rates.values())
    line = f"{group.label}: of the rates {tried}, {rate(best)} has the best mean {on(metric, 'validation')} "
    line += f"({score(metric, by_name[top].mean)})"
    if best in (rates[0], rates[-1]):
        line += f"; it is the {'lowest' if best == rates[0] else 'highest'} that was tried, {NOT_BRACKETED}"
    else:
        line += "."
    gap = by_name[top].mean - by_name[second].mean
    text = compared_with_spread(metric, gap, by_name[top], by_name[second])
    return [line, f"The next best rate, {rate(group.rates[second])}, is {difference(metric, gap)} behind; {text}."]


def _untried(every: list[RateGroup]) -> list[str]:
    """Return which configurations ran at one rate only, by rate."""
    single = [next(iter(group.rates.items())) for group in every if len(group.rates) == 1]
    by_rate = grouped(("an unknown rate" if isnan(value) else rate(value), name) for name, value in single)
    return [
        f"Run at only one rate ({value}), so it is unknown whether the rate suits them: {listing(members, 40)}."
        for value, members in by_rate.items()
    ]


def _ranks(results: Results, metric: str, by_name: dict[str, Score]) -> list[str]:
    """Return each larger rank that scores worse than the next smaller one by more than the spread over seeds."""
    chosen = tuned(results)
    values = setting_values(results, RANK).items()
    ranks = {name: float(value) for name, value in values if not missing(value) and RATE not in chosen[name]}
    others = [labels for key, labels in equal_settings(results, RANK).items() if key != "lora.lora_alpha"]
    alike = grouped((tuple(labels.get(name) for labels in others), name) for name in ranks)
    sign = 1 if more_is_better(metric) else -1
    lines = []
    for members in alike.values():
        order = sorted((name for name in members if by_name[name].known), key=ranks.__getitem__)
        for small, large in pairwise(order):
            gap = sign * (by_name[small].mean - by_name[large].mean)
            spread = spread_of(by_name[small], by_name[large])
            if ranks[small] < ranks[large] and gap > spread:  # never true where there is no spread
                lines.append(
                    f"{large} scores {difference(metric, gap)} worse than {small}, which has a smaller rank; the "
                    f"spread over seeds is {difference(metric, spread)}. Its learning rate may be unsuitable."
                )
    return lines


def _table(metric: str, several: list[RateGroup], by_name: dict[str, Score]) -> Table:
    sign = 1 if more_is_better(metric) else -1
    rows = []
    for group in several:
        best = max((sign * by_name[name].mean for name in group.rates if by_name[name].known), default=nan)
        for name, value in group.rates.items():
            figure = by_name[name]
            behind = best - sign * figure.mean if figure.known else None
            row = {"group": group.label, "rate": value, "mean": figure.mean, "spread": figure.spread, "n": figure.n}
            row |= {"behind": behind, "runs": figure.lost or "all done", "configuration": name}
            row["note"] = "best" if behind == 0 else "" if behind is None else f"{difference(metric, behind)} away"
            rows.append(row)
    columns = (
        Column("group", "settings"),
        Column("rate", RATE, "rate"),
        Column("mean", f"{on(metric, 'validation')} ({direction(metric)})", kind_of(metric), "spread", "n"),
        Column("note", "from the best rate"),
        Column("runs", "runs"),
        Column("configuration", "configuration"),
    )
    return Table("By learning rate", pd.DataFrame(rows), columns)


def _chart(shown: Quality, drawn: list[RateGroup]) -> Any:
    """Return quality against rate on a logarithmic axis."""
    rates = {name: value for group in drawn for name, value in group.rates.items() if not isnan(value)}
    series = {name: group.label for group in drawn for name in group.rates}
    seeds, means = series_rows(shown, rates, series)
    ticks = sorted(set(rates.values()))
    room = max(ticks[-1] / ticks[0], 2.0) ** 0.06
    scale = alt.Scale(type="log", domain=[ticks[0] / room, ticks[-1] * room], nice=False, padding=0)
    axis = alt.Axis(values=ticks, format=".2~e", grid=False, labelOverlap="greedy")
    x = alt.X("x:Q", title="learning rate, logarithmic", scale=scale, axis=axis)
    y = shown.upright(shown.scale(domain_of(shown.metric, *shown.span(list(rates)))))
    lost = alt.Chart(means[means["note"] != ""]).mark_text(style="lost", baseline="bottom" if shown.more else "top")
    edge = alt.value("height") if shown.more else alt.value(0)
    layers = seeds_and_means(seeds, means, x, y, series_colour([group.label for group in drawn]))
    layers.append(lost.encode(x=x, y=edge, text="note:N"))
    text = "; ".join(
        f"{series[name]} at {rate(value)}: {score(shown.metric, shown.scores[name].mean)}"
        for name, value in rates.items()
    )
    whole = alt.layer(*layers).properties(width=WIDTH, height=260)
    return finish(whole, "Learning rates", f"{shown.title} by learning rate. {text}", margin=90)
