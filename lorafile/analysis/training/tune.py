"""At which of its candidates is each tuned configuration compared: what validation said of all of them."""

from collections import Counter
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.chart_parts import (
    COLOURS,
    WIDTH,
    Quality,
    domain_of,
    finish,
    quality,
    room,
    seeds_and_means,
    series_rows,
)
from lorafile.analysis.common.format import (
    difference,
    direction,
    kind_of,
    metric_name,
    on,
    score,
    setting,
    slug,
    spread_of,
)
from lorafile.analysis.common.scores import Score, lost
from lorafile.engine.metrics.registry import more_is_better
from lorafile.plan.tuning_status import TuningStatus, edge_lines
from lorafile.results.results import Results, grouped, missing, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

CAPTION = (
    "Dots: one seed each. Lines and bars: mean ± sample standard deviation over seeds, on validation. Ring: the chosen "
    "candidate. Below, for each configuration: × the number of a candidate's runs without a result, and why."
)
_MOST = 12  # configurations that a sentence names
_WIDE = 10.0  # from this ratio of largest to smallest value on an axis is logarithmic
_STEEP = 30.0


@dataclass(frozen=True)
class Candidate:
    """One candidate over the study's seeds.

    :ivar values: setting -> value
    :ivar figures: seed -> its figure on validation
    :ivar outcomes: how many runs ended in which way
    """

    configuration: str
    name: str
    values: dict[str, Any]
    figures: dict[int, float]
    outcomes: Counter[str]
    chosen: bool
    added: bool

    @property
    def score(self) -> Score:
        """Its mean and spread over seeds, and what became of the runs without a figure."""
        return Score.of(list(self.figures.values()), self.outcomes.total(), lost(self.outcomes))

    @property
    def label(self) -> str:
        """Return `learning_rate=1e-3`."""
        return ", ".join(f"{name.rpartition('.')[2]}={setting(value)}" for name, value in self.values.items())


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for all configurations that tune the same settings; nothing where none is tuned."""
    metric = table.metric or results.primary
    alike = grouped((tuple(status.tried), status) for status in results.tuning)
    return [_analysis(results, metric, list(settings), members) for settings, members in alike.items()]


def _analysis(results: Results, metric: str, settings: list[str], members: list[TuningStatus]) -> Analysis:
    tried = candidates(results.candidates, metric, [status.configuration for status in members])
    names = [name.rpartition(".")[2] for name in settings]
    short = " and ".join(names)
    name = slug("tune", *names, "" if metric == results.primary else metric)
    sentences, limits = _sentences(results, metric, short, members, tried)
    question = f"Which {short} was chosen for each configuration, and is the best one inside the range that was tried?"
    tables = (_table(metric, tried),)
    analysis = Analysis("tune", name, f"Tuned: {short}", question, sentences, tables, limits=tuple(limits))
    if sum(candidate.score.known for candidate in tried) > 1:
        for key, chart in _charts(quality(results, metric, "validation"), settings, tried, name).items():
            analysis = analysis.with_chart(chart, CAPTION, key)
    return analysis


def candidates(table: pd.DataFrame, metric: str, among: list[str]) -> list[Candidate]:
    """Return the candidates of some configurations, each configuration's in the order of its values."""
    names = ("configuration", "candidate", "values", "seed", "outcome", "chosen", "added", f"validation.{metric}")
    by_name: dict[str, Candidate] = {}
    for label, name, values, seed, outcome, chosen, added, figure in rows_of(table, *names):
        if label in among:
            new = Candidate(label, name, dict(values), {}, Counter(), bool(chosen), bool(added))
            candidate = by_name.setdefault(name, new)
            candidate.outcomes[str(outcome or "missing")] += 1
            if outcome == "done" and figure is not None and isfinite(figure):
                candidate.figures[int(seed)] = float(figure)

    def order(candidate: Candidate) -> tuple[int, list[tuple[bool, Any]]]:
        values = [value if isinstance(value, (int, float, str)) else str(value) for value in candidate.values.values()]
        kinds = [isinstance(value, str) for value in candidate.values.values()]
        return among.index(candidate.configuration), list(zip(kinds, values, strict=True))

    return sorted(by_name.values(), key=order)


