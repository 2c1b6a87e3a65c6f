"""What has to hold for a claim, piece by piece: a verdict on two configurations, bounds on a figure, limits of cost."""

from dataclasses import dataclass
from math import exp, isnan
from typing import Literal

from scipy import special

from lorafile.analysis.claims.basis import configurations, limits, metric_of
from lorafile.analysis.common.cost_measures import COSTS, cost_of
from lorafile.analysis.common.format import amount, is_share, number, score
from lorafile.analysis.common.scores import averages, methods, scores, split_of
from lorafile.analysis.common.wording import on
from lorafile.analysis.compare.compare import judged
from lorafile.analysis.compare.margins import margin_of, margin_text
from lorafile.analysis.compare.outcomes import compared_as, crossed
from lorafile.analysis.compare.pairs import Pair, pairs
from lorafile.analysis.compare.verdict_text import sentence
from lorafile.analysis.compare.verdicts import Verdict, family, judge
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import ClaimTable, Margin
from lorafile.specs.values import in_base_units
from lorafile.statistics.crossed import combination
from lorafile.statistics.probabilities import interval, t_quantile

Word = Literal["supported", "refuted", "undecided"]
_LEVEL = 0.05  # a bound holds where the nearer end of the 95 % interval keeps it
_OPPOSITE = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Part:
    """One thing that has to hold, whether it does, and the figures that say so."""

    word: Word
    text: str


def parts(results: Results, claim: ClaimTable) -> list[Part]:
    """Return everything that has to hold for a claim, checked."""
    found = []
    if claim.is_ is not None or claim.at_most_below is not None:
        found.append(_compared(results, claim))
    for bound, at_least in ((claim.at_least, True), (claim.at_most, False)):
        if bound is not None:
            found.append(_bounded(results, claim, bound, at_least))
    return found + [_limited(results, claim, name) for name in limits(claim)]


def _compared(results: Results, claim: ClaimTable) -> Part:
    """Return whether a comparison has the verdict that a claim needs."""
    one, other = configurations(results, claim)
    metric, wanted = metric_of(results, claim), claim.is_ or "non-inferior"
    verdict, alone = _verdict(results, claim, one, other, metric)
    if verdict is None:
        return Part("undecided", f"the analysis {claim.analysis} does not compare {one} with {other}")
    text = sentence(results, verdict).removesuffix(".") + (
        " (its own test: this comparison is not in the study's family)" if alone else ""
    )
    if verdict.decision is None:
        return Part("undecided", text)
    own = claim.at_most_below or claim.margin
    margin = verdict.margin if own is None else _margin(results, own, metric, verdict, other)
    if margin is None and wanted in ("equivalent", "non-inferior"):
        return Part("undecided", f"{text}; there is no margin for it")
    found = _judged(results, verdict, one, wanted, margin or 0.0)
    if own is not None and margin is not None and margin != verdict.margin:
        text += f"; held against a margin of {margin_text(metric, margin)}"
    return Part(found, text)


def _verdict(results: Results, claim: ClaimTable, one: str, other: str, metric: str) -> tuple[Verdict | None, bool]:
    """Return the verdict that a claim rests on, and whether it is a test of its own, outside every family.

    The study's family is preferred: its verdicts hold together. A pair that it does not have is judged alone.
    """
    if claim.analysis is not None:
        table = next(table for table in results.declared if table.name == claim.analysis)
        compared = judged(results, metric, pairs(results, table))
        return next((found for found in compared if {found.pair.one, found.pair.other} == {one, other}), None), False
    if compared_as(metric) == compared_as(results.primary) and (found := family(results).of(one, other)):
        return found, False
    margin = claim.at_most_below or claim.margin
    return judge(results, metric, split_of(results, metric), [Pair(one, other, "", margin)])[0], True


def _margin(results: Results, margin: Margin, metric: str, verdict: Verdict, other: str) -> float | None:
    return margin_of(margin, metric, crossed(results, metric, verdict.split).outcomes[other].mean)


def _judged(results: Results, verdict: Verdict, one: str, wanted: str, margin: float) -> Word:
    """Return whether a verdict is, implies or excludes the one that a claim needs.

    Its word decides where that was said of the same margin or a smaller one. For another margin the interval that holds
    for the whole family decides: it is wider than a test at that margin needs, and never claims too much.
    """
    assert verdict.decision is not None  # noqa: S101
    turned = verdict.pair.one != one
    word = _OPPOSITE.get(verdict.word, verdict.word) if turned else verdict.word
    low, high = verdict.decision.simultaneous
    if turned != (not results.better_is_more(compared_as(verdict.metric))):
        low, high = -high, -low  # now the gain of `one`, whichever way the metric goes
    same = word == "equivalent" and verdict.margin is not None and verdict.margin <= margin
    if wanted == "equivalent":
        holds, fails = same or (-margin < low and high < margin), low > margin or high < -margin
    elif wanted == "non-inferior":
        kept = word == "non-inferior" and not turned and verdict.margin is not None and verdict.margin <= margin
        holds, fails = same or kept or word == "better" or low > -margin, high < -margin
    else:
        holds, fails = word == wanted, word == "equivalent" or word == _OPPOSITE[wanted]
    return "supported" if holds else "refuted" if fails else "undecided"


