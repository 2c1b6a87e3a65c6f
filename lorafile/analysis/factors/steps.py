"""Quality step by step along an ordered factor: does it rise, where does it stop, and what is a doubling worth."""

from dataclasses import dataclass
from itertools import pairwise
from math import isnan, log2, nan

from lorafile.analysis.common.error_rate import of_exploring
from lorafile.analysis.common.format import difference, level, on, sentence_case
from lorafile.analysis.common.scores import CENSORED, Score, outcomes, profiled, scores, split_of
from lorafile.analysis.compare.outcomes import crossed, margin_of, margin_text, reach
from lorafile.analysis.compare.verdict_text import FEW, signed_difference, signed_interval
from lorafile.analysis.factors.eligible import Trend, families
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.statistics.crossed import Outcomes
from lorafile.statistics.factorial import FactorStep, saturated, steps
from lorafile.statistics.run_variance import RunVariance
from lorafile.units import listing, plural


@dataclass(frozen=True)
class SteppedSeries:
    """One series of a trend, its values compared one after another.

    :ivar members: the configurations that are compared, in the order of their values; `left_out`: those that lost runs
    :ivar steps: between neighbours; `whole`: from end to end
    :ivar doublings: of each step: how often the factor doubles in it; NaN where it does not (from zero)
    :ivar margin: the difference that does not matter, None where none is declared; `saturates`: the place from which on
        all larger values are equivalent within it, None where nothing was shown
    :ivar level: of all steps together: their part of the page's error rate
    """

    trend: Trend
    metric: str
    scale: str
    split: str
    more: bool
    members: tuple[str, ...]
    left_out: tuple[str, ...]
    outcomes: tuple[Outcomes, ...]
    pooled: RunVariance
    steps: tuple[FactorStep, ...]
    whole: FactorStep
    doublings: tuple[float, ...]
    margin: float | None
    saturates: int | None
    level: float

    def value(self, place: int) -> str:
        """Return the factor's value at a place, as a reader sees it."""
        return self.trend.values[self.members[place]]

    @property
    def doubled(self) -> list[int]:
        """The steps in which the factor doubles, however often."""
        return [at for at, times in enumerate(self.doublings) if not isnan(times)]

    def gain(self, at: int) -> tuple[float, tuple[float, float]]:
        """Return (what a doubling adds in a step, its interval)."""
        step, times = self.steps[at], self.doublings[at]
        return step.estimate.difference / times, (step.interval[0] / times, step.interval[1] / times)

    def better(self, step: FactorStep) -> bool:
        """Whether a step goes in the better direction."""
        return (step.estimate.difference > 0) == self.more


def stepped_series(results: Results, trend: Trend, metric: str, split: str, series: str) -> SteppedSeries | None:
    """Return a series compared step by step; None where seeds and examples tell nothing of it, or it is not ordered."""
    data, ended = crossed(results, metric, split), outcomes(results)
    members = [name for name in trend.numbers if trend.series.get(name) == series]
    broken = [name for name in members if any(ended[name][word] for word in CENSORED if name in ended)]
    kept = [name for name in members if name in data.outcomes and name not in broken]
    numbers = [trend.numbers[name] for name in kept]
    if len(kept) < 2 or len(set(numbers)) < len(numbers):
        return None
    sides = [data.outcomes[name] for name in kept]
    pooled = data.variance
    share = of_exploring(results, families(results))
    tested = steps(sides, pooled, share, reach(data.scale))
    if any(isnan(step.estimate.error) or step.estimate.on_runs_only for step in tested):
        return None
    margin = margin_of(results.verdict.margin, metric, sides[0].mean)
    reached = saturated(sides, pooled, margin, share)[0] if margin is not None else len(sides) - 1
    return SteppedSeries(
        trend=trend,
        metric=metric,
        scale=data.scale,
        split=split,
        more=more_is_better(data.scale),
        members=tuple(kept),
        left_out=tuple(trend.values[name] for name in broken),
        outcomes=tuple(sides),
        pooled=pooled,
        steps=tuple(tested[: len(kept) - 1]),
        whole=tested[-1],
        doublings=tuple(log2(high / low) if low > 0 else nan for low, high in pairwise(numbers)),
        margin=margin,
        saturates=reached if reached < len(sides) - 1 else None,
        level=share,
    )


@dataclass(frozen=True)
class TrendFigures:
    """What was measured along a factor.

    :ivar scores: configuration -> its figure of `metric` on `split`; `memory`: -> its peak training memory in bytes
    :ivar stepped: the series whose steps can be tested
    """

    trend: Trend
    metric: str
    split: str
    scores: dict[str, Score]
    memory: dict[str, float]
    stepped: list[SteppedSeries]


def trend_figures(results: Results, trend: Trend, metric: str) -> TrendFigures:
    """Return what was measured of a trend's configurations."""
    split = split_of(results, metric)
    every, memory = scores(results, f"{split}.{metric}"), profiled(results, "train_allocated_bytes")
    stepped = [stepped_series(results, trend, metric, split, name) for name in dict.fromkeys(trend.series.values())]
    return TrendFigures(
        trend,
        metric,
        split,
        {name: every[name] for name in trend.values},
        {name: value for name, value in memory.items() if name in trend.values},
        [series for series in stepped if series is not None],
    )


