"""What a plan will be able to conclude, from its seeds, its test rows and a variance."""

from dataclasses import dataclass, replace
from math import isnan, nan

from lorafile.analysis.common.error_rate import of_verdicts
from lorafile.analysis.compare.outcomes import compared_as, margin_of
from lorafile.analysis.compare.verdicts import family
from lorafile.analysis.sensitivity.variances import VarianceEstimate, known_variance
from lorafile.plan.plan import Plan
from lorafile.results.gather import gather_scores
from lorafile.results.results import Results
from lorafile.specs.sweeps.stages import is_deterministic
from lorafile.state import State
from lorafile.statistics.deciding import shares
from lorafile.statistics.probabilities import deviation_interval
from lorafile.statistics.sensitivity import Design, Sensitivity, sensitivity

Range = tuple[float, float]
_UNKNOWN = (nan, nan)
_WIDTH = 1.96  # standard errors of a 95 % interval


@dataclass(frozen=True)
class StudySize:
    """How much a study measures.

    :ivar seeds: runs of each configuration that a seed changes, the two compared first
    :ivar rows: test rows that figures are means over; `clusters`: how many clusters these are, 0 where none belong
        together or their number is not known yet
    """

    seeds: tuple[int, ...]
    rows: int
    clusters: int = 0

    def with_seeds(self, seeds: int) -> "StudySize":
        """Return the size with other seeds of every configuration."""
        return replace(self, seeds=(seeds,) * len(self.seeds))

    def with_rows(self, rows: int) -> "StudySize":
        """Return the size with other test rows, in clusters as large."""
        return replace(
            self, rows=rows, clusters=max(round(self.clusters * rows / self.rows), 2) if self.clusters else 0
        )


@dataclass(frozen=True)
class PlannedSensitivity:
    """What a study will be able to conclude on its primary metric.

    :ivar metric: on whose scale differences are; `split`: the rows that it is judged on
    :ivar comparisons: how many the study's family has; `alpha`: what all of them may spend at this look
    :ivar variance: None where nothing is known of it, and then nothing is stated
    :ivar difference: the smallest difference that one comparison detects with 80 % power, NaN where none is detected;
        `difference_range`: the same at the ends of the 95 % interval of the run variance
    :ivar equivalence: the smallest margin within which equals are shown to be equivalent with 80 % power
    :ivar margin: the declared one, in the same unit; None where none is declared
    """

    metric: str
    split: str
    size: StudySize
    comparisons: int
    alpha: float
    variance: VarianceEstimate | None
    difference: float = nan
    difference_range: Range = _UNKNOWN
    equivalence: float = nan
    equivalence_range: Range = _UNKNOWN
    margin: float | None = None

    @property
    def level(self) -> float:
        """The level of one comparison, the first of Holm's."""
        return self.alpha / max(self.comparisons, 1)


def planned_sensitivity(plan: Plan, state: State) -> PlannedSensitivity | None:
    """Return what a study will be able to conclude once a plan is carried out; None where it compares nothing."""
    results = gather_scores(plan, state)
    size, split = study_size(plan)
    comparisons = sum(verdict.word != "refused" and not verdict.confounds for verdict in family(results).verdicts)
    if not comparisons or size is None:
        return None
    variance = known_variance(plan, state, results, split)
    scale, metric = compared_as(str(results.primary)), results.primary
    stated = PlannedSensitivity(
        metric=metric if scale == metric else scale,
        split=split,
        size=size,
        comparisons=comparisons,
        alpha=_alpha(plan, results),
        variance=variance,
    )
    if variance is None:
        return stated
    margin = margin_of(results.verdict.margin, metric, variance.mean)
    return with_variance(replace(stated, margin=None if margin is None or isnan(margin) else margin), variance)


def with_variance(planned: PlannedSensitivity, variance: VarianceEstimate) -> PlannedSensitivity:
    """Return it with what it detects, and what it would at the ends of the variance's interval."""
    at = sensitivity_of(planned, variance)
    planned = replace(planned, difference=at.difference, equivalence=at.margin)
    if not variance.df:
        return planned
    ends = [at, *(sensitivity_of(planned, end) for end in _ends(variance))]
    return replace(
        planned,
        difference_range=_range([end.difference for end in ends]),
        equivalence_range=_range([end.margin for end in ends]),
    )


def _range(values: list[float]) -> tuple[float, float]:
    """Return the smallest and the largest of some sizes, of which NaN means that none is enough."""
    known = [value for value in values if not isnan(value)]
    return min(known, default=nan), max(known) if len(known) == len(values) else nan


