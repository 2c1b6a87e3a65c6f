"""Is a difference real: every comparison of a study, judged as one family. The rules are in docs/statistics.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import isnan, nan

from lorafile.analysis.common.error_rate import looks, next_alpha, of_verdicts
from lorafile.analysis.common.factors import selected_on_validation, tuned
from lorafile.analysis.common.scores import split_of
from lorafile.analysis.compare.confounders import UNPAIRED, Difference, differing
from lorafile.analysis.compare.outcomes import Crossed, compared_as, crossed, margin_of, reach
from lorafile.analysis.compare.pairs import Pair, pairs
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.statistics.crossed import Estimate, contrast
from lorafile.statistics.deciding import Decision, decide
from lorafile.statistics.planning import SampleSize, sample_size
from lorafile.statistics.probabilities import mcnemar
from lorafile.units import listing

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
    :ivar following: what the next look may spend on this comparison alone
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
    following: float = 0.0
    differing: tuple[Difference, ...] = ()
    mcnemar: float = nan

    @property
    def scale(self) -> str:
        """The metric that its differences are of."""
        return compared_as(self.metric)

    @property
    def confounds(self) -> list[str]:
        """What differs apart from the factor, and is not waived, as `train.num_train_epochs 3 against 5`."""
        return [row.text() for row in self.differing if row.kind == "confound"]

    @property
    def open(self) -> bool:
        """Whether more seeds or examples could decide it."""
        return self.word == "inconclusive"

    @cached_property
    def sample_size(self) -> SampleSize | None:
        """How many seeds or examples would decide it at the next look, where it is open and has a margin."""
        if not self.open or self.estimate is None or self.margin is None or not self.following:
            return None
        return sample_size(self.estimate, self.margin, self.following)


@dataclass(frozen=True)
class Family:
    """Every comparison that a study declares on its primary metric, and the size that its probabilities pay for."""

    metric: str
    split: str
    verdicts: tuple[Verdict, ...]

    def of(self, one: str, other: str) -> Verdict | None:
        """Return the verdict on two configurations, whichever is the baseline."""
        return self._by_pair.get(frozenset((one, other)))

    @cached_property
    def _by_pair(self) -> dict[frozenset[str], Verdict]:
        return {verdict.pair.unordered: verdict for verdict in reversed(self.verdicts)}

    @property
    def judged(self) -> list[Verdict]:
        """The comparisons that were tested."""
        return [verdict for verdict in self.verdicts if verdict.decision is not None]


@lru_cache(maxsize=8)
def family(results: Results) -> Family:
    """Return the study's comparisons on its primary metric, judged together."""
    metric, unique = results.primary, dict[frozenset[str], Pair]()
    for table in tables(results):
        if table.metric is None or compared_as(metric_label(table.metric)) == compared_as(metric):
            for pair in pairs(results, table):
                unique.setdefault(pair.unordered, pair)
    split = split_of(results, metric)
    return Family(metric, split, judge(results, metric, split, list(unique.values())))


def tables(results: Results) -> list[AnalysisTable]:
    """Return the declared `compare` tables; one that compares along every sweep where the spec declares no analysis."""
    declared = [table for table in results.declared if table.kind == "compare"]
    return declared or ([] if results.declared else [AnalysisTable(kind="compare")])


def judge(results: Results, metric: str, split: str, compared: Sequence[Pair]) -> tuple[Verdict, ...]:
    """Return a verdict on each pair, all of them one family.

    Each look at the study (its first seeds, then those of each stage) spends its share of alpha; what a look decides
    stands, and the others are looked at again with all seeds so far.
    """
    begun = []
    for pair in compared:
        what = differing(results, *pair.names, pair.factor, (*pair.waive, *results.verdict.waive))
        begun.append(Verdict(pair, metric, split, "", differing=tuple(what)))
    scale = compared_as(metric)
    decided: dict[int, Verdict] = {}
    latest: list[Verdict] = []
    for look, (seeds, spent) in enumerate(looks(results)):
        alpha, data = of_verdicts(results, spent), crossed(results, metric, split, seeds)
        estimated = [_estimated(results, verdict, data) for verdict in begun]
        latest = [replace(verdict, look=look, alpha=alpha) for verdict in _tested(estimated, alpha, scale)]
        decided = {at: verdict for at, verdict in enumerate(latest) if verdict.word in DECIDED} | decided
    tested = sum(verdict.decision is not None for verdict in latest)
    following = of_verdicts(results, next_alpha(results)) / max(tested, 1)
    return tuple(replace(decided.get(at, verdict), following=following) for at, verdict in enumerate(latest))


def _estimated(results: Results, verdict: Verdict, data: Crossed) -> Verdict:
    """Return a verdict with its estimate; with its word and why where nothing can be tested."""
    pair, margin = verdict.pair, verdict.pair.margin or results.verdict.margin
    if pair.factor in UNPAIRED or any(row.setting in UNPAIRED for row in verdict.differing):
        return replace(verdict, word="refused", why="they were not evaluated on the same examples")
    for name in pair.names:
        if name in data.why:
            return replace(verdict, word="none", why=f"{name} {data.why[name]}")
    one, other = (data.outcomes[name] for name in pair.names)
    estimate = contrast(one, other, data.variance)
    verdict = replace(verdict, estimate=estimate, margin=margin_of(margin, verdict.metric, other.mean))
    stopped = selected_on_validation(results) if verdict.split != "test" else []
    optimistic = [name for name in pair.names if name == pair.chosen or name in stopped or tuned(results)[name]]
    if verdict.split != "test" and optimistic:
        why = f"{listing(optimistic)} was chosen on validation, and there is no test split to evaluate it on"
        return replace(verdict, word="none", why=why)
    if verdict.confounds:
        return replace(verdict, word="refused", why=f"{', '.join(verdict.confounds)} also differs")
    if estimate.on_runs_only:
        why = "with one seed there is no verdict on configurations, only on these runs"
        single = one.binary and other.binary and one.runs == other.runs == 1
        p = mcnemar(one.values[0], other.values[0]) if single else nan
        return replace(verdict, word="none", why=why, mcnemar=p)
    if isnan(estimate.error):
        return replace(verdict, word="none", why="their variation between seeds is unknown")
    return verdict


def _tested(verdicts: list[Verdict], alpha: float, scale: str) -> list[Verdict]:
    """Return verdicts of one look, those that have no word yet decided as one family."""
    tested, estimates = list(verdicts), dict[int, Estimate]()
    for at, verdict in enumerate(verdicts):
        if verdict.estimate is not None and not verdict.word:
            estimates[at] = verdict.estimate
    margins = [verdicts[at].margin for at in estimates]
    decisions = decide(list(estimates.values()), margins, alpha, more_is_better(scale), reach(scale))
    for at, decision in zip(estimates, decisions, strict=True):
        tested[at] = replace(tested[at], decision=decision, word=decision.word)
    return tested
