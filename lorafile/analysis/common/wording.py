"""Sentences about scores that claim no more than the figures carry: a difference beside the spread over seeds."""

from math import isnan, nan

from lorafile.analysis.common.format import difference, metric_name, score
from lorafile.analysis.common.scores import Score
from lorafile.results.results import Results
from lorafile.units import plural


def spread_of(*found: Score) -> float:
    """Return the largest spread over seeds among scores, NaN where none has two seeds.

    The largest, not a pooled one: with three seeds each a spread is itself uncertain, and this is a description.
    """
    return max((one.spread for one in found if not isnan(one.spread)), default=nan)


def above(metric: str, name: str, one: Score, other_name: str, other: Score) -> str:
    """Return how far one score lies above or below another, beside the spread over seeds; never a verdict."""
    gap = one.mean - other.mean
    figures = f"({score(metric, one.mean)} against {score(metric, other.mean)})"
    if gap == 0:
        text = f"{name} and {other_name} have the same mean {figures}"
    else:
        text = f"{name} is {'above' if gap > 0 else 'below'} {other_name} by {difference(metric, gap)} {figures}"
    return f"{text}; {held_against(metric, gap, one, other)}."


def held_against(metric: str, gap: float, one: Score, other: Score) -> str:
    """Return how a gap between two scores compares with the larger of their spreads over seeds."""
    spread = spread_of(one, other)
    if isnan(spread):
        return "with one seed there is no spread over seeds to hold this against"
    seeds = _seeds(one, other)
    verb = "exceeds" if abs(gap) > spread else "does not exceed"
    return f"the spread over seeds is {difference(metric, spread)} ({seeds}), which the difference {verb}"


def _seeds(one: Score, other: Score) -> str:
    if one.n == other.n:
        return plural(one.n, "seed")
    if min(one.n, other.n) == 1:
        return f"{plural(max(one.n, other.n), 'seed')}; the other has one run"
    return f"{one.n} and {other.n} seeds"


def measured(metric: str, found: Score) -> str:
    """Return `83.2 % ± 1.1 points over 3 seeds`, with what was lost."""
    text = score(metric, found.mean)
    if not isnan(found.spread):
        text += f" ± {difference(metric, found.spread)} over {plural(found.n, 'seed')}"
    elif found.wanted > 1:
        text += f" from {plural(found.n, 'seed')} of {found.wanted}"
    return f"{text} ({found.lost})" if found.lost else text


def direction(results: Results, metric: str) -> str:
    """Return `higher is better` or `lower is better`."""
    return "higher is better" if results.better_is_more(metric) else "lower is better"


def on(metric: str, split: str) -> str:
    """Return `exact match on test`."""
    return f"{metric_name(metric)} on {split}"


def without_figure(found: dict[str, Score]) -> list[str]:
    """Return the configurations that have no figure, with the reason where one is known."""
    return [f"{name} ({one.lost})" if one.lost else name for name, one in found.items() if not one.known]
