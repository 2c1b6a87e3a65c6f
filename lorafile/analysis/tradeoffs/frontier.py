"""The efficiency frontier over any measures: which configurations none beats, and how surely one beats another."""

from dataclasses import dataclass
from typing import Literal

from lorafile.analysis.compare.margins import margin_of
from lorafile.analysis.compare.outcomes import crossed
from lorafile.analysis.tradeoffs.measures import Measure
from lorafile.results.results import Results
from lorafile.statistics.crossed import contrast
from lorafile.statistics.probabilities import non_inferiority

SAME_TIME = 0.02  # times that differ by less than this share of the smaller are not told apart


@dataclass(frozen=True)
class Place:
    """Where a configuration stands.

    :ivar word: `frontier`; `clear`: another one is better beyond the noise; `noise`: better by means alone; `means`:
        nothing tells how far the figures would move
    :ivar by: the configuration that is better
    """

    word: Literal["frontier", "clear", "noise", "means"]
    by: str = ""


def places(results: Results, measures: list[Measure], among: list[str]) -> dict[str, Place]:
    """Return configuration -> where it stands among those that have every measure."""
    front = [name for name in among if not any(dominates(measures, other, name) for other in among)]
    bar = results.verdict.alpha / max(len(among) - 1, 1)
    found = {}
    for name in among:
        if name in front:
            found[name] = Place("frontier")
            continue
        ahead = [other for other in front if dominates(measures, other, name)]
        ahead.sort(key=lambda other: -measures[0].gain(other, name))
        judged = {other: _clearly(results, measures, other, name, bar) for other in ahead}
        clear = next((other for other, sure in judged.items() if sure), None)
        known = any(sure is not None for sure in judged.values())
        found[name] = Place("clear", clear) if clear else Place("noise" if known else "means", ahead[0])
    return found


def dominates(measures: list[Measure], one: str, other: str) -> bool:
    """Return whether the first is nowhere worse than the second by its values, and somewhere better."""
    gains = [measure.gain(one, other) for measure in measures]
    return min(gains) >= 0 and max(gains) > 0


def _clearly(results: Results, measures: list[Measure], one: str, other: str, bar: float) -> bool | None:
    """Return whether the first is better beyond the noise; None where that cannot be told.

    In every metric it is significantly better, or, with a margin, shown to be no worse by the margin; in some metric
    it is significantly better, or in some cost it is cheaper. Costs count as exact, but for times that hardly differ.
    """
    better = False
    for measure in measures:
        if measure.split:
            sure = _metric(results, measure, one, other, bar)
            if sure in (None, "worse"):
                return None if sure is None else False
            better |= sure == "better"
        else:
            least = min(measure.values[one], measure.values[other])
            better |= measure.gain(one, other) > (SAME_TIME * least if measure.timed else 0.0)
    return better


def _metric(results: Results, measure: Measure, one: str, other: str, bar: float) -> str | None:
    """Return `better`, `no worse`, or `worse` where neither is shown; None where nothing can be tested."""
    data = crossed(results, measure.name, measure.split)
    if one in data.why or other in data.why:
        return None
    estimate = contrast(data.outcomes[one], data.outcomes[other], data.variance)
    if estimate.on_runs_only:
        return None
    more = measure.more
    if non_inferiority(estimate, 0.0, more) <= bar:
        return "better"
    margin = margin_of(results.verdict.margin, measure.name, data.outcomes[other].mean)
    kept = margin is not None and non_inferiority(estimate, margin, more) <= bar
    return "no worse" if kept else "worse"
