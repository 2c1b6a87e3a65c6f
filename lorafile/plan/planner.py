"""A plan of a study, made by a list of steps, each of which takes a plan and returns another. Writes nothing."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from lorafile.graph.notices import REFERENCES, long_references
from lorafile.lock.lockfile import Lock
from lorafile.plan.decide import decide, new_plan
from lorafile.plan.equal_data import expect_equal_data
from lorafile.plan.equal_models import build_known
from lorafile.plan.forecast.devices import Device
from lorafile.plan.forecast.forecasts import forecasts, target_of
from lorafile.plan.forecast.time import SLOWER
from lorafile.plan.missing_objects import check_objects
from lorafile.plan.plan import EVERYTHING, WORK, MemoryLimit, Plan, PlanOptions
from lorafile.plan.targeting import all_matched, check_patterns, restrict_to_targets
from lorafile.plan.tuning import settle_tuning
from lorafile.specs import Spec
from lorafile.state import State
from lorafile.units import listing

_MANY = 1000  # configurations; the files of fewer are looked at before a process for that has begun


def make_plan(
    spec: Spec,
    lock: Lock,
    state: State,
    warnings: Iterable[str] = (),
    options: PlanOptions = EVERYTHING,
    gpu: str | None = None,
) -> Plan:
    """Return what an apply would do, with its forecasts.

    :param gpu: a size of memory such as `24GB`, or a GPU's name, to compare with instead of the device that is here
    :raises LoraError: when a pattern of the options fits nothing
    """
    many = len(spec.configurations) >= _MANY
    with state.looking_at_files() if many else nullcontext(lambda: None) as differing:
        plan = plan_work(spec, lock, state, warnings, options)
        check_patterns(options, plan.graph)
        plan = check_objects(plan, state, differing)
    return add_forecasts(plan, state, gpu)


def plan_work(
    spec: Spec, lock: Lock, state: State, warnings: Iterable[str] = (), options: PlanOptions = EVERYTHING
) -> Plan:
    """Return what is to be done as far as it is known: a choice that state allows is made, and its nodes are there."""
    plan = new_plan(build_known(spec, lock, state), warnings, options)
    plan = decide(plan, state)
    plan = name_long_references(plan)
    plan = settle_tuning(plan, state)
    plan = expect_equal_data(plan, state)
    return restrict_to_targets(plan)


def name_long_references(plan: Plan) -> Plan:
    """Return the plan with what finished `prepare` nodes tell of the lengths of references, or else the lock."""
    prepared = {key: done.figures for key, done in plan.results.items() if done.kind == "prepare"}
    others = [line for line in plan.warnings if not line.startswith(REFERENCES)]
    return replace(plan, warnings=(*others, *long_references(plan.graph, prepared)))


def add_forecasts(plan: Plan, state: State, gpu: str | None = None) -> Plan:
    """Return the plan with time, memory, disk and energy of each node that would run."""
    target = target_of(plan, gpu)
    plan = replace(plan, target=MemoryLimit(target.name, target.memory, target.overhead, target.gpu))
    plan = name_slow_dtypes(plan, target)
    return plan.with_forecasts(forecasts(plan, state, gpu))


def name_slow_dtypes(plan: Plan, target: Device) -> Plan:
    """Return the plan with a warning where a processor would compute in a type that it has no instructions for."""
    if not target.slow:
        return plan
    working = {change.configuration for change in plan.work}
    found: dict[str, list[str]] = {}
    for name in (name for name in plan.graph.spec.named if name in working):
        found.setdefault(plan.graph.sections[name]["model"]["dtype"], []).append(name)
    lines = [
        f"model.dtype: this processor has no instructions for {dtype}, and is over {SLOWER:.0f} times slower in it "
        f'than in float32. Set model.dtype = "float32", or use a GPU ({listing(names)}).'
        for dtype, names in found.items()
        if dtype in target.slow
    ]
    return replace(plan, warnings=tuple(dict.fromkeys([*plan.warnings, *lines])))


def still_missing(approved: Plan, state: State) -> Plan:
    """Return an approved plan without what another apply has finished since."""
    now = decide(new_plan(approved.graph, approved.warnings, approved.options), state)
    work = {change.key: change for change in approved.work}
    now = replace(now, tuning=approved.tuning, if_equal=approved.if_equal).with_work(set(work))
    return now.with_forecasts({key: change.forecast for key, change in work.items() if change.forecast})


def next_stage(spec: Spec, stages: Sequence[Plan], state: State) -> Plan | None:
    """Return what an apply does when the stages before are done: reruns first, then what a choice has made known.

    None where nothing follows.
    """
    plan = rerun_dependents(stages, state) or _after_choice(spec, stages, state)
    return None if plan is None else add_forecasts(plan, state)


def after_prepare(spec: Spec, approved: Plan, prepared: Plan, state: State) -> Plan:
    """Return what is left of an approved plan once its data are prepared: what turned out equal is reused.

    :param prepared: the plan of what was prepared first
    """
    plan = plan_work(spec, approved.graph.lock, state, approved.warnings, approved.options)
    addresses = {change.address for change in approved.work} - {change.address for change in prepared.work}
    return add_forecasts(plan.with_work({change.key for change in plan.work if change.address in addresses}), state)


def rerun_dependents(stages: Sequence[Plan], state: State) -> Plan | None:
    """Return the plan of what was computed from nodes that were finished before the apply and have other bytes now.

    Each node is tried once; one that the approved plan has left out stays as it is.
    """
    tried = {change.key for stage in stages for change in stage.work}
    if not any(change.key in stage.results for stage in stages for change in stage.work):
        return None
    approved, options = stages[0], stages[0].options
    plan = decide(new_plan(stages[-1].graph, approved.warnings, options.without_reruns()), state)
    plan = replace(plan, tuning=stages[-1].tuning)
    wanted = all_matched(plan.graph, options.target) if options.target else set(plan.graph.nodes)
    wanted -= all_matched(plan.graph, options.exclude)
    edges = plan.graph.edges
    read_again = {reader for key in tried if key in edges for reader in edges.successors(key)}
    follows = {change.key for change in plan.work if change.key in plan.results} & (wanted - tried) & read_again
    return plan.with_work(follows) if follows else None


def _after_choice(spec: Spec, stages: Sequence[Plan], state: State) -> Plan | None:
    """Return the plan of what only the choices make known.

    What failed, or was left out of the approved plan, is not in it.
    """
    if all(status.chosen for status in stages[-1].tuning):
        return None
    approved = stages[0]
    plan = plan_work(spec, approved.graph.lock, state, approved.warnings, approved.options.without_reruns())
    done = {change.key for stage in stages for change in stage.changes if change.action not in WORK}
    planned = {key for stage in stages for key in stage.graph.nodes} - done
    plan = plan.with_work({change.key for change in plan.work} - planned)
    return plan if plan.work else None
