"""Which configuration to take under a budget: the cheapest that is as good as the best, within the margin."""

from dataclasses import replace
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table
from lorafile.analysis.common.format import kind_of, metric_name, on, score, slug
from lorafile.analysis.common.scores import COSTS, price_of, scores
from lorafile.analysis.compare.outcomes import figure_interval
from lorafile.analysis.recommend.budgets import SHARE, TITLES, budgets, share_of
from lorafile.analysis.recommend.choice import SPLIT, Recommendation, recommend
from lorafile.analysis.recommend.text import heading, sentences
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return a recommendation for each budget; nothing where fewer than two configurations have a figure."""
    found = recommendations(results, table)
    if not found:
        return []
    from lorafile.analysis.recommend.chart import caption, chart

    metric = table.metric or results.primary
    name = table.name and slug("recommend", table.name)
    name = name or slug("recommend", "" if metric == results.primary else metric)
    drawn = {slug(name, *(budget.name for budget in one.budgets)): one for one in found if one.choice is not None}
    charts = {key: chart(results, one) for key, one in drawn.items() if len(one.order) > 1 and not one.one_seed}
    return [
        Analysis(
            kind="recommend",
            name=name,
            title=table.name or "Recommendation",
            question=f"Which configuration is the cheapest that is as good as the best in {metric_name(metric)}?",
            sentences=sentences(results, found),
            tables=tuple(_table(results, one) for one in found),
            charts=charts,
            captions={key: caption(drawn[key]) for key in charts},
        )
    ]


def recommendations(results: Results, table: AnalysisTable) -> list[Recommendation]:
    """Return the recommendation for each budget; budgets that come to the same share one."""
    metric = table.metric or results.primary
    known = scores(results, f"{SPLIT}.{metric}")
    if sum(one.known for one in known.values()) < 2:
        return []
    found: list[Recommendation] = []
    for budget in budgets(results, table):
        one = recommend(results, metric, table.margin or results.verdict.margin, budget)
        for at, other in enumerate(found):
            if other.refused == one.refused and (other.order, other.taken) == (one.order, one.taken):
                found[at] = replace(other, budgets=(*other.budgets, budget))
                break
        else:
            found.append(one)
    return found


def _table(results: Results, found: Recommendation) -> Table:
    """Return every configuration: candidates in the order in which they would be taken, then what was refused."""
    metric = found.metric
    costs = [found.prefer, *(name for budget in found.budgets for name in budget.limits), "adapter_size"]
    prices = {name: share_of(results) if name == SHARE else price_of(results, name) for name in dict.fromkeys(costs)}
    prices = {name: known for name, known in prices.items() if known}
    left = [name for name in results.names if name not in found.order]
    order = [*([found.taken] if found.taken in found.order else []), *found.order, *left]
    rows = [_row(results, found, name, prices) for name in dict.fromkeys(order)]
    columns = [
        Column("configuration", "configuration"),
        Column("verdict", "verdict"),
        Column("validation", on(metric, SPLIT), kind_of(metric)),
        Column("test", on(metric, "test"), kind_of(metric)),
        Column("interval", "95 % interval on test"),
        *(Column(name, TITLES[name], _kind(name)) for name in prices),
        Column("p", "p, adjusted", "number"),
        Column("why", "why not"),
    ]
    frame = pd.DataFrame(rows)
    told = [column for column in columns if frame[column.key].replace("", None).notna().any()]
    return Table(f"Candidates: {heading(found)}", frame, tuple(told))


def _kind(cost: str) -> ColumnKind:
    return "share" if cost == SHARE else COSTS[cost].kind


def _row(results: Results, found: Recommendation, name: str, prices: dict[str, dict[str, float]]) -> dict[str, Any]:
    metric = found.metric
    row: dict[str, Any] = {"configuration": name, "verdict": found.word(name), "p": found.p.get(name), "interval": ""}
    for split in (SPLIT, "test"):
        row[split] = scores(results, f"{split}.{metric}")[name].mean
    ends = figure_interval(results, name, metric, "test")
    if not isinstance(ends, str):
        row["low"], row["high"] = ends
        row["interval"] = f"{score(metric, row['low'])} to {score(metric, row['high'])}"
    row |= {cost: known.get(name) for cost, known in prices.items()}
    return row | {"why": listing([one.text for one in found.refused.get(name, [])], 6) or found.unjudged.get(name, "")}
