"""Was each configuration run at a learning rate that suits it: what is known, what is not, what speaks against it."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.factors import equal_settings, setting_values, tuned
from lorafile.analysis.common.format import (
    difference,
    direction,
    held_against,
    kind_of,
    on,
    rate,
    score,
    slug,
    spread_of,
)
from lorafile.analysis.common.scores import Score, outcomes, scores
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, missing, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

RATE, RANK = "train.learning_rate", "lora.r"
NOT_BRACKETED = "so the best rate is not bracketed."
CAPTION = (
    "Dots: one seed each. Lines and bars: mean ± sample standard deviation over seeds, on validation. "
    "A line that still rises at its end has not shown its best rate. ×: runs without a figure."
)


@dataclass(frozen=True)
class RateGroup:
    """Trained configurations that differ in the learning rate only.

    :ivar label: what they share: the settings that vary elsewhere in the study
    :ivar rates: configuration -> learning rate, ascending
    """

    label: str
    rates: dict[str, float]


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return what validation says about learning rates; nothing where nothing was trained."""
    found_groups = groups(results)
    if not found_groups:
        return []
    metric = table.metric or results.primary
    found = scores(results, f"validation.{metric}")
    several = [group for group in found_groups if len(group.rates) > 1]
    drawn = [group for group in several if sum(found[name].known for name in group.rates) > 1]
    name = slug("rates", "" if metric == results.primary else metric)
    sentences = [*_diverged(results), *(line for group in several for line in _tried(metric, group, found))]
    open_ended = tuple(line for line in sentences if line.endswith(NOT_BRACKETED))
    sentences += _untried(found_groups) + _ranks(results, metric, found)
    question = "Was each configuration run at a learning rate that suits it?"
    tables = (_table(metric, several, found),) if several else ()
    made = Analysis("rates", name, "Learning rates", question, sentences, tables, limits=open_ended)
    return [made.with_chart(_chart(results, metric, drawn), CAPTION) if drawn else made]


def groups(results: Results) -> list[RateGroup]:
    """Return the trained configurations, grouped by every setting that varies except the learning rate.

    Those whose rate was tuned are told of with their candidates, by `tune`.
    """
    chosen = tuned(results)
    trained = [name for name, method in results.methods.items() if method != "none" and RATE not in chosen[name]]
    labels = equal_settings(results, RATE, trained)
    peaks = peak_rates(results, trained)
    shared: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name in trained:
        key = tuple((factor, found[name]) for factor, found in labels.items() if name in found)
        shared.setdefault(key, []).append(name)
    made = []
    for key, members in shared.items():
        rates = {name: peaks[name] for name in sorted(members, key=lambda name: peaks[name])}
        made.append(RateGroup(_label(key, labels) if len(rates) > 1 else next(iter(rates)), rates))
    return made


def _label(key: tuple[tuple[str, str], ...], labels: dict[str, dict[str, str]]) -> str:
    """Return a group's settings, leaving out those at the value that most of the study has."""
    usual = {factor: pd.Series(list(found.values())).mode().iloc[0] for factor, found in labels.items() if found}
    parts = [
        f"{factor.rsplit('.', 1)[-1]}={value}" for factor, value in key if value != usual[factor] or factor == RANK
    ]
    return ", ".join(parts) or "all other settings equal"


def peak_rates(results: Results, among: list[str]) -> dict[str, float]:
    """Return configuration -> learning rate: the setting where it varies, else the curves' highest, else NaN."""
    found: dict[str, float] = {}
    pairs = rows_of(results.curves, "configuration", "learning_rate")
    for name, value in pairs:
        if value is not None:
            found[str(name)] = max(found.get(str(name), 0.0), float(value))
    if RATE in results.configurations.columns:
        known = setting_values(results, RATE, among)
        found |= {name: float(value) for name, value in known.items() if not missing(value)}
    return {name: found.get(name, float("nan")) for name in among}


def _diverged(results: Results) -> list[str]:
    ended = defaultdict(Counter, outcomes(results))
    wild = [
        f"{name} ({ended[name]['diverged']} of {ended[name].total()} runs)"
        for name in results.names
        if ended[name]["diverged"]
    ]
    return [f"Diverged, a sign of too high a rate: {listing(wild)}."] if wild else []


def _tried(metric: str, group: RateGroup, found: dict[str, Score]) -> list[str]:
    """Return the best rate of a group on validation, and whether rates on both sides of it were tried."""
    known = [name for name in group.rates if found[name].known]
    tried = listing([rate(value) for value in dict.fromkeys(group.rates.values())], 12)
    if len(known) < 2:
        return [f"{group.label}: declared at the rates {tried}, of which fewer than two have a validation figure."]
    sign = 1 if more_is_better(metric) else -1
    top = max(known, key=lambda name: sign * found[name].mean)
    rates = list(group.rates.values())
    line = (
        f"{group.label}: of the rates {tried}, {rate(group.rates[top])} has the best mean {on(metric, 'validation')} "
    )
    line += f"({score(metric, found[top].mean)})"
    if group.rates[top] in (rates[0], rates[-1]):
        side = "lowest" if group.rates[top] == rates[0] else "highest"
        lines = [f"{line}; it is the {side} that was tried, {NOT_BRACKETED}"]
    else:
        lines = [f"{line}."]
    second = max((name for name in known if name != top), key=lambda name: sign * found[name].mean)
    gap = found[top].mean - found[second].mean
    text = held_against(metric, gap, found[top], found[second])
    lines.append(f"The next best rate, {rate(group.rates[second])}, is {difference(metric, gap)} away; {text}.")
    return lines


