"""The step of a plan that settles what is tuned: candidates first, more where the best is at an edge, then a choice.

A candidate is chosen on validation, by its mean over all seeds.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from lorafile.engine.metrics.registry import more_is_better
from lorafile.errors import LoraError
from lorafile.graph.build import build, build_candidates, nodes_after_choice
from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.metrics import metric_names
from lorafile.plan.decide import decide, new_plan
from lorafile.plan.plan import WORK, Action, Plan
from lorafile.plan.tuning_status import Edge, TuningStatus, shown_value
from lorafile.specs import Configuration, Spec
from lorafile.specs.configurations import Axis
from lorafile.specs.positions import Path
from lorafile.specs.sweeps.tuning import MAX_ADDED, next_value, with_candidates, with_choice
from lorafile.state import State


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
    waiting = next((status for status in plan.tuning if status.configuration == name and not status.chosen), None)
    if waiting is not None:
        file = plan.graph.spec.file
        raise LoraError(f"{name} is not a single run yet: {waiting.why_open}. Continue with: lora apply {file}")


def settle_tuning(plan: Plan, state: State) -> Plan:
    """Return the plan with every choice made that state allows, and with the nodes that follow from it.

    The graph of the study is built once more where candidates were added or chosen, and otherwise never.
    """
    spec, options = plan.graph.spec, plan.options
    if not any(configuration.tuned for configuration in spec.configurations):
        return plan
    widening = _Widening()
    statuses = _statuses(plan)
    while wider := _widened(spec, statuses, widening):
        spec = wider
        statuses = _statuses(_decide_candidates(spec, plan, state))
    ready = _ready(spec, statuses)
    if ready:
        spec = spec.with_configurations(
            tuple(with_choice(c, statuses[c.name].chosen) if c.name in ready else c for c in spec.configurations)
        )
    if spec is not plan.graph.spec:
        graph = build(spec, plan.graph.lock, plan.graph.accepted)
        plan = decide(new_plan(graph, plan.warnings, options), state)
    later = _later(plan.graph) if len(ready) < len(statuses) else {}
    tuning = (
        status
        if name in ready
        else replace(status, chosen="", values={}, mean=None, edges=(), later=later.get(name, {}))
        for name, status in statuses.items()
    )
    return _explain(replace(plan, tuning=tuple(tuning)), widening)


def _decide_candidates(spec: Spec, plan: Plan, state: State) -> Plan:
    """Return the plan of the candidates alone; what the whole plan has decided stays decided."""
    trials = decide(new_plan(build_candidates(spec, plan.graph.lock, plan.graph.accepted), options=plan.options), state)
    decided = {change.key: change for change in plan.changes}
    changes = tuple(decided.get(change.key, change) for change in trials.changes)
    return replace(trials, changes=changes, results={**trials.results, **plan.results})


def _statuses(plan: Plan) -> dict[str, TuningStatus]:
    """Return how the choice of each tuned configuration stands, from a plan in which nothing is chosen yet."""
    pending = {change.key for change in plan.changes if change.action in WORK}
    waiting = plan.graph.descendants(pending) if pending else pending
    return {c.name: _status(c, plan, waiting) for c in plan.graph.spec.configurations if c.tuned}


def _status(configuration: Configuration, plan: Plan, waiting: set[str]) -> TuningStatus:
    """Return how the choice of a tuned configuration stands.

    A candidate that lost a run for good loses to any that is whole. Where none is whole, the fewest lost runs win, then
    the mean of the rest; of equal means that of an inner value, whose neighbours were tried.

    :param waiting: keys of what is to be done, and of everything that reads it
    """
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    graph = plan.graph
    trials = [_trial(candidate, plan, waiting) for candidate in about.candidates]
    status = TuningStatus(
        configuration.name,
        about.settings,
        {axis.setting: axis.tried for axis in about.axes},
        len(trials),
        sum(trial.waiting for trial in trials),
        sum(len(candidate_replicates(graph, candidate)) for candidate in about.candidates),
        lost={trial.candidate.name: trial.lost for trial in trials if trial.lost},
        whole=sum(trial.whole for trial in trials),
        places=tuple(axis.path for axis in about.axes),
    )
    if status.waiting:
        return status
    sign = 1 if more_is_better(metric_names(graph)[graph.spec.primary]) else -1

    def rank(trial: Trial) -> tuple[int, float, bool]:
        mean = sign * fmean(trial.figures) if trial.figures else -math.inf
        return -sum(trial.lost.values()), mean, not _edges(about.axes, about.values(trial.candidate))

    best = max(trials, key=rank)
    values = about.values(best.candidate)
    return replace(
        status,
        chosen=best.candidate.name,
        values=values,
        mean=fmean(best.figures) if best.figures else None,
        metric=graph.spec.primary,
        edges=_edges(about.axes, values) if best.whole else (),
    )


def _edges(axes: tuple[Axis, ...], values: dict[str, Any]) -> tuple[Edge, ...]:
    """Return which values lie at an end of the numbers that were tried."""
    edges = []
    for axis in (axis for axis in axes if axis.numeric):
        value = values[axis.setting]
        for highest, end in ((False, axis.tried[0]), (True, axis.tried[-1])):
            if value == end:
                edges.append(
                    Edge(axis.setting, highest, value, next_value(axis, highest), axis.path, axis.added_beyond(highest))
                )
    return tuple(edges)


def _trial(candidate: Configuration, plan: Plan, unfinished: set[str]) -> Trial:
    figures: list[float] = []
    lost: dict[str, int] = {}
    waiting = 0
    for replicate in candidate_replicates(plan.graph, candidate):
        figure = validation_figure(replicate, plan)
        if _score(replicate, plan.graph.spec.primary) in unfinished:
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


@dataclass
class _Widening:
    """What was added beyond the ends of candidates, and why: (place, value) -> sentence."""

    added: dict[Path, tuple[Any, ...]] = field(default_factory=dict)
    reasons: dict[tuple[Path, Any], str] = field(default_factory=dict)


def _widened(spec: Spec, statuses: dict[str, TuningStatus], widening: _Widening) -> Spec | None:
    """Return the spec with the next value at each end where it is asked for and some configuration is best there.

    All configurations that share candidates get the same new ones, once every one of them has its figures.
    """
    wider = False
    for axis, members in _sharing(spec):
        if not axis.extend or any(statuses[c.name].waiting for c in members):
            continue
        for above in (False, True):
            at = [
                f"{c.name} is {edge.words}"
                for c in members
                for edge in statuses[c.name].edges
                if edge.path == axis.path and edge.highest is above
            ]
            value = next_value(axis, above) if at and axis.added_beyond(above) < MAX_ADDED else None
            if value is not None:
                widening.added[axis.path] = (*widening.added.get(axis.path, ()), value)
                widening.reasons[axis.path, value] = f"{axis.name} {shown_value(value)} was added, since {at[0]}"
                wider = True
    if not wider:
        return None
    configurations = spec.configurations
    for place, added in widening.added.items():
        configurations = tuple(with_candidates(c, place, added) if c.tuned else c for c in configurations)
    return spec.with_configurations(configurations)


def _sharing(spec: Spec) -> list[tuple[Axis, list[Configuration]]]:
    """Return each tuned setting, by its place in the spec, with the configurations that it is tuned in."""
    axes: dict[Path, Axis] = {}
    members: dict[Path, list[Configuration]] = {}
    for configuration in spec.configurations:
        for axis in configuration.tuned.axes if configuration.tuned else ():
            axes.setdefault(axis.path, axis)
            members.setdefault(axis.path, []).append(configuration)
    return [(axis, members[place]) for place, axis in axes.items()]


def _ready(spec: Spec, statuses: dict[str, TuningStatus]) -> set[str]:
    """Return the configurations whose choice is final: no candidate of theirs is to come, and none will be added."""
    ready = {name for name, status in statuses.items() if status.chosen}
    shared = [{c.name for c in members} for axis, members in _sharing(spec) if axis.extend]
    while late := [names & ready for names in shared if names & ready and not names <= ready]:
        ready = ready.difference(*late)
    return ready


def _later(graph: Graph) -> dict[str, dict[str, int]]:
    """Return configuration -> kind -> nodes that a choice will add, counted for its first candidate."""
    guess = [with_choice(c, c.tuned.candidates[0].name) for c in graph.spec.configurations if c.tuned and c.open]
    counts: dict[str, Counter[str]] = {}
    for node in nodes_after_choice(graph, guess):
        counts.setdefault(node.configuration, Counter())[node.kind] += 1
    return {name: dict(kinds) for name, kinds in counts.items()}


def _explain(plan: Plan, widening: _Widening) -> Plan:
    """Say of each candidate that was added why it was."""
    reasons: dict[str, str] = {}
    for about in (c.tuned for c in plan.graph.spec.configurations if c.tuned):
        for axis in about.axes:
            for candidate in about.candidates:
                value = candidate.varied[axis.setting]
                if value in axis.added:
                    reasons[candidate.name] = widening.reasons[axis.path, value]
    changes = (
        change._replace(reason=reasons[change.configuration])
        if change.kind == "train" and change.action is Action.RUN and change.configuration in reasons
        else change
        for change in plan.changes
    )
    return replace(plan, changes=tuple(changes))
