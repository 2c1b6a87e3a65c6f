"""The noise floor: what other seeds, other examples and the machine alone would change of a study's figures."""

from dataclasses import dataclass
from math import isnan, log, nan, sqrt
from statistics import fmean

from lorafile.analysis.common.scores import values
from lorafile.analysis.compare.outcomes import compared_as, crossed
from lorafile.analysis.compare.pairs import pairs
from lorafile.analysis.compare.verdicts import Verdict, family, judge
from lorafile.results.results import Results, cells, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.statistics.crossed import Outcomes, RunVariance, contrast
from lorafile.statistics.planning import detectable
from lorafile.statistics.probabilities import deviation_interval, half_width

LEVEL = 0.05


@dataclass(frozen=True)
class Repeats:
    """The same thing done again.

    :ivar spread: standard deviation between times, pooled over what was repeated; `df`: its degrees of freedom
    :ivar runs: how many repeats have a figure; `wanted`: how many were declared
    :ivar same: of those whose bytes are known on both sides, how many have the very same predictions; `known`: of these
    """

    spread: float
    df: int
    runs: int
    wanted: int
    same: int
    known: int


@dataclass(frozen=True)
class Floors:
    """How far figures of one metric move without any cause.

    :ivar variance: between the seeds of one configuration, of one run's figure
    :ivar of_examples: the part of it that is the examples': it would vanish with more of them
    :ivar one: standard error of a configuration's figure from examples alone; `paired`: of a difference
    :ivar error: standard error of a difference, from seeds and examples: the typical one of the study
    :ivar inside: below this no difference can be told from none (95 %); `found`: from this on one is found with 80 %
        power, at the study's share for each comparison
    :ivar effects: the study's comparisons, with their differences
    """

    metric: str
    split: str
    variance: RunVariance
    of_examples: float
    one: float
    paired: float
    error: float
    inside: float
    found: float
    seeds: tuple[int, ...]
    examples: int
    repeats: Repeats
    effects: list[Verdict]

    @property
    def spread(self) -> float:
        """Standard deviation between seeds."""
        return sqrt(self.variance.value) if self.variance.df else nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the standard deviation between seeds."""
        return deviation_interval(self.variance.value, self.variance.df, LEVEL)


def floors(results: Results, metric: str, split: str) -> Floors:
    """Return the noise floor of a metric on a split."""
    data = crossed(results, metric, split)
    drawn = [one for one in data.outcomes.values() if not one.exact]
    effects = _effects(results, metric, split)
    made = [one.estimate for one in effects if one.estimate is not None]
    # a study that compares nothing, such as a grid of rates, has a noise floor all the same
    made = made or [contrast(one, drawn[0], data.variance) for one in drawn[1:]]
    estimates = [one for one in made if not isnan(one.error) and not one.on_runs_only]
    error, df, alpha = nan, nan, nan
    if estimates:
        typical = sorted(estimates, key=lambda one: one.error)[len(estimates) // 2]
        error, df, alpha = typical.error, typical.df, results.verdict.alpha / max(len(effects), 1)
    return Floors(
        metric=metric,
        split=split,
        variance=data.variance,
        of_examples=_of_examples(drawn),
        one=_root([one.by_example.var(ddof=1) / one.examples for one in drawn]),
        paired=_root([one.examples for one in estimates]),
        error=error,
        inside=half_width(error, df, LEVEL),
        found=detectable(error, df, alpha) if estimates else nan,
        seeds=tuple(sorted({one.runs for one in drawn})),
        examples=drawn[0].examples if drawn else 0,
        repeats=_repeats(results, metric, split),
        effects=effects,
    )


def _root(variances: list[float]) -> float:
    """Return the root of the mean variance."""
    return sqrt(fmean(variances)) if variances else nan


def _of_examples(drawn: list[Outcomes]) -> float:
    """Return what the seed-by-example residual puts into one run's variance, pooled as the run variance is."""
    known = [one for one in drawn if one.df > 0]
    total = sum(one.df for one in known)
    return sum(one.df * one.residual / one.examples for one in known) / total if total else nan


def _effects(results: Results, metric: str, split: str) -> list[Verdict]:
    """Return the comparisons of the family; where a study declares none, those that it would make by default."""
    if compared_as(metric) == compared_as(results.primary) and family(results).judged:
        return family(results).judged
    wanted = pairs(results, AnalysisTable(kind="compare"))
    return [one for one in judge(results, metric, split, wanted) if one.decision is not None]


def _repeats(results: Results, metric: str, split: str) -> Repeats:
    """Return how far the same thing, done again, came out elsewhere."""
    table, name = results.repeats, f"{split}.{metric}"
    first = values(results, name)
    rows = rows_of(table, "configuration", "seed", "outcome", name)
    groups: dict[tuple[str, int], list[float]] = {}
    for label, seed, outcome, value in rows:
        if outcome == "done" and value is not None and (label, seed) in first:
            groups.setdefault((label, seed), [first[label, seed]]).append(value)
    scaled = [[log(value) if metric == "perplexity" else value for value in group] for group in groups.values()]
    df = sum(len(group) - 1 for group in scaled)
    squares = sum((value - fmean(group)) ** 2 for group in scaled for value in group)
    told = [same for same in cells(table, "same_predictions") if same is not None]
    return Repeats(sqrt(squares / df) if df else nan, df, df, len(table), sum(map(bool, told)), len(told))