def _sentences(
    results: Results, metric: str, short: str, members: list[TuningStatus], tried: list[Candidate]
) -> tuple[list[str], list[str]]:
    """Return what is said, and which of it limits what the study can say."""
    ready = [status for status in members if status.chosen]
    lines = [_chosen(results, short, ready, tried)] if ready else []
    waiting = [f"{status.configuration}: {status.why_open}" for status in members if not status.chosen]
    lines += [f"{listing(waiting, _MOST)}."] if waiting else []
    limits = edge_lines(members)
    values = [value for status in ready for column in status.tried.values() for value in column]
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if ready and not limits and numeric:
        lines.append("Every chosen value lies inside the range that was tried.")
    if unfinished := [status.configuration for status in ready if not status.whole]:
        limits.append(
            f"No candidate of {listing(unfinished, _MOST)} finished with every seed. Among the candidates with the "
            "fewest lost runs, the one with the best mean was chosen."
        )
    counts = grouped((status.candidates, status.configuration) for status in members)
    limits += [_counts(counts)] if len(counts) > 1 else []
    lines += [*limits, *(_close(metric, ready, tried) if metric == results.primary else []), *_lost(tried)]
    lines += [] if len(counts) > 1 else [_counts(counts)]
    tuned = {status.configuration for status in results.tuning}
    others = [name for name, method in results.methods.items() if method != "none" and name not in tuned]
    lines += [f"Not tuned, and run at one value each: {listing(others)}."] if others else []
    if metric != results.primary:
        lines.append(f"The choice was made by {metric_name(results.primary)}, not by {metric_name(metric)}.")
    return lines, limits


def _chosen(results: Results, short: str, ready: list[TuningStatus], tried: list[Candidate]) -> str:
    """Return which value each configuration has, those of one value together."""
    winners = {candidate.name: candidate for candidate in tried}
    pairs = []
    for status in ready:
        winner = winners[status.chosen]
        mean = score(results.primary, status.mean) if status.mean is not None else "no result"
        label = setting(next(iter(winner.values.values()))) if len(winner.values) == 1 else winner.label
        pairs.append((label, f"{status.configuration} ({mean})"))
    alike = {label: listing(names, _MOST) for label, names in grouped(pairs).items()}
    how = f"{on(results.primary, 'validation')}, means over {plural(len(results.seeds), 'seed')}"
    if len(alike) == 1 and len(ready) > 1:
        ((label, names),) = alike.items()
        return f"The best {short} of all {len(ready)} is {label}: {names}; {how}."
    return f"The best {short} is {'; '.join(f'{label} for {names}' for label, names in alike.items())}; {how}."


def _close(metric: str, ready: list[TuningStatus], tried: list[Candidate]) -> list[str]:
    """Return whose choice another draw of seeds could have changed: the lead over the next is within their spread."""
    sign = 1 if more_is_better(metric) else -1
    parts = []
    for status in ready:
        own = [candidate for candidate in tried if candidate.configuration == status.configuration]
        whole = {candidate.name: candidate for candidate in own if candidate.score.known and not candidate.score.lost}
        winner = whole.pop(status.chosen, None)
        if winner is None or not whole:
            continue
        second = max(whole.values(), key=lambda candidate: sign * candidate.score.mean)
        gap, spread = winner.score.mean - second.score.mean, spread_of(winner.score, second.score)
        if abs(gap) <= spread:
            parts.append(
                f"{status.configuration} ({second.label} is {difference(metric, gap)} behind, and the spread over "
                f"seeds is {difference(metric, spread)})"
            )
    return [f"Other seeds could have led to a different choice for {listing(parts, _MOST)}."] if parts else []


