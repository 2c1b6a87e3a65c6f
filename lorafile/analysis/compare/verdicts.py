"""Is a difference real: every comparison of a study, judged as one family. The rules are in docs/statistics.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import isnan, nan

import numpy as np

from lorafile.analysis.common.scores import split_of
from lorafile.analysis.compare.confounders import UNPAIRED, Difference, differing
from lorafile.analysis.compare.outcomes import Crossed, compared_as, crossed, margin_of
from lorafile.analysis.compare.pairs import Pair, pairs
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.statistics.crossed import Estimate, contrast
from lorafile.statistics.deciding import Decision, decide, shares
from lorafile.statistics.planning import SampleSize, sample_size
from lorafile.statistics.probabilities import mcnemar

DECIDED = ("better", "worse", "equivalent", "non-inferior")


@dataclass(frozen=True)
class Verdict:
    """One comparison, judged.

    :ivar word: better, worse, equivalent, non-inferior, inconclusive; `refused` where something else differs as well,
        `none` where the figures allow no verdict; `why` says it
    :ivar estimate: of the difference, in the unit of `compared_as(metric)`; None where there is none
    :ivar margin: in the same unit; None where none is declared
    :ivar decision: the probabilities and intervals, adjusted for the family
    :ivar look: at which look at the study it was decided (0: the first); `alpha`: what that look may spend
    :ivar sample_size: how many seeds or examples would decide it, where it is open and has a margin
    :ivar differing: what else differs
    :ivar mcnemar: of two single runs with right and wrong answers: McNemar's probability, which describes these runs
    """

    pair: Pair
    metric: str
    split: str
    word: str
    why: str = ""
    estimate: Estimate | None = None
    margin: float | None = None
    decision: Decision | None = None
    look: int = 0
    alpha: float = nan
    sample_size: SampleSize | None = None
    differing: tuple[Difference, ...] = ()
    mcnemar: float = nan

    @property
    def open(self) -> bool:
        """Whether more seeds or examples could decide it."""
        return self.word == "inconclusive"


@dataclass(frozen=True)
class Family:
    """Every comparison that a study declares on its primary metric, and the size that its probabilities pay for."""

    metric: str
    split: str
    verdicts: tuple[Verdict, ...]

    def of(self, one: str, other: str) -> Verdict | None:
        """Return the verdict on two configurations, whichever is held against the other."""
        return self._by_pair.get(frozenset((one, other)))

    @cached_property
    def _by_pair(self) -> dict[frozenset[str], Verdict]:
        return {frozenset((found.pair.one, found.pair.other)): found for found in reversed(self.verdicts)}

    @property
    def judged(self) -> list[Verdict]:
        """The comparisons that were tested."""
        return [found for found in self.verdicts if found.decision is not None]


@lru_cache(maxsize=8)
def family(results: Results) -> Family:
    """Return the study's comparisons on its primary metric, judged together."""
    metric, found = results.primary, list[Pair]()
    for table in tables(results):
        if table.metric is None or compared_as(metric_label(table.metric)) == compared_as(metric):
            known = {frozenset((pair.one, pair.other)) for pair in found}
            found += [pair for pair in pairs(results, table) if frozenset((pair.one, pair.other)) not in known]
    split = split_of(results, metric)
    return Family(metric, split, judge(results, metric, split, found))


def tables(results: Results) -> list[AnalysisTable]:
    """Return the declared `compare` tables; one that compares along every sweep where the spec declares no analysis."""
    declared = [table for table in results.declared if table.kind == "compare"]
    return declared or ([] if results.declared else [AnalysisTable(kind="compare")])


def judge(results: Results, metric: str, split: str, found: Sequence[Pair]) -> tuple[Verdict, ...]:
    """Return a verdict on each pair, all of them one family.

    Each look at the study (its first seeds, then those of each stage) spends its share of alpha; what a look decides
    stands, and the others are looked at again with all seeds so far.
    """
    looks = results.looks or (tuple(results.seeds),)
    spent = shares(results.verdict.alpha, results.verdict.keep, len(looks))
    settled: dict[int, Verdict] = {}
    latest: list[Verdict] = []
    for look, alpha in enumerate(spent):
        seeds = tuple(seed for group in looks[: look + 1] for seed in group)
        latest = _look(results, metric, split, found, seeds, look, alpha)
        for at, verdict in enumerate(latest):
            if verdict.word in DECIDED:
                settled.setdefault(at, verdict)
    following = shares(results.verdict.alpha, results.verdict.keep, len(looks) + 1)[-1]
    size = sum(verdict.decision is not None for verdict in latest)
    return tuple(_with_sample_size(settled.get(at, verdict), following, size) for at, verdict in enumerate(latest))


def _look(
    results: Results, metric: str, split: str, found: Sequence[Pair], seeds: tuple[int, ...], look: int, alpha: float
) -> list[Verdict]:
    """Return the verdicts of one look."""
    data = crossed(results, metric, split, seeds)
    made = [replace(_begun(results, metric, split, pair, data), look=look, alpha=alpha) for pair in found]
    tested = [at for at, verdict in enumerate(made) if verdict.estimate is not None and not verdict.word]
    estimates = [made[at].estimate for at in tested]
    known = [estimate for estimate in estimates if estimate is not None]
    more = more_is_better(compared_as(metric))
    for at, decision in zip(tested, decide(known, [made[at].margin for at in tested], alpha, more), strict=True):
        made[at] = replace(made[at], decision=decision, word=decision.word)
    return made


def _begun(results: Results, metric: str, split: str, pair: Pair, data: Crossed) -> Verdict:
    """Return a verdict with its estimate; with its word and why where nothing can be tested."""
    what = tuple(differing(results, pair.one, pair.other, pair.factor, (*pair.waive, *results.verdict.waive)))
    verdict = Verdict(pair, metric, split, "", differing=what)
    unpaired = [row for row in what if row.setting in UNPAIRED]
    if pair.factor in UNPAIRED or unpaired:
        return replace(verdict, word="refused", why="they were not judged on the same examples")
    for name in (pair.one, pair.other):
        if name in data.why:
            return replace(verdict, word="none", why=f"{name} {data.why[name]}")
    estimate = contrast(data.outcomes[pair.one], data.outcomes[pair.other], data.variance)
    margin = margin_of(pair.margin or results.verdict.margin, metric, data.outcomes[pair.other].mean)
    verdict = replace(verdict, estimate=estimate, margin=margin)
    if confounds := [row.text() for row in what if row.kind == "confound"]:
        return replace(verdict, word="refused", why=f"{', '.join(confounds)} differs as well")
    if estimate.on_runs_only:
        why = "with one seed there is no verdict on configurations, only on these runs"
        return replace(verdict, word="none", why=why, mcnemar=_describe(data, pair))
    if isnan(estimate.error):
        return replace(verdict, word="none", why="nothing tells how far another seed would move them")
    return verdict


def _describe(data: Crossed, pair: Pair) -> float:
    """Return McNemar's probability for two single runs whose answers are right or wrong; NaN for any others."""
    one, other = data.outcomes[pair.one].values, data.outcomes[pair.other].values
    binary = all(bool(np.isin(values, (0, 1)).all()) for values in (one, other))
    return mcnemar(one[0], other[0]) if binary and len(one) == len(other) == 1 else nan


def _with_sample_size(verdict: Verdict, alpha: float, size: int) -> Verdict:
    """Return an open verdict with what would decide it at the next look."""
    if not verdict.open or verdict.estimate is None or verdict.margin is None or not alpha:
        return verdict
    return replace(verdict, sample_size=sample_size(verdict.estimate, verdict.margin, alpha / max(size, 1)))
