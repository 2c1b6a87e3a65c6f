"""From what the verdicts leave open to a stage of further seeds that decides it, by the variances alone."""

from dataclasses import dataclass, replace
from itertools import count, islice

from lorafile.analysis.compare.verdicts import Family, Verdict
from lorafile.results.results import Results
from lorafile.specs import Spec
from lorafile.specs.sweeps.stages import is_deterministic
from lorafile.statistics.deciding import shares

_LARGEST = 2**31  # seeds are below it
_UNFINISHED = ("missing", "running", "interrupted")


@dataclass(frozen=True)
class OpenComparison:
    """A comparison that is not decided, and what would decide it at the next look.

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
    from lorafile.analysis.compare.verdicts import family

    looks, verdict = len(results.looks), results.verdict
    share = shares(verdict.alpha, verdict.keep, looks + 1)[-1]
    left = verdict.alpha * verdict.keep ** (looks + 1)
    found = family(results)
    made = Resolution(str(results.primary), found.split, looks, share, left, most, comparisons=len(found.judged))
    if why := _unfinished(results, spec) or _nothing_open(found):
        return replace(made, why=why)
    if not share:
        raise spec.error(("verdict", "keep"), "is 0: all of alpha was spent at the first look, and none is left")
    if all(one.margin is None for one in found.verdicts if one.open):
        raise spec.error(("verdict", "margin"), _no_margin(results, found))
    return _planned(made, [one for one in found.verdicts if one.open], spec)


def _unfinished(results: Results, spec: Spec) -> str:
    """Return why it is too early to plan: the last look is not complete."""
    outcomes = list(results.runs["outcome"]) if len(results.runs) else []
    missing = sum(outcome in _UNFINISHED for outcome in outcomes)
    if missing:
        have = "has" if missing == 1 else "have"
        return f"{missing} of {len(outcomes)} runs {have} no result yet. Apply first: a stage follows from all of them."
    if len(results.looks) <= len(spec.tables.stage):
        return f"stage {len(results.looks)} has runs that failed. Mend them first: a stage follows from all of them."
    return ""


def _nothing_open(found: Family) -> str:
    """Return why there is nothing to decide, or nothing where there is."""
    if any(one.open for one in found.verdicts):
        return ""
    if found.judged:
        several = f"each of the {len(found.judged)} comparisons"
        return f"{several if len(found.judged) > 1 else 'the one comparison'} has its verdict."
    if found.verdicts:
        return f"no comparison can be judged: {found.verdicts[0].why}."
    return "the study compares nothing."


def _no_margin(results: Results, found: Family) -> str:
    """Say that a margin is needed, and what can be told apart as it is."""
    from lorafile.analysis.common.format import difference
    from lorafile.analysis.compare.outcomes import compared_as
    from lorafile.statistics.planning import detectable

    metric, opened = compared_as(results.primary), [one for one in found.verdicts if one.open]
    sizes = [
        detectable(one.estimate.error, one.estimate.df, one.alpha / len(found.judged))
        for one in opened
        if one.estimate is not None
    ]
    begun = "is not set" if results.verdict.margin is None else f"is no margin for {metric}, which has no points"
    smallest = difference(metric, max(sizes))
    return (
        f"{begun}, and how many seeds decide a comparison follows from how small a difference does not matter. Write "
        f'margin = "1pt" (percentage points), "1%" of the baseline, or a number in the metric\'s unit. As it is, '
        f"{len(opened)} of {len(found.judged)} comparisons are open, and a difference of {smallest} is found with "
        "80 % power"
    )


def _planned(made: Resolution, opened: list[Verdict], spec: Spec) -> Resolution:
    """Return the stage: the largest need among what it can decide, for every configuration that this is about."""
    seeded = [one.name for one in spec.configurations if not is_deterministic(one, spec.tables)]
    needs: list[int | None] = [None] * len(opened)
    part, before = list(range(len(opened))), [-1]
    names: list[str] = []
    while part != before:  # whoever leaves takes degrees of freedom along, so that another one may have to leave
        before = part
        names = [name for name in seeded if any(name in _pair(opened[at]) for at in part)]
        for at in part:
            needs[at] = _need(opened[at], made, names)
        part = [at for at in part if 0 < (needs[at] or 0) <= made.most]
    return replace(
        made,
        undecided=tuple(_told(one, needs[at], at in part) for at, one in enumerate(opened)),
        seeds=_fresh(spec, max((needs[at] or 0 for at in part), default=0)),
        configurations=tuple(names if part else ()),
    )


def _pair(verdict: Verdict) -> tuple[str, str]:
    return verdict.pair.one, verdict.pair.other


def _need(verdict: Verdict, made: Resolution, names: list[str]) -> int | None:
    """Return how many further seeds decide a comparison, everybody named running under them."""
    from lorafile.statistics.planning import more_seeds

    if verdict.estimate is None or verdict.margin is None:
        return None
    others = len(set(names) - set(_pair(verdict)))
    return more_seeds(verdict.estimate, verdict.margin, made.alpha / made.comparisons, others)


def _told(verdict: Verdict, seeds: int | None, planned: bool) -> OpenComparison:
    examples = verdict.sample_size.examples if verdict.sample_size is not None else None
    have = verdict.estimate.n if verdict.estimate is not None else 0
    return OpenComparison(*_pair(verdict), verdict.margin, seeds, examples, have, planned)


def _fresh(spec: Spec, number: int) -> tuple[int, ...]:
    """Return so many seeds that the study has not: those after its largest one."""
    used = {*spec.tables.study.seeds, *(seed for stage in spec.tables.stage for seed in stage.seeds)}
    first = max(used) + 1 if max(used) + number < _LARGEST else 0
    return tuple(islice((seed for seed in count(first) if seed not in used), number))
