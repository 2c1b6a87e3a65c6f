"""The efficiency frontier over any measures: which configurations none beats, and how surely one beats another."""

from dataclasses import dataclass
from typing import Literal

from lorafile.analysis.common.base import ColumnKind
from lorafile.analysis.common.format import amount, kind_of, metric_name, on
from lorafile.analysis.common.scores import COSTS, Score, cost_of, scores, split_of
from lorafile.analysis.compare.outcomes import crossed, figure_interval, margin_of, on_other_examples
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.evaluate import metric_label
from lorafile.statistics.crossed import contrast
from lorafile.statistics.probabilities import non_inferiority

SAME_TIME = 0.02  # times that differ by less than this share of the smaller are not told apart


@dataclass(frozen=True)
class Measure:
    """One measure of every configuration that has it.

    :ivar title: with the split of a metric; `short`: without it
    :ivar split: of a metric; empty for a cost
    :ivar more: whether more of it is better
    :ivar values: configuration -> mean over seeds, or what a profile measured once, in base units
    :ivar intervals: configuration -> 95 % interval of a metric's figure, where there is one
    :ivar scores: configuration -> a metric's score over seeds
    """

    name: str
    title: str
    short: str
    kind: ColumnKind
    split: str
    more: bool
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    scores: dict[str, Score]

    @property
    def timed(self) -> bool:
        """Whether it is a time, which another measurement would move."""
        return not self.split and self.kind == "seconds"

    def gain(self, one: str, other: str) -> float:
        """Return by how much the first is better than the second; negative where it is worse."""
        return (self.values[one] - self.values[other]) * (1 if self.more else -1)

    def shown(self, name: str) -> str:
        """Return a configuration's value with its unit."""
        return amount(self.kind, self.values[name])


def measure_of(results: Results, name: str) -> Measure:
    """Return a metric, on the split that figures are shown on, or a cost."""
    if name in COSTS:
        cost = COSTS[name]
        return Measure(name, cost.title, cost.title, cost.kind, "", False, cost_of(results, name), {}, {})
    metric = next((other for other in (*results.metrics, results.primary) if other == metric_label(name)), name)
    split = split_of(results, metric)
    every = scores(results, f"{split}.{metric}")
    elsewhere = on_other_examples(results, metric, split)
    means = {config: figure.mean for config, figure in every.items() if figure.known and config not in elsewhere}
    ends = {config: figure_interval(results, config, metric, split) for config in results.names if config in means}
    intervals = {config: pair for config, pair in ends.items() if not isinstance(pair, str)}
    title, short, kind, more = on(metric, split), metric_name(metric), kind_of(metric), more_is_better(metric)
    return Measure(metric, title, short, kind, split, more, means, intervals, every)


@dataclass(frozen=True)
class FrontierPlace:
    """Where a configuration stands.

    :ivar word: `frontier`; `clear`: another one is better beyond the noise; `noise`: better by means alone; `means`:
        nothing tells how far the figures would move
    :ivar by: the configuration that is better
    """

    word: Literal["frontier", "clear", "noise", "means"]
    by: str = ""


def places(results: Results, measures: list[Measure], among: list[str]) -> dict[str, FrontierPlace]:
    """Return configuration -> where it stands among those that have every measure."""
    front = [name for name in among if not any(dominates(measures, other, name) for other in among)]
    bar = results.verdict.alpha / max(len(among) - 1, 1)
    standing = {}
    for name in among:
        if name in front:
            standing[name] = FrontierPlace("frontier")
            continue
        ahead = [other for other in front if dominates(measures, other, name)]
        ahead.sort(key=lambda other: -measures[0].gain(other, name))
        judged = {other: _clearly(results, measures, other, name, bar) for other in ahead}
        clear = next((other for other, sure in judged.items() if sure), None)
        testable = any(sure is not None for sure in judged.values())
        by_means = FrontierPlace("noise" if testable else "means", ahead[0])
        standing[name] = FrontierPlace("clear", clear) if clear else by_means
    return standing


def dominates(measures: list[Measure], one: str, other: str) -> bool:
    """Return whether the first is nowhere worse than the second by its values, and somewhere better."""
    gains = [measure.gain(one, other) for measure in measures]
    return min(gains) >= 0 and max(gains) > 0


def _clearly(results: Results, measures: list[Measure], one: str, other: str, bar: float) -> bool | None:
    """Return whether the first is better beyond the noise; None where that cannot be tested.

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


def exactness(measures: list[Measure], standing: dict[str, FrontierPlace]) -> str:
    """Return what `clearly` means here."""
    if not any(place.word in ("clear", "noise") for place in standing.values()):
        return ""
    timed = (
        f"; times within {100 * SAME_TIME:g}\u202f% are taken as equal"
        if any(measure.timed for measure in measures)
        else ""
    )
    exact = f" costs are taken as exact{timed}, and" if not all(measure.split for measure in measures) else ""
    return f" Clearly behind:{exact} another configuration is significantly better, or no worse within the margin."
