"""Quality step by step along an ordered factor: does it rise, where does it stop, and what is a doubling worth."""

from dataclasses import dataclass
from itertools import pairwise
from math import isnan, log2

from lorafile.analysis.common.format import difference, on, sentence_case
from lorafile.analysis.common.scores import outcomes
from lorafile.analysis.compare.outcomes import crossed, margin_of, margin_text
from lorafile.analysis.compare.verdict_text import FEW, signed, signed_difference
from lorafile.analysis.factors.eligible import Trend
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.statistics.crossed import Outcomes, RunVariance, pool
from lorafile.statistics.factorial import FactorStep, saturated, steps
from lorafile.units import listing, plural

LEVEL = 0.05
CENSORED = ("diverged", "out-of-memory")


@dataclass(frozen=True)
class SteppedSeries:
    """One series of a trend, its values compared one after another.

    :ivar members: the configurations that are compared, in the order of their values; `left_out`: those that lost runs
    :ivar steps: between neighbours; `whole`: from end to end
    :ivar doublings: of each step: how often the factor doubles in it; NaN where it does not (from zero)
    :ivar margin: the difference that does not matter, None where none is declared; `saturates`: the place from which on
        all larger values are equivalent within it, None where nothing was shown
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

    def value(self, place: int) -> str:
        """Return the factor's value at a place, as a reader sees it."""
        return self.trend.values[self.members[place]]

    def gain(self, at: int) -> tuple[float, float, float]:
        """Return (what a doubling adds in a step, and its interval)."""
        step, times = self.steps[at], self.doublings[at]
        return step.estimate.difference / times, step.interval[0] / times, step.interval[1] / times

    def better(self, step: FactorStep) -> bool:
        """Whether a step goes in the better direction."""
        return (step.estimate.difference > 0) == self.more


def stepped_series(results: Results, trend: Trend, metric: str, split: str, series: str) -> SteppedSeries | None:
    """Return a series compared step by step; None where seeds and examples tell nothing of it, or it is not ordered."""
    data, ended = crossed(results, metric, split), outcomes(results)
    mine = [name for name in trend.numbers if trend.series.get(name) == series]
    broken = [name for name in mine if any(ended[name][word] for word in CENSORED if name in ended)]
    kept = [name for name in mine if name in data.outcomes and name not in broken]
    numbers = [trend.numbers[name] for name in kept]
    if len(kept) < 2 or len(set(numbers)) < len(numbers):
        return None
    found = [data.outcomes[name] for name in kept]
    # the series' own run variance where those of the study are too unlike to be pooled
    pooled = pool(found) if data.variance.differ else data.variance
    made = steps(found, pooled, LEVEL)
    if any(isnan(step.estimate.error) or step.estimate.on_runs_only for step in made):
        return None
    margin = margin_of(results.verdict.margin, metric, found[0].mean)
    reached = saturated(found, pooled, margin, LEVEL)[0] if margin is not None else len(found) - 1
    return SteppedSeries(
        trend=trend,
        metric=metric,
        scale=data.scale,
        split=split,
        more=more_is_better(data.scale),
        members=tuple(kept),
        left_out=tuple(trend.values[name] for name in broken),
        outcomes=tuple(found),
        pooled=pooled,
        steps=tuple(made[: len(kept) - 1]),
        whole=made[-1],
        doublings=tuple(log2(high / low) if low > 0 else float("nan") for low, high in pairwise(numbers)),
        margin=margin,
        saturates=reached if reached < len(found) - 1 else None,
    )


def step_sentences(found: SteppedSeries) -> list[str]:
    """Return whether quality rises along the factor, where it stops, what a doubling is worth, and what speaks so."""
    series, shape = found.trend.series[found.members[0]], _shape(found)
    start = f"At {series}, {shape}" if series else sentence_case(shape)
    lines = [f"{start} ({_tested(found)}).", *_saturation(found), *_doubling(found)]
    if found.left_out:
        what = f"{found.trend.factor} = {listing(found.left_out, 12)}"
        lines.append(f"Left out of the steps, since runs diverged or ran out of memory: {what}.")
    return lines


