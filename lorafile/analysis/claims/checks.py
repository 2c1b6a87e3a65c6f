"""What has to hold for a claim, piece by piece: a verdict on two configurations, bounds on a figure, limits of cost."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from lorafile.analysis.common.format import amount, number, on, score
from lorafile.analysis.common.scores import COSTS, cost_of, lost, outcomes, profiles, scores, split_of, unmeasured
from lorafile.analysis.compare.compare import judged
from lorafile.analysis.compare.confounders import failed_checks
from lorafile.analysis.compare.outcomes import compared_as, crossed, figure_interval, margin_of, margin_text
from lorafile.analysis.compare.pairs import Pair, named_configuration, pairs
from lorafile.analysis.compare.verdict_text import sentence
from lorafile.analysis.compare.verdicts import Verdict, family, judge
from lorafile.analysis.recommend.budgets import SHARE, limited
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, cells, rows_of
from lorafile.specs.checks.analysis import LOST
from lorafile.specs.error_messages import show
from lorafile.specs.tables.analysis import ClaimTable, Limits
from lorafile.specs.tables.evaluate import metric_label
from lorafile.specs.values import in_base_units
from lorafile.statistics.probabilities import t_quantile
from lorafile.units import plural

Word = Literal["supported", "refuted", "undecided"]
_LEVEL = 0.05  # a bound holds where the nearer end of the 95 % interval keeps it
_OPPOSITE = {"better": "worse", "worse": "better"}
_LETTERS = 16  # of a digest: enough that none changes unseen, and short enough to be read in a diff


@dataclass(frozen=True)
class ClaimPart:
    """One thing that has to hold, whether it does, and the figures that say so."""

    word: Word
    text: str


def parts(results: Results, claim: ClaimTable) -> list[ClaimPart]:
    """Return everything that has to hold for a claim, checked."""
    checked = []
    if claim.is_ is not None or claim.at_most_below is not None:
        checked.append(_compared(results, claim))
    for bound, at_least in ((claim.at_least, True), (claim.at_most, False)):
        if bound is not None:
            checked.append(_bounded(results, claim, bound, at_least))
    if doubts := _doubts(results, claim):
        checked = [
            ClaimPart("undecided", "; ".join([*doubts, part.text])) if part.word == "supported" else part
            for part in checked
        ]
    return checked + [_limited(results, claim, name) for name in limits(claim)]


def _doubts(results: Results, claim: ClaimTable) -> list[str]:
    """Return why nothing on quality can be supported: runs that were lost, figures of the split that chose."""
    waived = {*claim.waive, *results.verdict.waive}
    ended = outcomes(results)
    doubts = []
    for name in configurations(results, claim):
        counts = Counter({how: ended[name][how] for how in LOST if name in ended and how not in waived})
        if text := lost(counts):
            doubts.append(
                f"of the {plural(ended[name].total(), 'run')} of {name}, {text}, and the rest are not a fair sample "
                f"(to accept the loss, set waive = [{', '.join(show(how) for how in LOST if counts[how])}])"
            )
    failed = {name: text for name, text in failed_checks(results).items() if name in configurations(results, claim)}
    if failed and "trainer_checks" not in waived:
        doubts.append(f'{"; ".join(failed.values())} (to accept this, set waive = ["trainer_checks"])')
    if split_of(results, metric_of(results, claim)) != "test":
        doubts.append("there is no test split, and configurations are chosen on validation")
    return doubts


def _compared(results: Results, claim: ClaimTable) -> ClaimPart:
    """Return whether a comparison has the verdict that a claim needs."""
    one, other = configurations(results, claim)
    metric, wanted = metric_of(results, claim), claim.is_ or "non-inferior"
    own = claim.at_most_below or claim.margin
    verdict, alone = _verdict(results, claim, Pair(one, other, "", own), metric)
    if verdict is None:
        return ClaimPart("undecided", f"the analysis {claim.analysis} does not compare {one} with {other}")
    text = sentence(results, verdict).removesuffix(".")
    text += " (tested separately: this comparison is not part of the study's family)" if alone else ""
    if verdict.decision is None:
        return ClaimPart("undecided", text)
    margin = verdict.margin
    if own is not None:
        margin = margin_of(own, metric, crossed(results, metric, verdict.split).outcomes[other].mean)
    if margin is None and wanted in ("equivalent", "non-inferior"):
        return ClaimPart("undecided", f"{text}; it has no margin")
    if own is not None and margin is not None and margin != verdict.margin:
        text += f"; judged with a margin of {margin_text(metric, margin)}"
    return ClaimPart(_judged(verdict, one, wanted, margin or 0.0), text)


def _verdict(results: Results, claim: ClaimTable, pair: Pair, metric: str) -> tuple[Verdict | None, bool]:
    """Return the verdict that a claim rests on, and whether it is a test of its own, outside every family.

    The study's family is preferred: its verdicts hold together. A pair that it does not have is judged alone.
    """
    if claim.analysis is not None:
        table = next(table for table in results.declared if table.name == claim.analysis)
        compared = judged(results, metric, pairs(results, table))
        return next((verdict for verdict in compared if verdict.pair.unordered == pair.unordered), None), False
    if compared_as(metric) == compared_as(results.primary) and (verdict := family(results).of(*pair.names)):
        return verdict, False
    return judge(results, metric, split_of(results, metric), [pair])[0], True


def _judged(verdict: Verdict, one: str, wanted: str, margin: float) -> Word:
    """Return whether a verdict is, implies or excludes the one that a claim needs.

    Its word decides where that was said of the same margin or a smaller one. For another margin the interval that holds
    for the whole family decides: it is wider than a test at that margin needs, and never claims too much.
    """
    assert verdict.decision is not None  # noqa: S101
    turned = verdict.pair.one != one
    word = _OPPOSITE.get(verdict.word, verdict.word) if turned else verdict.word
    low, high = verdict.decision.simultaneous
    if turned != (not more_is_better(verdict.scale)):
        low, high = -high, -low  # now the gain of `one`, whichever way the metric goes
    same = word == "equivalent" and verdict.margin is not None and verdict.margin <= margin
    if wanted == "equivalent":
        holds, fails = same or (-margin < low and high < margin), low > margin or high < -margin
    elif wanted == "non-inferior":
        kept = word == "non-inferior" and not turned and verdict.margin is not None and verdict.margin <= margin
        holds, fails = same or kept or word == "better" or low > -margin, high < -margin
    else:
        holds, fails = word == wanted, word == "equivalent" or word == _OPPOSITE[wanted]
    return _word(holds, fails)


def _word(holds: bool, fails: bool) -> Word:
    return "supported" if holds else "refuted" if fails else "undecided"


def _bounded(results: Results, claim: ClaimTable, bound: float, at_least: bool) -> ClaimPart:
    """Return whether a configuration's figure keeps a bound, other seeds and other examples considered."""
    name, metric = configurations(results, claim)[0], metric_of(results, claim)
    split = split_of(results, metric)
    about = f"{name} in {on(metric, split)}"
    ends = figure_interval(results, name, metric, split)
    if isinstance(ends, str):
        return ClaimPart("undecided", f"{about}: {ends}")
    low, high = ends
    mean = score(metric, scores(results, f"{split}.{metric}")[name].mean)
    claimed = f"{'at least' if at_least else 'at most'} {score(metric, bound)}"
    text = f"{about}: {mean}, 95 % interval {score(metric, low)} to {score(metric, high)}, claimed {claimed}"
    holds, fails = (low >= bound, high < bound) if at_least else (high <= bound, low > bound)
    return ClaimPart(_word(holds, fails), text)


