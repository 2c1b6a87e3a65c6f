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
from lorafile.statistics.crossed import Outcomes, contrast
from lorafile.statistics.planning import detectable
from lorafile.statistics.probabilities import deviation_interval, half_width
from lorafile.statistics.run_variance import RunVariance

LEVEL = 0.05


@dataclass(frozen=True)
class Repeats:
    """The same thing done again.

    :ivar spread: standard deviation between times, pooled over what was repeated
    :ivar runs: how many repeats have a figure, its degrees of freedom; `wanted`: how many were declared
    :ivar same: how many have the very same predictions, of the `compared` whose bytes are known on both sides
    """

    spread: float
    runs: int
    wanted: int
    same: int
    compared: int


@dataclass(frozen=True)
class Floors:
    """How far figures of one metric move without any cause.

    :ivar variance: between the seeds of one configuration, of one run's figure
    :ivar of_examples: the part of it that is the examples': it would vanish with more of them
    :ivar single: standard error of a configuration's figure from examples alone; `paired`: of a difference
    :ivar error: standard error of a difference, from seeds and examples: the typical one of the study
    :ivar inside: below this no difference is significant (95 %); `detectable`: from this on one is found with 80 %
        power, at the study's share for each comparison
    :ivar effects: the study's comparisons, with their differences
    :ivar clustered: (examples, clusters) where examples belong together; `intraclass`: how much alike these are
    :ivar packed: how many runs were trained in packs, and how many were trained
    """

    metric: str
    split: str
    variance: RunVariance
    of_examples: float
    single: float
    paired: float
    error: float
    inside: float
    detectable: float
    seeds: tuple[int, ...]
    examples: int
    repeats: Repeats
    effects: list[Verdict]
    unit: str = "example"
    intraclass: float = nan
    clustered: tuple[int, int] | None = None
    packed: tuple[int, int] = (0, 0)

    @property
    def scale(self) -> str:
        """The metric that it is measured in."""
        return compared_as(self.metric)

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
    drawn = [side for side in data.outcomes.values() if not side.exact]
    effects = _effects(results, metric, split)
    differences = [verdict.estimate for verdict in effects if verdict.estimate is not None]
    # a study that compares nothing, such as a grid of rates, has a noise floor all the same
    differences = differences or [contrast(side, drawn[0], data.variance) for side in drawn[1:]]
    estimates = [estimate for estimate in differences if not isnan(estimate.error) and not estimate.on_runs_only]
    error, df, alpha = nan, nan, results.verdict.alpha / max(len(effects), 1)
    if estimates:
        typical = sorted(estimates, key=lambda estimate: estimate.error)[len(estimates) // 2]
        error, df = typical.error, typical.df
    return Floors(
        metric=metric,
        split=split,
        variance=data.variance,
        of_examples=_of_examples(drawn),
        single=_root([side.by_example.var(ddof=1) / side.examples for side in drawn]),
        paired=_root([estimate.examples for estimate in estimates]),
        error=error,
        inside=half_width(error, df, LEVEL),
        detectable=detectable(error, df, alpha) if estimates else nan,
        seeds=tuple(sorted({side.runs for side in drawn})),
        examples=drawn[0].examples if drawn else 0,
        unit=drawn[0].unit if drawn else "example",
        repeats=_repeats(results, metric, split),
        effects=effects,
        intraclass=data.intraclass,
        clustered=data.clustered,
        packed=_packed(results),
    )


def _packed(results: Results) -> tuple[int, int]:
    rows = rows_of(results.runs, "configuration", "outcome", "packed")
    trained = [
        (count or 0) > 1 for name, ended, count in rows if ended == "done" and results.methods.get(name) != "none"
    ]
    return sum(trained), len(trained)


def _root(variances: list[float]) -> float:
    """Return the root of the mean variance."""
    return sqrt(fmean(variances)) if variances else nan


def _of_examples(drawn: list[Outcomes]) -> float:
    """Return what the seed-by-example residual puts into one run's variance, pooled as the run variance is."""
    total = sum(side.df for side in drawn)
    return sum(side.df * side.residual / side.examples for side in drawn) / total if total else nan


def _effects(results: Results, metric: str, split: str) -> list[Verdict]:
    """Return the comparisons of the family; where a study declares none, those that it would make by default."""
    if compared_as(metric) == compared_as(results.primary) and family(results).judged:
        return family(results).judged
    by_default = judge(results, metric, split, pairs(results, AnalysisTable(kind="compare")))
    return [verdict for verdict in by_default if verdict.decision is not None]


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
    compared = [bool(same) for same in cells(table, "same_predictions") if same is not None]
    return Repeats(sqrt(squares / df) if df else nan, df, len(table), sum(compared), len(compared))