def _ends(variance: VarianceEstimate) -> list[VarianceEstimate]:
    """Return the variance at the ends of what it may be: the 95 % interval of that between runs, from chi-square.

    Of right and wrong answers the share is in an interval, too, and with it what examples bring. Which of its ends
    needs the larger difference depends on the variance between runs: all four corners are returned.
    """
    low, high = deviation_interval(variance.runs, variance.df)
    shares, worth = [variance.mean], variance.n if isnan(variance.independent) else variance.independent
    if variance.binary and worth:
        half = _WIDTH * (variance.mean * (1 - variance.mean) / worth) ** 0.5
        least, most = max(variance.mean - half, 0.5 / worth), min(variance.mean + half, 1 - 0.5 / worth)
        middle = min(max(least, 0.5), most)
        shares = [max(least, most, key=lambda share: abs(share - 0.5)), middle]
    return [_end(variance, deviation, share) for deviation in (low, high) for share in shares]


def _end(variance: VarianceEstimate, deviation: float, share: float) -> VarianceEstimate:
    """Return the variance with another deviation between runs, and answers that vary as those of another share do."""
    known = variance.binary and 0 < variance.mean < 1
    times = share * (1 - share) / variance.mean / (1 - variance.mean) if known else 1.0
    return replace(
        variance,
        runs=deviation**2,
        residual=min(variance.residual * times, deviation**2 * max(variance.n, 1)),
        examples=variance.examples * times,
        mean=share,
    )


def sensitivity_of(planned: PlannedSensitivity, variance: VarianceEstimate) -> Sensitivity:
    """Return what one comparison of a study detects; nothing with a single seed, on which there is no verdict."""
    if min(planned.size.seeds[:2]) < 2:
        return Sensitivity(nan, nan)
    return sensitivity(design(planned.size, variance), planned.level)


def design(size: StudySize, variance: VarianceEstimate) -> Design:
    """Return the design of a study of a size, whose figures vary as much as was found elsewhere.

    What a run's figure varies by has a part that more examples average out, the seed-by-example residual over their
    number, and a part that they do not.
    """
    n = size.clusters or (round(size.rows * variance.n / variance.rows) if variance.rows else size.rows)
    n = max(n, 2)
    of_examples = min(variance.residual / variance.n, variance.runs) if variance.n else 0.0
    runs = variance.runs - of_examples + of_examples * (variance.n / n)
    alone = len(size.seeds) == 1  # compared with a row that no seed changes
    return Design(
        seeds=(*size.seeds, 1) if alone else size.seeds,
        variances=(runs, 0.0) if alone else (runs,) * len(size.seeds),
        residuals=(of_examples * variance.n, 0.0 if alone else of_examples * variance.n),
        examples=0.0 if isnan(variance.examples) else variance.examples / n,
        n=n,
        independent=n if isnan(variance.independent) else variance.independent / variance.n * n,
        share=variance.mean if variance.binary else nan,
    )


def study_size(plan: Plan) -> tuple[StudySize | None, str]:
    """Return the size of a planned study, and the split that it is judged on; no size where no seed changes anything.

    Rows that are prepared are counted; of others those that the spec asks for.
    """
    graph, tables = plan.graph, plan.graph.spec.tables
    seeded = [c for c in graph.spec.configurations if not is_deterministic(c, tables)]
    splits = [graph.splits[c.name] for c in seeded]
    split = "test" if any("test" in keys for keys in splits) else "validation"
    name = next((c.name for c in seeded if split in graph.splits[c.name]), None)
    if name is None:
        return None, split
    key = graph.splits[name][split]
    rows = graph.nodes[key].settings["data"]["rows"]
    count = rows["stop"] - rows["start"]
    done, together = plan.results.get(key), plan.results.get(graph.clusters.get(name, {}).get(split, ""))
    if done is not None and done.figures.get("examples"):
        count = done.figures["examples"]
    clusters = together.figures["clusters"] if together is not None else 0
    seeds = [max(len(graph.replicates[c.name]), len(tables.study.seeds)) for c in seeded]
    return StudySize(tuple(seeds), int(count), int(clusters)), split


def _alpha(plan: Plan, results: Results) -> float:
    """Return what the verdicts of the look that a plan is for may spend."""
    table, stages = results.verdict, len(plan.graph.spec.tables.stage)
    return of_verdicts(results, shares(table.alpha, table.keep, stages + 1)[-1])