def _limited(results: Results, claim: ClaimTable, limit: str) -> ClaimPart:
    """Return whether a configuration keeps a limit of cost."""
    name, wanted = configurations(results, claim)[0], getattr(claim, limit)
    if limit == SHARE:
        return _share(results, name, wanted)
    cost, most = COSTS[limit], in_base_units(wanted)[1]
    value = cost_of(results, limit).get(name)
    if value is None:
        return ClaimPart("undecided", f"{name}: its {cost.title} {unmeasured(results, limit, name)}")
    runs = scores(results, cost.column)[name] if cost.source == "runs" else None
    value = runs.mean if runs is not None else value  # the interval is that of the mean, also of times
    text = f"{name}: {cost.title} {amount(cost.kind, value)}, claimed at most {amount(cost.kind, most)}"
    low, high = value, value
    if cost.kind == "seconds" and runs is not None and runs.n > 1 and runs.spread > 0:
        half = t_quantile(1 - _LEVEL / 2, runs.n - 1) * runs.spread / runs.n**0.5
        low, high = value - half, value + half
        text += f" (95 % interval {amount(cost.kind, low)} to {amount(cost.kind, high)})"
    elif cost.kind == "seconds":
        text += " (measured once)"
    return ClaimPart(_word(high <= most, low > most), text)