def step_sentences(series: SteppedSeries) -> list[str]:
    """Return whether quality rises along the factor, where it stops, what a doubling is worth, and what speaks so."""
    others, shape = series.trend.series[series.members[0]], _shape(series)
    start = f"At {others}, {shape}" if others else sentence_case(shape)
    lines = [f"{start} ({_tested(series)}).", *_saturation(series), *_doubling(series)]
    if series.left_out:
        what = f"{series.trend.factor} = {listing(series.left_out, 12)}"
        lines.append(f"Excluded from the steps because runs diverged or ran out of memory: {what}.")
    return lines


def _shape(series: SteppedSeries) -> str:
    """Return whether quality gets better from end to end, and whether it turns on the way."""
    down = [step for step in series.steps if step.p <= series.level and not series.better(step)]
    up = [step for step in series.steps if step.p <= series.level and series.better(step)]
    what, factor = on(series.scale, series.split), series.trend.factor
    ends = f"from {factor} = {series.value(0)} to {series.value(series.whole.high)}"
    whole = _amount(series, series.whole)
    if up and down:
        return f"{what} is not monotonic in {factor}: {_worse(series, down)}; {ends} it changes by {whole}"
    if series.whole.p <= series.level and series.better(series.whole):
        fall = f", but not at every step: {_worse(series, down)}" if down else ""
        note = "" if len(series.steps) == 1 or down else ", and no step is distinguishably worse"
        return f"{what} improves {ends}, by {whole}{fall or note}"
    if series.whole.p <= series.level or down:
        rise = "" if len(series.steps) == 1 else ", and no step is distinguishably better"
        by = f", by {whole}" if series.whole.p <= series.level else f" at a step: {_worse(series, down)}"
        return f"{what} gets worse {ends}{by}{rise}"
    if up:
        step = up[0]
        better = f"at {series.value(step.high)} than at {series.value(step.low)}, by {_amount(series, step)}"
        return f"{what} is better {better}; {ends} the difference of {whole} is not distinguishable from zero"
    return f"{what} neither rises nor falls {ends} by more than the noise: {whole} is not distinguishable from zero"


def _worse(series: SteppedSeries, down: list[FactorStep]) -> str:
    values = [(series.value(step.high), series.value(step.low), _amount(series, step)) for step in down]
    return listing([f"{high} is worse than {low} by {amount}" for high, low, amount in values], 4)


def _amount(series: SteppedSeries, step: FactorStep) -> str:
    """Return a step's difference with the interval that holds for all steps at once."""
    return f"{difference(series.scale, step.estimate.difference)} ({signed_interval(series.scale, step.interval)})"


def _tested(series: SteppedSeries) -> str:
    """Return what the intervals and words of the shape rest on."""
    fewest, *more = sorted({side.runs for side in series.outcomes})
    seeds = f"{'at least ' if more else ''}{plural(fewest, 'seed')}"
    confidence = level(1 - series.level)
    several = f"simultaneous {confidence} intervals for all {len(series.steps) + 1}, Holm"
    intervals = several if len(series.steps) > 1 else f"{confidence} interval"
    few = ", which is few" if fewest < FEW else ""
    own = "; their spreads between seeds clearly differ" if any(any(one.estimate.wide) for one in series.steps) else ""
    return f"{intervals}; {seeds} × {plural(series.outcomes[0].examples, series.outcomes[0].unit)}{few}{own}"


def _saturation(series: SteppedSeries) -> list[str]:
    """Return from where on nothing more is gained: shown to be equivalent, not told from none, or still rising."""
    if len(series.steps) < 2:
        return []
    factor, last = series.trend.factor, len(series.steps)
    if series.margin is not None:
        margin = margin_text(series.metric, series.margin)
        if series.saturates is not None:
            start = series.value(series.saturates)
            return [f"From {factor} = {start} on, every larger value is equivalent to it within {margin}."]
        return [f"The results do not show that it levels off within {margin} before {series.value(last)}."]
    clear = [at for at, step in enumerate(series.steps, 1) if step.p <= series.level and series.better(step)]
    if not clear:
        return []
    if clear[-1] == last:
        return [f"The last step, to {series.value(last)}, is still an improvement: there is no sign of levelling off."]
    return [
        f"Beyond {factor} = {series.value(clear[-1])}, no further gain is distinguishable from zero, which does not "
        "prove that there is none. Set a margin (verdict.margin) to let the study test it."
    ]


def _doubling(series: SteppedSeries) -> list[str]:
    """Return what a doubling is worth in the first step and in the last."""
    if not series.doubled:
        return []
    gains = []
    for at in dict.fromkeys((series.doubled[0], series.doubled[-1])):
        gain, ends = series.gain(at)
        shown = f"{signed_difference(series.scale, gain)} ({signed_interval(series.scale, ends)})"
        gains.append(f"{shown} between {series.value(at)} and {series.value(at + 1)}")
    return [f"Doubling {series.trend.factor} is worth {' and '.join(gains)}."]