def _lost(tried: list[Candidate]) -> list[str]:
    """Return which candidates lost runs for good, by value."""
    pairs = []
    for candidate in tried:
        counts = candidate.outcomes
        ended = Counter({name: counts[name] for name in ("diverged", "out-of-memory") if counts[name]})
        if ended:
            runs = plural(counts.total(), "run")
            pairs.append((candidate.label, f"{candidate.configuration} ({lost(ended)} of {runs})"))
    parts = [f"{label}: {listing(names, _MOST)}" for label, names in grouped(pairs).items()]
    rule = "Such a candidate ranks below any whose runs all finished."
    return [f"No result at {'; '.join(parts)}. {rule}"] if parts else []


def _counts(counts: dict[int, list[str]]) -> str:
    """Return how many candidates each had.

    :param counts: number of candidates -> the configurations that had so many
    """
    if len(counts) == 1:
        return f"Each had {plural(next(iter(counts)), 'candidate')}."
    parts = [f"{plural(number, 'candidate')} for {listing(names, _MOST)}" for number, names in counts.items()]
    return f"The number of candidates differs: {'; '.join(parts)}. More candidates mean more chances to look good."


def _table(metric: str, tried: list[Candidate]) -> Table:
    sign = 1 if more_is_better(metric) else -1
    means = grouped((one.configuration, sign * one.score.mean) for one in tried if one.score.known)
    rows = []
    for candidate in tried:
        name, figure = candidate.configuration, candidate.score
        notes = (("chosen", candidate.chosen), ("added by the plan", candidate.added))
        row = {"configuration": name, "candidate": candidate.label, "mean": figure.mean, "n": figure.n}
        row |= {"spread": figure.spread, "behind": max(means[name]) - sign * figure.mean if figure.known else None}
        row |= {"runs": figure.lost or "all done", "note": ", ".join(word for word, applies in notes if applies)}
        rows.append(row | {key: None if missing(value) else value for key, value in candidate.values.items()})
    columns = (
        Column("configuration", "configuration"),
        Column("candidate", "candidate"),
        Column("mean", f"{on(metric, 'validation')} ({direction(metric)})", kind_of(metric), "spread", "n"),
        Column("note", "note"),
        Column("runs", "runs"),
    )
    return Table("Every candidate", pd.DataFrame(rows), columns)