def _untried(found: list[RateGroup]) -> list[str]:
    """Return which configurations ran at one rate only, by rate."""
    single: dict[str, list[str]] = {}
    for group in found:
        if len(group.rates) == 1:
            (name, value), *_ = group.rates.items()
            single.setdefault("an unknown rate" if isnan(value) else rate(value), []).append(name)
    return [
        f"Run at one rate only ({value}); whether it suits them is not known: {listing(members, 40)}."
        for value, members in single.items()
    ]


def _ranks(results: Results, metric: str, found: dict[str, Score]) -> list[str]:
    """Return each larger rank that scores worse than the next smaller one by more than the spread over seeds."""
    chosen = tuned(results)
    ranks = {
        name: float(value)
        for name, value in setting_values(results, RANK).items()
        if not missing(value) and RATE not in chosen[name]
    }
    others = {
        setting: labels for setting, labels in equal_settings(results, RANK).items() if setting != "lora.lora_alpha"
    }
    alike: dict[tuple[str | None, ...], list[str]] = {}
    for name in ranks:
        alike.setdefault(tuple(labels.get(name) for labels in others.values()), []).append(name)
    sign = 1 if more_is_better(metric) else -1
    lines = []
    for members in alike.values():
        order = sorted((name for name in members if found[name].known), key=ranks.__getitem__)
        for small, large in pairwise(order):
            gap, spread = sign * (found[small].mean - found[large].mean), spread_of(found[small], found[large])
            if ranks[small] < ranks[large] and gap > spread:  # never true where there is no spread
                lines.append(
                    f"{large} scores {difference(metric, gap)} worse than {small}, a smaller rank, and the spread over "
                    f"seeds is {difference(metric, spread)}: a sign that its learning rate does not suit it."
                )
    return lines


def _table(metric: str, several: list[RateGroup], found: dict[str, Score]) -> Table:
    sign = 1 if more_is_better(metric) else -1
    rows = []
    for group in several:
        known = [sign * found[name].mean for name in group.rates if found[name].known]
        for name, value in group.rates.items():
            one = found[name]
            behind = max(known) - sign * one.mean if one.known else None
            row = {"group": group.label, "rate": value, "mean": one.mean, "spread": one.spread, "n": one.n}
            row |= {"behind": behind, "runs": one.lost or "all done", "configuration": name}
            row["note"] = "best" if behind == 0 else "" if behind is None else f"{difference(metric, behind)} away"
            rows.append(row)
    kind = kind_of(metric)
    columns = [
        Column("group", "settings"),
        Column("rate", RATE, "rate"),
        Column("mean", f"{on(metric, 'validation')} ({direction(metric)})", kind, "spread", "n"),
        Column("note", "from the best rate"),
        Column("runs", "runs"),
        Column("configuration", "configuration"),
    ]
    return Table("By learning rate", pd.DataFrame(rows), tuple(columns))


def _chart(results: Results, metric: str, drawn: list[RateGroup]) -> Any:
    """Return quality against rate on a logarithmic axis."""
    import altair as alt

    from lorafile.analysis.common.chart_parts import (
        WIDTH,
        domain_of,
        finish,
        mean_rows,
        quality,
        seed_rows,
        seeds_and_means,
        series_colour,
    )

    found = quality(results, metric, "validation")
    rates = {name: value for group in drawn for name, value in group.rates.items() if not isnan(value)}
    series = {name: group.label for group in drawn for name in group.rates}
    means, seeds = (make(found, rates, "x") for make in (mean_rows, seed_rows))
    means, seeds = (frame.assign(series=frame["configuration"].map(series)) for frame in (means, seeds))
    ticks = sorted(set(rates.values()))
    room = max(ticks[-1] / ticks[0], 2.0) ** 0.06
    scale = alt.Scale(type="log", domain=[ticks[0] / room, ticks[-1] * room], nice=False, padding=0)
    axis = alt.Axis(values=ticks, format=".2~e", grid=False, labelOverlap="greedy")
    x = alt.X("x:Q", title="learning rate, logarithmic", scale=scale, axis=axis)
    y = found.upright(found.scale(domain_of(metric, *found.span(list(rates)))))
    lost = alt.Chart(means[means["note"] != ""]).mark_text(style="lost", baseline="bottom" if found.more else "top")
    edge = alt.value("height") if found.more else alt.value(0)
    layers = seeds_and_means(seeds, means, x, y, series_colour([group.label for group in drawn]))
    layers.append(lost.encode(x=x, y=edge, text="note:N"))
    text = "; ".join(
        f"{series[name]} at {rate(value)}: {score(metric, found.scores[name].mean)}" for name, value in rates.items()
    )
    whole = alt.layer(*layers).properties(width=WIDTH, height=260)
    return finish(whole, "Learning rates", f"{found.title} by learning rate. {text}", margin=90)