def _share(results: Results, name: str, most: float) -> ClaimPart:
    share = limited(results, SHARE).get(name)
    if share is None:
        return ClaimPart("undecided", f"{name}: its number of trainable parameters is not known yet")
    shown, claimed = (f"{number(100 * value)}\u202f%" for value in (share, most))
    text = f"{name}: {shown} of the parameters are trainable, claimed at most {claimed}"
    return ClaimPart(_word(share <= most, share > most), text)


def metric_of(results: Results, claim: ClaimTable) -> str:
    """Return the metric that a claim is about, as results call it."""
    named = next((table.metric for table in results.declared if claim.analysis and table.name == claim.analysis), None)
    label = metric_label(named or claim.metric or results.primary)
    return next((metric for metric in results.metrics if metric == label), label)


def configurations(results: Results, claim: ClaimTable) -> list[str]:
    """Return the one or two configurations of a claim; a name may be an alias."""
    return [named_configuration(results, name) or name for name in (claim.one, claim.other) if name is not None]


def limits(claim: ClaimTable) -> dict[str, Any]:
    """Return the limits of cost that a claim sets."""
    return {name: getattr(claim, name) for name in Limits.model_fields if getattr(claim, name) is not None}


def of_quality(claim: ClaimTable) -> bool:
    """Return whether a claim says anything of a metric, and not only of cost."""
    return any(value is not None for value in (claim.is_, claim.at_most_below, claim.at_least, claim.at_most))


def rests_on(results: Results, claim: ClaimTable) -> dict[str, str]:
    """Return the runs and measurements of a claim -> digest of the figures that it is checked against."""
    metric, bounds = metric_of(results, claim), limits(claim)
    split, about = split_of(results, metric), configurations(results, claim)
    of_runs = [COSTS[name].column for name in bounds if name in COSTS and COSTS[name].source == "runs"]
    of_runs += ["trainable_parameters", "total_parameters"] if "trainable_share" in bounds else []
    columns = [*([f"{split}.{metric}"] if of_quality(claim) else []), *of_runs]
    digests: dict[str, str] = {}
    rows = rows_of(results.runs, "configuration", "seed", "outcome", "key", *columns) if columns else ()
    for name, seed, outcome, key, *figures in rows:
        if name in about and outcome != "missing":
            seed = None if seed is None else int(seed)
            each = _each(results, (name, seed, split), metric) if of_quality(claim) else None
            digests[name if seed is None else f"{name}/seed={seed}"] = _digest([key, outcome, figures, each])
    measured = [COSTS[name].column for name in bounds if name in COSTS and COSTS[name].source == "profiles"]
    table, _ = profiles(results)
    if measured and about[0] in cells(table, "configuration"):
        row = table[table["configuration"] == about[0]].iloc[:1]
        digests[f"{about[0]}:profile"] = _digest([cells(row, name)[0] for name in ("device", *measured)])
    return digests


def _each(results: Results, run: tuple[str, int | None, str], metric: str) -> list[float] | None:
    frame = results.outcomes.get(run)
    return None if frame is None or metric not in frame else [float(value) for value in frame[metric]]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:_LETTERS]