def _charts(base: Quality, settings: list[str], tried: list[Candidate], name: str) -> dict[str, Any]:
    """Return a chart for each tuned setting, the others at their chosen values, of as many configurations as colours.

    :param name: of the analysis; that of its charts begin with it
    """
    charts: dict[str, Any] = {}
    everyone = list(dict.fromkeys(candidate.configuration for candidate in tried))
    for factor in settings:
        along = _slice(tried, factor)
        for start in range(0, len(everyone), COLOURS):
            among = everyone[start : start + COLOURS]
            shown = [candidate for candidate in along if candidate.configuration in among]
            if any(candidate.score.known for candidate in shown):
                part = factor.rpartition(".")[2] if len(settings) > 1 else ""
                key = slug(name, part, str(start // COLOURS + 1) if start else "")
                charts[key] = _chart(base, factor, shown)
    return charts


def _slice(tried: list[Candidate], factor: str) -> list[Candidate]:
    """Return the candidates that have the chosen values of every other setting; all, where nothing else is tuned."""
    winners = {candidate.configuration: candidate.values for candidate in tried if candidate.chosen}

    def others(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name != factor}

    return [one for one in tried if others(one.values) == others(winners.get(one.configuration, one.values))]


def _chart(base: Quality, factor: str, shown: list[Candidate]) -> Any:
    figures = {(candidate.name, seed): value for candidate in shown for seed, value in candidate.figures.items()}
    drawn = replace(base, scores={candidate.name: candidate.score for candidate in shown}, values=figures)
    numeric = all(isinstance(candidate.values[factor], (int, float)) for candidate in shown)
    places = {one.name: one.values[factor] if numeric else setting(one.values[factor]) for one in shown}
    owners = {candidate.name: candidate.configuration for candidate in shown}
    order = list(dict.fromkeys(owners.values()))
    x = _x(factor, list(dict.fromkeys(places.values())), numeric)
    colour = alt.Color("series:N", sort=order, legend=None)
    curve = _curve(drawn, places, owners, {candidate.name for candidate in shown if candidate.chosen}, (x, colour))
    figures_text = []
    for one in shown:
        result = score(base.metric, one.score.mean) if one.score.known else one.score.lost
        figures_text.append(f"{one.configuration} at {one.label}: {result}")
    whole = alt.vconcat(curve, _strip(drawn, places, owners, (x, colour)), spacing=6)
    title = f"{drawn.title.rsplit(', %', 1)[0]} by {factor}"
    return finish(
        whole.resolve_scale(x="shared", color="shared"),
        title,
        f"{title}. {'; '.join(figures_text)}",
        margin=room(order),
    )


def _curve(
    drawn: Quality, places: dict[str, Any], owners: dict[str, str], chosen: set[str], encoding: tuple[Any, Any]
) -> Any:
    x, colour = encoding
    seeds, means = series_rows(drawn, places, owners)
    low, high = drawn.span(list(places))
    steep = low > 0 and high / low > _STEEP and drawn.format == ".3~g"
    scale = drawn.scale(domain_of(drawn.metric, low, high))
    if steep:
        scale = alt.Scale(type="log", domain=[low / 1.15, high * 1.15], nice=False)
    y = alt.Y("value:Q", title=drawn.title + (", logarithmic" if steep else ""), scale=scale, axis=drawn.axis())
    above = x.copy()
    above["axis"] = alt.Axis(labels=False, ticks=False, title=None, grid=False, domain=False)
    means = means.assign(chosen=means["configuration"].isin(chosen))
    picked = alt.Chart(means[means["chosen"] & (means["n"] > 0)]).encode(x=above, y="mean:Q")
    layers = seeds_and_means(seeds, means, above, y, {"color": colour})
    return alt.layer(*layers, picked.mark_point(style="picked")).properties(width=WIDTH, height=280)


def _strip(drawn: Quality, places: dict[str, Any], owners: dict[str, str], encoding: tuple[Any, Any]) -> Any:
    """Return a row for each configuration: its colour and name, a mark for each candidate, and what was lost there."""
    x, colour = encoding
    frame = pd.DataFrame(
        {"configuration": name, "x": place, "series": owners[name], "lost": f"× {lost}", "whole": not lost}
        for name, place in places.items()
        for lost in [drawn.scores[name].lost]
    )
    order = list(dict.fromkeys(owners.values()))
    y = alt.Y("series:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, ticks=False, domain=False))
    whole = alt.Chart(frame).encode(x=x, y=y, color=colour).transform_filter("datum.whole")
    layers = [
        whole.mark_line(style="curve"),
        whole.mark_point(style="mean"),
        alt.Chart(frame[~frame["whole"]]).mark_text(style="lost").encode(x=x, y=y, text="lost:N"),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(24))


def _x(factor: str, values: list[Any], numeric: bool) -> Any:
    if not numeric:
        return alt.X("x:N", title=factor, sort=[*values])
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    rates = low > 0 and high / low >= _WIDE
    room = (high / low) ** 0.08 if rates else (high - low) * 0.08
    domain = [low / room, high * room] if rates else [low - room, high + room]
    scale = alt.Scale(type="log" if rates else "linear", domain=domain, nice=False, zero=False, padding=0)
    form = ".2~e" if factor.endswith("learning_rate") else "~g"
    axis = alt.Axis(values=ordered, format=form, grid=False, labelOverlap="greedy")
    return alt.X("x:Q", title=f"{factor}, logarithmic" if rates else factor, scale=scale, axis=axis)
