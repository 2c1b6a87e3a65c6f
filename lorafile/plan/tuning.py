"""Which candidate a tuned configuration is compared at: chosen on validation, from the mean over all seeds."""

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lorafile.engine.metrics.registry import METRICS
from lorafile.errors import LoraError
from lorafile.graph.graph import Graph, Replicate
from lorafile.plan.plan import WORK, Plan
from lorafile.plan.tuning_status import Edge, Standing
from lorafile.specs import Configuration
from lorafile.specs.sweeps.tuned import Axis, beyond


@dataclass(frozen=True)
class Trial:
    """A candidate over all seeds.

    :ivar figures: of the primary metric on validation, one for each run that has one
    :ivar lost: outcome -> how many runs ended so for good
    :ivar waiting: how many runs are still to come
    """

    candidate: Configuration
    figures: tuple[float, ...]
    lost: dict[str, int]
    waiting: int

    @property
    def whole(self) -> bool:
        """Whether every run has a figure."""
        return not self.lost and not self.waiting


def check_chosen(plan: Plan, name: str) -> None:
    """Refuse a tuned configuration of which it is not known yet which candidate it is.

    :raises LoraError: naming what is missing
    """
    waiting = next((one for one in plan.tuning if one.configuration == name and not one.chosen), None)
    if waiting is not None:
        file = plan.graph.spec.file
        raise LoraError(f"{name} is no single run: {waiting.why_open}. Go on with: lora apply {file}")


def standing(configuration: Configuration, plan: Plan) -> Standing:
    """Return how the choice of a tuned configuration stands.

    A candidate that lost a run for good loses to any that is whole. Where none is whole, the fewest lost runs win, then
    the mean of the rest; of equal means that of an inner value, whose neighbours were tried.

    :param plan: of a graph in which nothing is chosen yet
    """
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    graph = plan.graph
    pending = {change.key for change in plan.changes if change.action in WORK}
    trials = [_trial(one, plan, pending) for one in about.candidates]
    found = Standing(
        configuration.name,
        about.settings,
        {axis.setting: axis.tried for axis in about.axes},
        len(trials),
        sum(trial.waiting for trial in trials),
        sum(len(candidate_replicates(graph, one)) for one in about.candidates),
        lost={trial.candidate.name: trial.lost for trial in trials if trial.lost},
        whole=sum(trial.whole for trial in trials),
        places=tuple(axis.where for axis in about.axes),
    )
    if found.waiting:
        return found
    sign = 1 if more_is_better(graph) else -1

    def rank(trial: Trial) -> tuple[int, float, bool]:
        mean = sign * fmean(trial.figures) if trial.figures else -math.inf
        return -sum(trial.lost.values()), mean, not _edges(about.axes, about.values(trial.candidate))

    best = max(trials, key=rank)
    values = about.values(best.candidate)
    return replace(
        found,
        chosen=best.candidate.name,
        values=values,
        mean=fmean(best.figures) if best.figures else None,
        metric=graph.spec.primary,
        edges=_edges(about.axes, values) if best.whole else (),
    )


def more_is_better(graph: Graph) -> bool:
    """Return whether more of the metric that a study chooses by is better."""
    name = graph.spec.primary
    own = graph.own.get(name)
    return own.more_is_better if own is not None else METRICS[name].more_is_better


def _edges(axes: tuple[Axis, ...], values: dict[str, Any]) -> tuple[Edge, ...]:
    """Return which values lie at an end of the numbers that were tried."""
    found = []
    for axis in (axis for axis in axes if axis.numeric):
        value = values[axis.setting]
        for highest, end in ((False, axis.tried[0]), (True, axis.tried[-1])):
            if value == end:
                found.append(
                    Edge(axis.setting, highest, value, beyond(axis, highest), axis.where, axis.added_beyond(highest))
                )
    return tuple(found)


def _trial(candidate: Configuration, plan: Plan, pending: set[str]) -> Trial:
    figures: list[float] = []
    lost: dict[str, int] = {}
    waiting = 0
    for replicate in candidate_replicates(plan.graph, candidate):
        figure = validation_figure(replicate, plan)
        if _chain(plan.graph, _score(replicate, plan.graph.spec.primary)) & pending:
            waiting += 1
        elif figure is not None and math.isfinite(figure):
            figures.append(figure)
        else:
            trained = plan.results.get(replicate.train or "")
            diverged = figure is not None or (trained is not None and trained.outcome == "diverged")
            outcome = "diverged" if diverged else "out-of-memory"
            lost[outcome] = lost.get(outcome, 0) + 1
    return Trial(candidate, tuple(figures), lost, waiting)


def candidate_replicates(graph: Graph, candidate: Configuration) -> list[Replicate]:
    """Return a candidate's replicates: under the study's own seeds, those of a stage being the winner's alone."""
    seeds = graph.spec.tables.study.seeds
    return [replicate for replicate in graph.replicates[candidate.name] if replicate.seed in seeds]


def validation_figure(replicate: Replicate, plan: Plan) -> float | None:
    """Return a run's figure of the primary metric on validation; None where it has none."""
    primary = plan.graph.spec.primary
    scored = plan.results.get(_score(replicate, primary))
    if scored is None or scored.outcome != "done":
        return None
    return float(scored.figures["figure" if ("validation", primary) in replicate.own else primary])


def _score(replicate: Replicate, primary: str) -> str:
    """Return the key of the node that gives the figure which is chosen by."""
    return replicate.own.get(("validation", primary)) or replicate.score["validation"]


def _chain(graph: Graph, key: str) -> set[str]:
    """Return a node's key, and those of everything that it reads, directly or not."""
    found = {key}
    for other in graph.nodes[key].inputs.values():
        found |= _chain(graph, other)
    return found
