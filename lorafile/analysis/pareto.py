"""What is the most quality for each cost: the efficiency frontier, and what lies behind it."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from lorafile.analysis.base import Analysis, Column, Table
from lorafile.analysis.costs import COSTS, cost_of
from lorafile.analysis.published import MARK, figures
from lorafile.analysis.select import Score, methods, names, profiles, scores, split_of
from lorafile.analysis.text import amount, kind_of, listing, metric_name, slug
from lorafile.analysis.wording import above, measured, on

if TYPE_CHECKING:
    from lorafile.results import Results
    from lorafile.specs.analysis_settings import AnalysisTable

DEFAULT = "train_memory"


def analyse(results: "Results", table: "AnalysisTable") -> list[Analysis]:
    """Return quality against one measure of cost; nothing where fewer than two configurations have both."""
    metric, declared = table.metric or results.primary, table.measures[1] if table.measures else DEFAULT
    split = split_of(results, metric)
    found, cost = scores(results, f"{split}.{metric}"), cost_of(results, declared)
    both = [name for name in names(results) if found[name].known and name in cost]
    if len(both) < 2:
        return []
    front = frontier(both, found, cost, results.better_is_more(metric))
    title = f"{metric_name(metric).capitalize()} against {COSTS[declared].title}"
    name = slug("pareto", "" if declared == DEFAULT else declared, "" if metric == results.primary else metric)
    from lorafile.analysis.pareto_chart import CAPTION, chart

    return [
        Analysis(
            kind="pareto",
            name=name,
            title=title,
            question=f"What is the most {metric_name(metric)} for each {COSTS[declared].title}?",
            sentences=_sentences(results, metric, declared, found, cost, front),
            tables=(_table(both, metric, split, declared, found, cost, front),),
            charts={name: chart(results, metric, declared, both, front)},
            captions={name: f"{CAPTION} {MARK}" if figures(results, metric) else CAPTION},
        )
    ]


def frontier(among: list[str], found: dict[str, Score], cost: dict[str, float], more: bool) -> list[str]:
    """Return the configurations that no other one matches in mean and undercuts in cost, cheapest first."""
    sign = 1 if more else -1
    front: list[str] = []
    for name in sorted(among, key=lambda name: (cost[name], -sign * found[name].mean)):
        if not front or sign * found[name].mean > sign * found[front[-1]].mean:
            front.append(name)
    return front


def ahead_of(name: str, front: list[str], cost: dict[str, float]) -> str:
    """Return the frontier's configuration that costs no more than this one: the best at its price."""
    return [other for other in front if cost[other] <= cost[name]][-1]


def _sentences(
    results: "Results",
    metric: str,
    declared: str,
    found: dict[str, Score],
    cost: dict[str, float],
    front: list[str],
) -> list[str]:
    kind, title = COSTS[declared].kind, COSTS[declared].title
    steps = [f"{name} ({measured(metric, found[name])}, {amount(kind, cost[name])})" for name in front]
    lines = [f"On the frontier by means, cheapest first: {listing(steps, 12)}."]
    if len(front) > 1:
        lines.append(above(metric, front[-1], found[front[-1]], front[0], found[front[0]]))
        lines.append(f"Its {title} is {amount(kind, cost[front[-1]])} against {amount(kind, cost[front[0]])}.")
    behind = [name for name in cost if name in found and found[name].known and name not in front]
    if behind:
        lines.append(f"Behind the frontier: {listing(behind, 40)}. Means within the spread may change places.")
    without = [name for name in names(results) if found[name].known and name not in cost]
    if without:
        untrained = all(methods(results)[name] == "none" for name in without)
        why = "nothing is trained there" if untrained and declared != "token_latency" else "it was not measured"
        lines.append(f"Without {title}, hence not shown: {listing(without, 20)} ({why}).")
    if unscored := [f"{name} ({found[name].lost or 'no figure'})" for name in found if not found[name].known]:
        lines.append(f"Without {metric_name(metric)}, hence not shown: {listing(unscored, 20)}.")
    _, devices = profiles(results)
    if devices and COSTS[declared].source == "profiles":
        lines.append(f"Profiles of other devices are left out: {listing(devices)}.")
    return lines


def _table(
    both: list[str],
    metric: str,
    split: str,
    declared: str,
    found: dict[str, Score],
    cost: dict[str, float],
    front: list[str],
) -> Table:
    rows: list[dict[str, Any]] = []
    for name in sorted(both, key=lambda name: (cost[name], name)):
        one = found[name]
        place = "on the frontier" if name in front else f"behind {ahead_of(name, front, cost)}"
        row = {"configuration": name, "cost": cost[name], "mean": one.mean, "spread": one.spread, "n": one.n}
        rows.append(row | {"place": place})
    columns = (
        Column("configuration", "configuration"),
        Column("cost", COSTS[declared].title, COSTS[declared].kind),
        Column("mean", on(metric, split), kind_of(metric), "spread", "n"),
        Column("place", "by means"),
    )
    return Table(f"By {COSTS[declared].title}", pd.DataFrame(rows), columns)
