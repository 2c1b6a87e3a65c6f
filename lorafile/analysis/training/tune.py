"""At which of its candidates is each tuned configuration compared: what validation said of all of them."""

from collections import Counter

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
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
from lorafile.analysis.common.scores import lost
from lorafile.analysis.training.candidates import Candidate, candidates
from lorafile.engine.metrics.registry import more_is_better
from lorafile.plan.tuning_status import TuningStatus, edge_lines
from lorafile.results.results import Results, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

_MOST = 12  # configurations that a sentence names


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for all configurations that tune the same settings; nothing where none is tuned."""
    metric = table.metric or results.primary
    alike: dict[tuple[str, ...], list[TuningStatus]] = {}
    for one in results.tuning:
        alike.setdefault(tuple(one.tried), []).append(one)
    return [_analysis(results, metric, list(settings), members) for settings, members in alike.items()]


def _analysis(results: Results, metric: str, settings: list[str], members: list[TuningStatus]) -> Analysis:
    found = candidates(results, metric, [one.configuration for one in members])
    short = " and ".join(name.rpartition(".")[2] for name in settings)
    name = slug("tune", *(part.rpartition(".")[2] for part in settings), "" if metric == results.primary else metric)
    sentences, limits = _sentences(results, metric, short, members, found)
    question = f"Which {short} was chosen for each configuration, and does the best one lie inside what was tried?"
    tables = (_table(metric, found),)
    made = Analysis("tune", name, f"Tuned: {short}", question, sentences, tables, limits=tuple(limits))
    if sum(one.score.known for one in found) < 2:
        return made
    from lorafile.analysis.training.tune_chart import CAPTION, charts_of

    for key, chart in charts_of(results, metric, settings, found, name).items():
        made = made.with_chart(chart, CAPTION, key)
    return made


def _sentences(
    results: Results, metric: str, short: str, members: list[TuningStatus], found: list[Candidate]
) -> tuple[list[str], list[str]]:
    """Return what is said, and which of it limits what the study can say."""
    ready = [one for one in members if one.chosen]
    lines = [_chosen(results, short, ready, found)] if ready else []
    waiting = [f"{one.configuration}: {one.why_open}" for one in members if not one.chosen]
    lines += [f"{listing(waiting, _MOST)}."] if waiting else []
    limits = edge_lines(members)
    if ready and not limits and _numeric(ready):
        lines.append("Every chosen value lies inside what was tried.")
    unwhole = [one.configuration for one in ready if not one.whole]
    if unwhole:
        told = "of the fewest lost runs, the best mean of the rest was taken"
        limits.append(f"No candidate of {listing(unwhole, _MOST)} finished under every seed; {told}.")
    counts = _counts(members)
    if len({one.candidates for one in members}) > 1:
        limits.append(counts)
    lines += [
        *limits,
        *_close(results, metric, ready, found),
        *_lost(found),
        *([] if counts in limits else [counts]),
        *_untuned(results),
    ]
    if metric != results.primary:
        lines.append(f"The choice was made by {metric_name(results.primary)}, not by {metric_name(metric)}.")
    return lines, limits


def _numeric(ready: list[TuningStatus]) -> bool:
    return all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for one in ready
        for values in one.tried.values()
        for value in values
    )


def _chosen(results: Results, short: str, ready: list[TuningStatus], found: list[Candidate]) -> str:
    """Return which value each configuration has, those of one value together."""
    alike: dict[str, list[str]] = {}
    for one in ready:
        winner = next(candidate for candidate in found if candidate.name == one.chosen)
        mean = score(results.primary, one.mean) if one.mean is not None else "no figure"
        label = setting(next(iter(winner.values.values()))) if len(winner.values) == 1 else winner.label
        alike.setdefault(label, []).append(f"{one.configuration} ({mean})")
    how = f"{on(results.primary, 'validation')}, means over {plural(len(results.seeds), 'seed')}"
    if len(alike) == 1 and len(ready) > 1:
        ((label, names),) = alike.items()
        return f"The best {short} of all {len(ready)} is {label}: {listing(names, _MOST)}; {how}."
    parts = [f"{label} for {listing(names, _MOST)}" for label, names in alike.items()]
    return f"The best {short} is {'; '.join(parts)}; {how}."


def _close(results: Results, metric: str, ready: list[TuningStatus], found: list[Candidate]) -> list[str]:
    """Return whose choice another draw of seeds could have changed: the lead over the next is within their spread."""
    sign = 1 if more_is_better(metric) else -1
    parts = []
    for one in ready:
        mine = [candidate for candidate in found if candidate.configuration == one.configuration]
        whole = [candidate for candidate in mine if candidate.score.known and not candidate.score.lost]
        winner = next((candidate for candidate in whole if candidate.name == one.chosen), None)
        others = [candidate for candidate in whole if candidate is not winner]
        if winner is None or not others or metric != results.primary:
            continue
        second = max(others, key=lambda candidate: sign * candidate.score.mean)
        gap, spread = winner.score.mean - second.score.mean, spread_of(winner.score, second.score)
        if abs(gap) <= spread:
            told = f"{one.configuration} ({second.label} is {difference(metric, gap)} behind"
            parts.append(f"{told}, and the spread over seeds is {difference(metric, spread)})")
    return [f"Other seeds could have chosen otherwise for {listing(parts, _MOST)}."] if parts else []


def _lost(found: list[Candidate]) -> list[str]:
    """Return which candidates lost runs for good, by value."""
    alike: dict[str, list[str]] = {}
    for one in found:
        ended = Counter({name: one.outcomes[name] for name in ("diverged", "out-of-memory") if one.outcomes[name]})
        if ended:
            alike.setdefault(one.label, []).append(
                f"{one.configuration} ({lost(ended)} of {plural(one.outcomes.total(), 'run')})"
            )
    parts = [f"{label}: {listing(names, _MOST)}" for label, names in alike.items()]
    rule = "Such a candidate loses to any whose runs all finished."
    return [f"Without a figure at {'; '.join(parts)}. {rule}"] if parts else []


def _counts(members: list[TuningStatus]) -> str:
    """Return how many candidates each had."""
    counts: dict[int, list[str]] = {}
    for one in members:
        counts.setdefault(one.candidates, []).append(one.configuration)
    if len(counts) == 1:
        return f"Each had {plural(next(iter(counts)), 'candidate')}."
    parts = [f"{plural(number, 'candidate')} for {listing(names, _MOST)}" for number, names in counts.items()]
    return f"They had unequally many: {'; '.join(parts)}. Who has more has more chances to look good."


def _untuned(results: Results) -> list[str]:
    """Return which trained configurations have no candidates, so that a tuned one has had more chances than they."""
    tuned = {one.configuration for one in results.tuning}
    others = [name for name, method in results.methods.items() if method != "none" and name not in tuned]
    return [f"Not tuned, but run at one value each: {listing(others)}."] if others else []


def _table(metric: str, found: list[Candidate]) -> Table:
    sign = 1 if more_is_better(metric) else -1
    best: dict[str, float] = {}
    for one in found:
        if one.score.known:
            best[one.configuration] = max(best.get(one.configuration, -float("inf")), sign * one.score.mean)
    rows = []
    for one in found:
        figure = one.score
        note = [word for word, is_so in (("chosen", one.chosen), ("added by the plan", one.added)) if is_so]
        row = {"configuration": one.configuration, "candidate": one.label, "mean": figure.mean, "n": figure.n}
        behind = None if not figure.known else best[one.configuration] - sign * figure.mean
        row |= {"spread": figure.spread, "behind": behind, "runs": figure.lost or "all done", "note": ", ".join(note)}
        rows.append(row | {name: None if missing(value) else value for name, value in one.values.items()})
    kind = kind_of(metric)
    columns = (
        Column("configuration", "configuration"),
        Column("candidate", "candidate"),
        Column("mean", f"{on(metric, 'validation')} ({direction(metric)})", kind, "spread", "n"),
        Column("note", "note"),
        Column("runs", "runs"),
    )
    return Table("Every candidate", pd.DataFrame(rows), columns)