def _bounded(results: Results, claim: ClaimTable, bound: float, at_least: bool) -> Part:
    """Return whether a configuration's figure keeps a bound, other seeds and other examples considered."""
    name, metric = configurations(results, claim)[0], metric_of(results, claim)
    split = split_of(results, metric)
    where = f"{name} in {on(metric, split)}"
    ends = figure_interval(results, name, metric, split)
    if isinstance(ends, str):
        return Part("undecided", f"{where}: {ends}")
    low, high = ends
    mean = scores(results, f"{split}.{metric}")[name].mean
    figures = f"{score(metric, mean)}, 95 % interval {score(metric, low)} to {score(metric, high)}"
    text = f"{where}: {figures}, claimed {'at least' if at_least else 'at most'} {score(metric, bound)}"
    holds, fails = (low >= bound, high < bound) if at_least else (high <= bound, low > bound)
    return Part("supported" if holds else "refuted" if fails else "undecided", text)


def figure_interval(results: Results, name: str, metric: str, split: str) -> tuple[float, float] | str:
    """Return the 95 % interval of a configuration's figure over other seeds and other examples, or why there is none.

    Where every outcome is right or wrong it is never narrower than Clopper and Pearson's (1934) for the examples alone:
    answers that are all right have no variance, and still say little of the next hundred.
    """
    data = crossed(results, metric, split)
    if name in data.why:
        return f"it {data.why[name]}"
    outcomes = data.outcomes[name]
    estimate = combination([outcomes], [1.0], data.variance)
    if estimate.on_runs_only or isnan(estimate.error):
        return "with one seed nothing tells how far another one would move it"
    low, high = interval(estimate, _LEVEL)
    if outcomes.binary:
        least, most = _exact(outcomes.mean * outcomes.examples, outcomes.examples)
        low, high = min(low, least), max(high, most)
    elif estimate.error == 0:
        return "its examples do not differ, so nothing tells how far others would move it"
    if is_share(data.scale):
        low, high = max(low, 0.0), min(high, 1.0)
    return (exp(low), exp(high)) if metric == "perplexity" else (low, high)


def _exact(right: float, n: int) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson for a share."""
    low = float(special.betaincinv(right, n - right + 1, _LEVEL / 2)) if right > 0 else 0.0
    high = float(special.betaincinv(right + 1, n - right, 1 - _LEVEL / 2)) if right < n else 1.0
    return low, high


def _limited(results: Results, claim: ClaimTable, limit: str) -> Part:
    """Return whether a configuration keeps a limit of cost."""
    name, wanted = configurations(results, claim)[0], getattr(claim, limit)
    if limit == "trainable_share":
        return _share(results, name, wanted)
    cost, most = COSTS[limit], in_base_units(wanted)[1]
    if name not in (found := cost_of(results, limit)):
        return Part("undecided", f"{name}: its {cost.title} was not measured")
    value = found[name]
    text = f"{name}: {cost.title} {amount(cost.kind, value)}, claimed at most {amount(cost.kind, most)}"
    low, high, told = value, value, ""
    runs = scores(results, cost.column)[name] if cost.source == "runs" else None
    if cost.kind == "seconds" and runs is not None and runs.n > 1 and runs.spread > 0:
        half = t_quantile(1 - _LEVEL / 2, runs.n - 1) * runs.spread / runs.n**0.5
        low, high = value - half, value + half
        told = f" (95 % interval {amount(cost.kind, low)} to {amount(cost.kind, high)})"
    elif cost.kind == "seconds":
        told = " (measured once)"
    return Part("supported" if high <= most else "refuted" if low > most else "undecided", text + told)


def _share(results: Results, name: str, most: float) -> Part:
    trained, total = (averages(results, f"{which}_parameters").get(name) for which in ("trainable", "total"))
    untuned = methods(results)[name] == "none"
    if not untuned and (trained is None or not total):
        return Part("undecided", f"{name}: its trainable parameters are not known yet")
    share = 0.0 if untuned else float(trained or 0) / float(total or 1)
    percent = "\u202f%"
    shown, claimed = f"{number(100 * share)}{percent}", f"{number(100 * most)}{percent}"
    text = f"{name}: {shown} of the parameters are trainable, claimed at most {claimed}"
    return Part("supported" if share <= most else "refuted", text)
