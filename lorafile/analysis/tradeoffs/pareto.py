"""What is the most quality for each cost: the efficiency frontier over two or three measures, and what is behind it."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import above, sentence_case, slug
from lorafile.analysis.common.scores import COSTS, profiles, scores
from lorafile.analysis.tradeoffs.frontier import FrontierPlace, Measure, measure, places
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

DEFAULT = "train_memory"


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return the frontier over the declared measures; nothing where fewer than two configurations have all of them."""
    declared = [str(name) for name in table.measures or (table.metric or results.primary, DEFAULT)]
    # Quality is read upwards, and cost to the right, in whatever order they were declared.
    measures = [measure(results, name) for name in sorted(dict.fromkeys(declared), key=lambda name: name in COSTS)]
    both = [name for name in results.names if all(name in one.values for one in measures)]
    if len(both) < 2 or len(measures) < 2:
        return []
    found = places(results, measures, both)
    name = slug("pareto", *(one.name for one in measures if one.name not in (results.primary, DEFAULT)))
    first, *others = measures
    from lorafile.analysis.tradeoffs.pareto_chart import caption, chart

    title = f"{sentence_case(first.short)} against {listing([one.short for one in others])}"
    lines, measured = _sentences(results, measures, found), _table(results, measures, found)
    made = Analysis("pareto", name, title, _question(first, others), lines, (measured,))
    return [made.with_chart(chart(results, measures, found), caption(results, measures, found))]


def _question(first: Measure, others: list[Measure]) -> str:
    if first.split and not any(one.split for one in others):
        best = "most" if first.more else "least"
        return f"What is the {best} {first.short} for each {listing([one.short for one in others])}?"
    return f"Which configurations does no other one beat in {listing([one.short for one in (first, *others)])}?"


def on_front(measures: list[Measure], found: dict[str, FrontierPlace]) -> list[str]:
    """Return the frontier's configurations, the best of the second measure first."""
    front = [name for name, place in found.items() if place.word == "frontier"]
    second = measures[1]
    return sorted(front, key=lambda name: (-second.values[name] if second.more else second.values[name], name))


def _sentences(results: Results, measures: list[Measure], found: dict[str, FrontierPlace]) -> list[str]:
    front = on_front(measures, found)
    first, second = measures[0], measures[1]
    order = "cheapest first" if not second.split and len(measures) == 2 else f"by {second.short}"
    steps = [f"{name} ({', '.join(one.shown(name) for one in measures)})" for name in front]
    lines = [f"On the frontier by means, {order}: {listing(steps, 12)}."]
    if len(front) > 1 and len(measures) == 2 and first.split:
        found_scores = scores(results, f"{first.split}.{first.name}")
        last, cheap = front[-1], front[0]
        lines.append(above(first.name, last, found_scores[last], cheap, found_scores[cheap]))
        lines.append(f"Its {second.title} is {second.shown(last)} against {second.shown(cheap)}.")
    lines += _behind(found)
    lines += [line for one in measures for line in _without(results, one, measures)]
    _, devices = profiles(results)
    if devices and any(one.name in COSTS and COSTS[one.name].source == "profiles" for one in measures):
        lines.append(f"Profiles of other devices are left out: {listing(devices)}.")
    return lines


def _behind(found: dict[str, FrontierPlace]) -> list[str]:
    """Return what is behind the frontier, and by which configuration: beyond the noise first."""
    lines = []
    for word, told in (("clear", "Clearly behind it"), ("noise", "Behind it by means, within the noise")):
        by: dict[str, list[str]] = {}
        for name, place in found.items():
            if place.word == word:
                by.setdefault(place.by, []).append(name)
        if by:
            lines.append(f"{told}: {'; '.join(f'{listing(mine, 40)} (by {better})' for better, mine in by.items())}.")
    if untested := [name for name, place in found.items() if place.word == "means"]:
        lines.append(f"Behind the frontier: {listing(untested, 40)}. Means within the spread may change places.")
    return lines


def _without(results: Results, one: Measure, measures: list[Measure]) -> list[str]:
    """Return which configurations are not shown for want of this measure."""
    table = {name: score for metric in measures if metric.split for name, score in _scores(results, metric).items()}
    without = [name for name in results.names if name not in one.values]
    if one.split:
        told = [f"{name} ({table[name].lost or 'no figure'})" for name in without]
        return [f"Without {one.short}, hence not shown: {listing(told, 20)}."] if told else []
    without = [name for name in without if not table or table[name].known]
    if not without:
        return []
    untrained = all(results.methods[name] == "none" for name in without)
    why = "nothing is trained there" if untrained and "latency" not in one.name else "it was not measured"
    return [f"Without {one.title}, hence not shown: {listing(without, 20)} ({why})."]


def _scores(results: Results, metric: Measure) -> dict[str, Any]:
    return scores(results, f"{metric.split}.{metric.name}")


def _table(results: Results, measures: list[Measure], found: dict[str, FrontierPlace]) -> Table:
    words = {"clear": "clearly behind {}", "noise": "behind {}, within the noise", "means": "behind {}"}
    last = measures[1]
    order = sorted(found, key=lambda name: (-last.values[name] if last.more else last.values[name], name))
    rows: list[dict[str, Any]] = []
    columns = [Column("configuration", "configuration")]
    for name in order:
        place = found[name]
        told = words[place.word].format(place.by) if place.by else "on the frontier"
        rows.append({"configuration": name, "place": told, "by": place.by})
    for one in (*measures[1:], measures[0]):
        table = _scores(results, one) if one.split else {}
        for row in rows:
            name = row["configuration"]
            row[one.name] = one.values[name]
            if name in table:
                row[f"{one.name}.spread"], row[f"{one.name}.n"] = table[name].spread, table[name].n
            if name in one.intervals:
                row[f"{one.name}.low"], row[f"{one.name}.high"] = one.intervals[name]
            if name in table and table[name].lost:
                row["lost"] = table[name].lost
        spread = (f"{one.name}.spread", f"{one.name}.n") if one.split else ("", "")
        columns.append(Column(one.name, one.title, one.kind, *spread))
    columns.append(Column("place", "place"))
    columns += [Column("lost", "not in these figures")] if any("lost" in row for row in rows) else []
    return Table(f"By {last.title}", pd.DataFrame(rows), tuple(columns))
