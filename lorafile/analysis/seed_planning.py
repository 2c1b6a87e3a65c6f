"""From what the verdicts leave open to a stage of further seeds that decides it, by the variances alone."""

from dataclasses import dataclass, replace
from itertools import count, islice

from lorafile.analysis.common.error_rate import of_verdicts
from lorafile.analysis.common.format import difference
from lorafile.analysis.compare.verdicts import Family, Verdict, family
from lorafile.results.results import Results
from lorafile.specs import Spec
from lorafile.specs.sweeps.stages import is_deterministic
from lorafile.statistics.deciding import shares
from lorafile.statistics.planning import detectable, more_seeds

_LARGEST = 2**31  # seeds are below it
_UNFINISHED = ("missing", "running", "interrupted")


@dataclass(frozen=True)
class OpenComparison:
    """An undecided comparison, and what would decide it at the next look.

    :ivar margin: in the unit that the metric is compared in; None where none is declared
    :ivar seeds: how many further ones of both; None where no number would do
    :ivar examples: how many with the seeds that there are; None where no number would do
    :ivar have: how many examples there are; `planned`: whether the stage decides it
    """

    one: str
    other: str
    margin: float | None
    seeds: int | None
    examples: int | None
    have: int
    planned: bool


@dataclass(frozen=True)
class Resolution:
    """The stage that is to come, if any, and why.

    :ivar stage: its number, from 1; `alpha`: its share, `left`: what is kept for those after it
    :ivar seeds: empty where no stage would help; `configurations`: the names of those that run under them
    :ivar comparisons: how many the family has; `why`: why there is nothing to plan
    """

    metric: str
    split: str
    stage: int
    alpha: float
    left: float
    most: int
    undecided: tuple[OpenComparison, ...] = ()
    seeds: tuple[int, ...] = ()
    configurations: tuple[str, ...] = ()
    comparisons: int = 0
    why: str = ""


def resolution(results: Results, spec: Spec, most: int) -> Resolution:
    """Return the stage that decides what is open and can be decided with at most so many further seeds.

    :raises SpecError: when the spec has no margin, or keeps no alpha for a further look
    """
    looks, table = len(results.looks), results.verdict
    share = of_verdicts(results, shares(table.alpha, table.keep, looks + 1)[-1])
    left = of_verdicts(results, table.alpha * table.keep ** (looks + 1))
    compared = family(results)
    count = len(compared.judged)
    stage = Resolution(str(results.primary), compared.split, looks, share, left, most, comparisons=count)
    opened = [verdict for verdict in compared.verdicts if verdict.open]
    if why := _unfinished(results, spec) or ("" if opened else _nothing_open(compared)):
        return replace(stage, why=why)
    if not share:
        raise spec.error(("verdict", "keep"), "is 0: all of alpha was spent at the first look, and none is left")
    if all(verdict.margin is None for verdict in opened):
        raise spec.error(("verdict", "margin"), _no_margin(results, opened, count))
    return _planned(stage, opened, spec)


def _unfinished(results: Results, spec: Spec) -> str:
    """Return why it is too early to plan: the last look is not complete."""
    outcomes = list(results.runs["outcome"]) if len(results.runs) else []
    missing = sum(outcome in _UNFINISHED for outcome in outcomes)
    if missing:
        have = "has" if missing == 1 else "have"
        rule = "Run lora apply first: a stage depends on all of them."
        return f"{missing} of {len(outcomes)} runs {have} no result yet. {rule}"
    if len(results.looks) <= len(spec.tables.stage):
        return f"stage {len(results.looks)} has runs that failed. Fix them first: a stage depends on all of them."
    return ""


def _nothing_open(compared: Family) -> str:
    """Return why there is nothing to decide."""
    if count := len(compared.judged):
        return f"{f'each of the {count} comparisons' if count > 1 else 'the one comparison'} has its verdict."
    if compared.verdicts:
        return f"no comparison can be judged: {compared.verdicts[0].why}."
    return "the study compares nothing."


def _no_margin(results: Results, opened: list[Verdict], count: int) -> str:
    """Say that a margin is needed, and which differences are detectable without one.

    :param count: of comparisons that were tested
    """
    metric = opened[0].scale
    estimates = [(verdict.estimate, verdict.alpha / count) for verdict in opened if verdict.estimate is not None]
    smallest = max(detectable(estimate.error, estimate.df, alpha) for estimate, alpha in estimates)
    problem = (
        "is not set"
        if results.verdict.margin is None
        else f"is not a valid margin for {metric}, which is not measured in points"
    )
    return (
        f"{problem}, and the number of seeds that a comparison needs depends on which differences are negligible. Set "
        f'margin = "1pt" (percentage points), "1%" of the baseline, or a number in the metric\'s unit. Without it, '
        f"{len(opened)} of {count} comparisons are open, and a difference of {difference(metric, smallest)} is "
        "detected with 80 % power"
    )


def _planned(resolution: Resolution, opened: list[Verdict], spec: Spec) -> Resolution:
    """Return the stage: the largest need among what it can decide, for every configuration that this is about."""
    seeded = [one.name for one in spec.configurations if not is_deterministic(one, spec.tables)]
    needs: list[int | None] = [None] * len(opened)
    part, before = list(range(len(opened))), [-1]
    names: list[str] = []
    while part != before:  # what is left out takes degrees of freedom along, so that another one may have to go
        before = part
        names = [name for name in seeded if any(name in opened[at].pair.names for at in part)]
        for at in part:
            needs[at] = _need(opened[at], resolution, names)
        part = [at for at in part if 0 < (needs[at] or 0) <= resolution.most]
    return replace(
        resolution,
        undecided=tuple(_undecided(verdict, needs[at], at in part) for at, verdict in enumerate(opened)),
        seeds=_new_seeds(spec, max((needs[at] or 0 for at in part), default=0)),
        configurations=tuple(names if part else ()),
    )


def _need(verdict: Verdict, resolution: Resolution, names: list[str]) -> int | None:
    """Return how many further seeds decide a comparison, all the named configurations running under them."""
    if verdict.estimate is None or verdict.margin is None:
        return None
    others = len(set(names) - {*verdict.pair.names})
    return more_seeds(verdict.estimate, verdict.margin, resolution.alpha / resolution.comparisons, others)


def _undecided(verdict: Verdict, seeds: int | None, planned: bool) -> OpenComparison:
    examples = verdict.sample_size.examples if verdict.sample_size is not None else None
    have = verdict.estimate.n if verdict.estimate is not None else 0
    return OpenComparison(*verdict.pair.names, verdict.margin, seeds, examples, have, planned)


def _new_seeds(spec: Spec, number: int) -> tuple[int, ...]:
    """Return so many seeds that the study does not have yet: those after its largest one."""
    used = {*spec.tables.study.seeds, *(seed for stage in spec.tables.stage for seed in stage.seeds)}
    first = max(used) + 1 if max(used) + number < _LARGEST else 0
    return tuple(islice((seed for seed in count(first) if seed not in used), number))
