"""What is the most quality for each cost: the efficiency frontier over two or three measures, and what is behind it."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import above, sentence_case, slug
from lorafile.analysis.common.scores import COSTS, Score, profiles, scores
from lorafile.analysis.tradeoffs.frontier import FrontierPlace, Measure, measure, places
from lorafile.results.results import Results, grouped
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

DEFAULT = "train_memory"


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return the frontier over the declared measures; nothing where fewer than two configurations have all of them."""
    declared = [str(name) for name in table.measures or (table.metric or results.primary, DEFAULT)]
    # Quality is read upwards, and cost to the right, in whatever order they were declared.
    measures = [measure(results, name) for name in sorted(dict.fromkeys(declared), key=lambda name: name in COSTS)]
    complete = [name for name in results.names if all(name in one.values for one in measures)]
    if len(complete) < 2 or len(measures) < 2:
        return []
    standing = places(results, measures, complete)
    name = slug("pareto", *(one.name for one in measures if one.name not in (results.primary, DEFAULT)))
    first, *others = measures
    from lorafile.analysis.tradeoffs.pareto_chart import caption, chart

    title = f"{sentence_case(first.short)} against {listing([one.short for one in others])}"
    lines, measured = _sentences(results, measures, standing), _table(results, measures, standing)
    analysis = Analysis("pareto", name, title, _question(first, others), lines, (measured,))
    return [analysis.with_chart(chart(results, measures, standing), caption(results, measures, standing))]


def _question(first: Measure, others: list[Measure]) -> str:
    if first.split and not any(one.split for one in others):
        best = "most" if first.more else "least"
        return f"What is the {best} {first.short} for each {listing([one.short for one in others])}?"
    return f"Which configurations does no other one beat in {listing([one.short for one in (first, *others)])}?"


def best_first(measure: Measure, standing: dict[str, FrontierPlace]) -> list[str]:
    """Return the configurations by a measure, the best first."""
    sign = -1 if measure.more else 1
    return sorted(standing, key=lambda name: (sign * measure.values[name], name))


def _sentences(results: Results, measures: list[Measure], standing: dict[str, FrontierPlace]) -> list[str]:
    first, second = measures[0], measures[1]
    front = [name for name in best_first(second, standing) if standing[name].word == "frontier"]
    order = "cheapest first" if not second.split and len(measures) == 2 else f"by {second.short}"
    steps = [f"{name} ({', '.join(one.shown(name) for one in measures)})" for name in front]
    lines = [f"On the frontier by means, {order}: {listing(steps, 12)}."]
    if len(front) > 1 and len(measures) == 2 and first.split:
        by_name, last, cheap = _scores(results, first), front[-1], front[0]
        lines.append(above(first.name, last, by_name[last], cheap, by_name[cheap]))
        lines.append(f"Its {second.title} is {second.shown(last)} against {second.shown(cheap)}.")
    lines += _behind(standing)
    lines += [line for one in measures for line in _without(results, one, measures)]
    _, devices = profiles(results)
    if devices and any(one.name in COSTS and COSTS[one.name].source == "profiles" for one in measures):
        lines.append(f"Profiles of other devices are left out: {listing(devices)}.")
    return lines


def _behind(standing: dict[str, FrontierPlace]) -> list[str]:
    """Return what is behind the frontier, and by which configuration: beyond the noise first."""
    lines = []
    for word, text in (("clear", "Clearly behind it"), ("noise", "Behind it by means, within the noise")):
        by = grouped((place.by, name) for name, place in standing.items() if place.word == word)
        if by:
            parts = [f"{listing(names, 40)} (by {better})" for better, names in by.items()]
            lines.append(f"{text}: {'; '.join(parts)}.")
    if untested := [name for name, place in standing.items() if place.word == "means"]:
        lines.append(f"Behind the frontier: {listing(untested, 40)}. Means within the spread may change places.")
    return lines


def _without(results: Results, one: Measure, measures: list[Measure]) -> list[str]:
    """Return which configurations are not shown for want of this measure."""
    table = {name: score for metric in measures if metric.split for name, score in _scores(results, metric).items()}
    without = [name for name in results.names if name not in one.values]
    if one.split:
        reasons = [f"{name} ({table[name].lost or 'no figure'})" for name in without]
        return [f"Without {one.short}, hence not shown: {listing(reasons, 20)}."] if reasons else []
    without = [name for name in without if not table or table[name].known]
    if not without:
        return []
    untrained = all(results.methods[name] == "none" for name in without)
    why = "nothing is trained there" if untrained and "latency" not in one.name else "it was not measured"
    return [f"Without {one.title}, hence not shown: {listing(without, 20)} ({why})."]


def _scores(results: Results, metric: Measure) -> dict[str, Score]:
    return scores(results, f"{metric.split}.{metric.name}")


def _table(results: Results, measures: list[Measure], standing: dict[str, FrontierPlace]) -> Table:
    words = {"clear": "clearly behind {}", "noise": "behind {}, within the noise", "means": "behind {}"}
    words["frontier"] = "on the frontier"
    rows: list[dict[str, Any]] = []
    for name in best_first(measures[1], standing):
        place = standing[name]
        rows.append({"configuration": name, "place": words[place.word].format(place.by), "by": place.by})
    columns = [Column("configuration", "configuration")]
    for one in (*measures[1:], measures[0]):
        key, table = one.name, _scores(results, one) if one.split else {}
        for row in rows:
            name = row["configuration"]
            row[key] = one.values[name]
            if figure := table.get(name):
                row |= {f"{key}.spread": figure.spread, f"{key}.n": figure.n}
            if name in one.intervals:
                row[f"{key}.low"], row[f"{key}.high"] = one.intervals[name]
            if figure and figure.lost:
                row["lost"] = figure.lost
        spread = (f"{key}.spread", f"{key}.n") if one.split else ("", "")
        columns.append(Column(key, one.title, one.kind, *spread))
    columns.append(Column("place", "place"))
    columns += [Column("lost", "not in these figures")] if any("lost" in row for row in rows) else []
    return Table(f"By {measures[1].title}", pd.DataFrame(rows), tuple(columns))