def _shape(found: SteppedSeries) -> str:
    """Return whether quality gets better from end to end, and whether it turns on the way."""
    down = [step for step in found.steps if step.p <= LEVEL and not found.better(step)]
    up = [step for step in found.steps if step.p <= LEVEL and found.better(step)]
    what, factor = on(found.scale, found.split), found.trend.factor
    ends = f"from {factor} = {found.value(0)} to {found.value(found.whole.high)}"
    whole = _amount(found, found.whole)
    if up and down:
        return f"{what} is not monotone along {factor}: {_worse(found, down)}; {ends} it changes by {whole}"
    if found.whole.p <= LEVEL and found.better(found.whole):
        fall = f", but not at every step: {_worse(found, down)}" if down else ""
        note = "" if len(found.steps) == 1 or down else ", and no step for the worse can be told from the noise"
        return f"{what} gets better {ends}, by {whole}{fall or note}"
    if found.whole.p <= LEVEL or down:
        rise = "" if len(found.steps) == 1 else ", and no step for the better can be told from the noise"
        by = f", by {whole}" if found.whole.p <= LEVEL else f" at a step: {_worse(found, down)}"
        return f"{what} gets worse {ends}{by}{rise}"
    if up:
        step = up[0]
        better = f"at {found.value(step.high)} than at {found.value(step.low)}, by {_amount(found, step)}"
        return f"{what} is better {better}; {ends} the difference of {whole} cannot be told from none"
    return f"{what} neither rises nor falls {ends} by more than the noise: {whole} cannot be told from none"


def _worse(found: SteppedSeries, down: list[FactorStep]) -> str:
    told = [f"{found.value(one.high)} is worse than {found.value(one.low)} by {_amount(found, one)}" for one in down]
    return listing(told, 4)


def _amount(found: SteppedSeries, step: FactorStep) -> str:
    """Return a step's difference with the interval that holds for all steps at once."""
    low, high = (signed(found.scale, end) for end in step.interval)
    return f"{difference(found.scale, step.estimate.difference)} ({low} to {high})"


def _tested(found: SteppedSeries) -> str:
    """Return what the intervals and words of the shape rest on."""
    fewest = min(one.runs for one in found.outcomes)
    seeds = f"{'at least ' if any(one.runs > fewest for one in found.outcomes) else ''}{plural(fewest, 'seed')}"
    told = f"{seeds} × {plural(found.outcomes[0].examples, 'example')}"
    if len(found.steps) > 1:
        told = f"95 % intervals that hold for all {len(found.steps) + 1} at once, Holm; {told}"
    else:
        told = f"95 % interval; {told}"
    own = "; run variances clearly differ, so each has its own" if found.pooled.differ else ""
    return f"{told}{', which is few' if fewest < FEW else ''}{own}"


def _saturation(found: SteppedSeries) -> list[str]:
    """Return from where on nothing more is gained: shown to be equivalent, not told from none, or still rising."""
    if len(found.steps) < 2:
        return []
    factor, last = found.trend.factor, len(found.steps)
    if found.margin is not None:
        margin = margin_text(found.metric, found.margin)
        if found.saturates is not None:
            start = found.value(found.saturates)
            return [f"From {factor} = {start} on, every larger value is equivalent to it within {margin}."]
        return [f"That it levels off within {margin} before {found.value(last)} is not shown."]
    clear = [at for at, step in enumerate(found.steps, 1) if step.p <= LEVEL and found.better(step)]
    if not clear:
        return []
    if clear[-1] == last:
        return [f"The step to {found.value(last)}, the last, is still one for the better: no levelling off is seen."]
    return [
        f"Beyond {factor} = {found.value(clear[-1])} no further gain can be told from none, which does not say that "
        "there is none: a margin (verdict.margin) would let the study show it."
    ]


def _doubling(found: SteppedSeries) -> list[str]:
    """Return what a doubling is worth in the first step and in the last."""
    known = [at for at, times in enumerate(found.doublings) if not isnan(times)]
    if not known:
        return []
    told = []
    for at in dict.fromkeys((known[0], known[-1])):
        gain, low, high = found.gain(at)
        bounds = f"{signed(found.scale, low)} to {signed(found.scale, high)}"
        told.append(
            f"{signed_difference(found.scale, gain)} ({bounds}) between {found.value(at)} and {found.value(at + 1)}"
        )
    return [f"A doubling of {found.trend.factor} is worth {' and '.join(told)}."]
