"""Which configuration to take under a budget: the cheapest that is as good as the best, within the margin."""

from dataclasses import replace
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table
from lorafile.analysis.common.format import kind_of, metric_name, on, score, slug
from lorafile.analysis.common.scores import COSTS, scores, split_of
from lorafile.analysis.compare.outcomes import figure_interval
from lorafile.analysis.recommend.budgets import SHARE, TITLES, budgets, limited
from lorafile.analysis.recommend.choice import Recommendation, recommend
from lorafile.analysis.recommend.text import heading, sentences
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return a recommendation for each budget; nothing where fewer than two configurations have a figure."""
    choices = recommendations(results, table)
    if not choices:
        return []
    from lorafile.analysis.recommend.chart import caption, chart

    metric = table.metric or results.primary
    name = table.name and slug("recommend", table.name)
    name = name or slug("recommend", "" if metric == results.primary else metric)
    # of budgets with the same candidates one is drawn: the differences are the same, in another order
    drawable = {frozenset(found.order): found for found in choices if found.drawable and found.budget.by == "quality"}
    drawable |= {frozenset(found.order): found for found in choices if found.drawable and found.budget.by == "cost"}
    drawn = {slug(name, *(budget.name for budget in found.budgets)): found for found in drawable.values()}
    charts = {key: chart(results, found) for key, found in drawn.items()}
    return [
        Analysis(
            kind="recommend",
            name=name,
            title=table.name or "Recommendation",
            question=f"Which configuration is the cheapest that is as good as the best in {metric_name(metric)}?",
            sentences=sentences(results, choices),
            tables=tuple(_table(results, found) for found in choices),
            charts=charts,
            captions={key: caption(found) for key, found in drawn.items()},
        )
    ]


def recommendations(results: Results, table: AnalysisTable) -> list[Recommendation]:
    """Return the recommendation for each budget; budgets that come to the same share one."""
    metric = table.metric or results.primary
    if sum(score.known for score in scores(results, f"{split_of(results, metric)}.{metric}").values()) < 2:
        return []
    choices: list[Recommendation] = []
    for budget in budgets(results, table):
        found = recommend(results, metric, table.margin or results.verdict.margin, budget)
        for at, other in enumerate(choices):
            if (other.refused, other.order, other.taken) == (found.refused, found.order, found.taken):
                choices[at] = replace(other, budgets=(*other.budgets, budget))
                break
        else:
            choices.append(found)
    return choices


def _table(results: Results, found: Recommendation) -> Table:
    """Return every configuration: candidates in the order in which they would be taken, then what was refused."""
    metric = found.metric
    costs = [found.prefer, *(name for budget in found.budgets for name in budget.limits), "adapter_size"]
    prices = {name: prices for name in dict.fromkeys(costs) if (prices := limited(results, name))}
    left = [name for name in results.names if name not in found.order]
    order = [*([found.taken] if found.taken in found.order else []), *found.order, *left]
    rows = [_row(results, found, name, prices) for name in dict.fromkeys(order)]
    columns = [
        Column("configuration", "configuration"),
        Column("verdict", "verdict"),
        Column("validation", on(metric, "validation"), kind_of(metric)),
        Column("test", on(metric, "test"), kind_of(metric)),
        Column("interval", "95 % interval on test"),
        *(Column(name, TITLES[name], _kind(name)) for name in prices),
        Column("p", "p, adjusted", "number"),
        Column("why", "why not"),
    ]
    frame = pd.DataFrame(rows)
    filled = [column for column in columns if frame[column.key].replace("", None).notna().any()]
    return Table(f"Candidates: {heading(found)}", frame, tuple(filled))


def _kind(cost: str) -> ColumnKind:
    return "share" if cost == SHARE else COSTS[cost].kind


def _row(results: Results, found: Recommendation, name: str, prices: dict[str, dict[str, float]]) -> dict[str, Any]:
    metric = found.metric
    row: dict[str, Any] = {"configuration": name, "verdict": found.word(name), "p": found.p.get(name), "interval": ""}
    for split in ("validation", "test"):
        row[split] = scores(results, f"{split}.{metric}")[name].mean
    ends = figure_interval(results, name, metric, "test")
    if not isinstance(ends, str):
        row["low"], row["high"] = ends
        row["interval"] = f"{score(metric, row['low'])} to {score(metric, row['high'])}"
    row |= {cost: price.get(name) for cost, price in prices.items()}
    refusals = listing([refusal.text for refusal in found.refused.get(name, [])], 6)
    return row | {"why": refusals or found.unjudged.get(name, "")}
