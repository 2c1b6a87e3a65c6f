"""A plan of a study that tunes: candidates first, more of them where the best is at an edge, then what was chosen."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from lorafile.graph.build import build
from lorafile.lock.lockfile import Lock
from lorafile.plan.plan import WORK, Action, Plan
from lorafile.plan.planner import make_plan
from lorafile.plan.targeting import WHOLE, Selection, narrowed
from lorafile.plan.tuning import standing
from lorafile.plan.tuning_status import Standing, shown
from lorafile.specs import Configuration, Spec
from lorafile.specs.positions import Path
from lorafile.specs.sweeps.tuned import MOST_ADDED, Axis, beyond, extended, settled
from lorafile.state import State

Standings = dict[str, Standing]


@dataclass
class _Widening:
    """What was added beyond the ends of candidates, and why: (place, value) -> sentence."""

    added: dict[Path, tuple[Any, ...]] = field(default_factory=dict)
    reasons: dict[tuple[Path, Any], str] = field(default_factory=dict)


def staged_plan(
    spec: Spec, lock: Lock, state: State, warnings: list[str] | None = None, selection: Selection = WHOLE
) -> Plan:
    """Return what is to be done as far as it is known: a choice that state allows is made, and its nodes are there."""
    plan = make_plan(build(spec, lock, state.acceptances()), state, warnings, selection)
    if any(configuration.tuned for configuration in spec.configurations):
        plan = _with_choices(plan, spec, state, selection)
    return narrowed(plan)


def _with_choices(plan: Plan, spec: Spec, state: State, selection: Selection) -> Plan:
    lock, accepted, warnings = plan.graph.lock, plan.graph.accepted, plan.warnings
    widening = _Widening()
    standings = _standings(plan)
    while wider := _widened(spec, standings, widening):
        spec = wider
        plan = make_plan(build(spec, lock, accepted), state, warnings, selection)
        standings = _standings(plan)
    ready = _ready(spec, standings)
    if ready:
        spec = spec.with_configurations(
            tuple(settled(c, standings[c.name].chosen) if c.name in ready else c for c in spec.configurations)
        )
        plan = make_plan(build(spec, lock, accepted), state, warnings, selection)
    later = _later(plan) if len(ready) < len(standings) else {}
    plan.tuning = [
        one if name in ready else replace(one, chosen="", values={}, mean=None, edges=(), later=later.get(name, {}))
        for name, one in standings.items()
    ]
    _explain(plan, widening)
    return plan


def following(spec: Spec, stages: list[Plan], state: State) -> Plan | None:
    """Return what an apply does next, when the stages before are done: what only the choices make known.

    What failed, or was left out of the approved plan, is not in it. None where nothing follows.
    """
    if not any(not one.chosen for one in stages[-1].tuning):
        return None
    selection = stages[0].selection.followed()
    plan = staged_plan(spec, stages[0].graph.lock, state, stages[0].warnings, selection)
    done = {change.key for stage in stages for change in stage.changes if change.action not in WORK}
    known = {key for stage in stages for key in stage.graph.nodes} - done
    plan.changes = [change for change in plan.changes if change.action not in WORK or change.key not in known]
    return plan if plan.work else None


def _standings(plan: Plan) -> Standings:
    return {c.name: standing(c, plan) for c in plan.graph.spec.configurations if c.tuned}


def _widened(spec: Spec, standings: Standings, widening: _Widening) -> Spec | None:
    """Return the spec with the next value at each end where it is asked for and some configuration is best there.

    All configurations that share candidates get the same new ones, once every one of them has its figures.
    """
    found = False
    for axis, members in _sharing(spec):
        if not axis.extend or any(standings[c.name].waiting for c in members):
            continue
        for above in (False, True):
            at = [
                f"{c.name} is {edge.words}"
                for c in members
                for edge in standings[c.name].edges
                if edge.where == axis.where and edge.highest is above
            ]
            value = beyond(axis, above) if at and axis.added_beyond(above) < MOST_ADDED else None
            if value is not None:
                widening.added[axis.where] = (*widening.added.get(axis.where, ()), value)
                widening.reasons[axis.where, value] = f"{axis.name} {shown(value)} was added, since {at[0]}"
                found = True
    if not found:
        return None
    configurations = spec.configurations
    for where, added in widening.added.items():
        configurations = tuple(extended(c, where, added) if c.tuned else c for c in configurations)
    return spec.with_configurations(configurations)


def _sharing(spec: Spec) -> list[tuple[Axis, list[Configuration]]]:
    """Return each tuned setting, by its place in the spec, with the configurations that it is tuned in."""
    axes: dict[Path, Axis] = {}
    members: dict[Path, list[Configuration]] = {}
    for configuration in spec.configurations:
        for axis in configuration.tuned.axes if configuration.tuned else ():
            axes.setdefault(axis.where, axis)
            members.setdefault(axis.where, []).append(configuration)
    return [(axis, members[where]) for where, axis in axes.items()]


def _ready(spec: Spec, standings: Standings) -> set[str]:
    """Return the configurations whose choice is final: no candidate of theirs is to come, and none will be added."""
    ready = {name for name, one in standings.items() if one.chosen}
    shared = [{c.name for c in members} for axis, members in _sharing(spec) if axis.extend]
    while late := [names & ready for names in shared if names & ready and not names <= ready]:
        ready = ready.difference(*late)
    return ready


def _later(plan: Plan) -> dict[str, dict[str, int]]:
    """Return configuration -> kind -> nodes that a choice will add, counted for its first candidate."""
    spec = plan.graph.spec
    guess = tuple(settled(c, c.tuned.candidates[0].name) if c.tuned and c.open else c for c in spec.configurations)
    nodes = build(spec.with_configurations(guess), plan.graph.lock, plan.graph.accepted).nodes
    found: dict[str, Counter[str]] = {}
    for key in nodes.keys() - plan.graph.nodes.keys():
        found.setdefault(nodes[key].configuration, Counter())[nodes[key].kind] += 1
    return {name: dict(counts) for name, counts in found.items()}


def _explain(plan: Plan, widening: _Widening) -> None:
    """Say of each candidate that was added why it was."""
    told: dict[str, str] = {}
    for configuration in plan.graph.spec.configurations:
        about = configuration.tuned
        for axis in about.axes if about else ():
            for candidate in about.candidates if about else ():
                value = candidate.varied[axis.setting]
                if value in axis.added:
                    told[candidate.name] = widening.reasons[axis.where, value]
    plan.changes = [
        change._replace(reason=told[change.configuration])
        if change.kind == "train" and change.action is Action.RUN and change.configuration in told
        else change
        for change in plan.changes
    ]
