"""An apply, stage by stage: the approved plan, then what its results or its choices have made known."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorafile.apply.applier import Applier
from lorafile.apply.budget import Budget
from lorafile.apply.collect import area_of, collect
from lorafile.apply.progress import Applied, Progress, Stop, stop_on_signals
from lorafile.apply.tracking.reporter import tracked
from lorafile.apply.workers import Placement, check_libraries, executors
from lorafile.errors import StalePlan
from lorafile.graph.graph import GraphNode
from lorafile.lock.lockfile import read_lock, resolve, write_lock
from lorafile.plan.equal_data import prepare_first
from lorafile.plan.plan import Plan
from lorafile.plan.planner import after_prepare, next_stage, still_missing
from lorafile.plan.programs import check_programs
from lorafile.specs import Spec
from lorafile.state import Attempt, WritableState
from lorafile.state.ledger import record_equal_data

if TYPE_CHECKING:
    from lorafile.state.remote.push import Sending
    from lorafile.state.remote.session import Session


def apply_plan(
    spec: Spec,
    approved: Plan,
    state: WritableState,
    placement: Placement,
    watchers: list[Progress] | None = None,
    budget: Budget | None = None,
    remote: "Session | None" = None,
) -> Applied:
    """Do what an approved plan says and has not been done since, and what follows from it; return what was done.

    :param spec: as it is written, in which nothing is chosen yet
    :param state: locked for as long as this takes
    :param remote: gets what is recorded while this works; what runs is stopped where its lock is lost
    :raises StalePlan: when model or data are no longer what the plan was made of
    """
    check_libraries(approved)
    check_programs(approved, cluster=placement.cluster is not None)
    _pin_lock(spec, approved)
    _collect_finished(placement, approved, state)
    record_equal_data(state)  # what an apply that was killed had prepared
    missing = still_missing(approved, state)
    first = prepare_first(missing)
    done, stages = Applied(), [first or missing]
    shutil.rmtree(state.directory / "staging", ignore_errors=True)  # what a killed apply left; we hold the lock
    recorded = remote.provenance if remote else {}
    with (
        tracked(missing, state, done) as trackers,
        stop_on_signals([*(watchers or []), *trackers]) as stop,
        executors(placement, state.directory) as executor_of,
        sending_to(remote, stop),
    ):
        while not done.interrupted:
            executor = executor_of(stages[-1])
            work = (stages[-1], state, executor, stop.watchers)
            applier = Applier(*work, light=placement.elsewhere, stop=stop, budget=budget, recorded=recorded)
            done.add(applier.run())
            ended = done.interrupted or (budget is not None and budget.refused) or executor.detached
            stage = None if ended else _next(spec, missing, first, stages, state)
            if stage is None:
                break
            stages.append(stage)
            for watcher in stop.watchers:
                watcher.on_next_stage(stage)
    return done


def _collect_finished(placement: Placement, approved: Plan, state: WritableState) -> None:
    """Take in what workers of a Slurm cluster finished since the plan was made."""
    if placement.cluster is not None and placement.cluster.executor == "slurm":
        collect(approved, state, area_of(placement.cluster, state.directory))


@contextlib.contextmanager
def sending_to(remote: "Session | None", stop: Stop) -> Iterator[None]:
    """Send to a state's remote what is recorded meanwhile; stop the apply where the remote's lock is lost."""
    if remote is None:
        yield
        return
    with remote.sending(stop.ask_at_once) as sending:
        counter = _Counter(sending)
        stop.watchers.append(counter)
        try:
            yield
        finally:
            stop.watchers.remove(counter)


class _Counter:
    """Counts the attempts that a remote does not have yet; a watcher that minds nothing else."""

    def __init__(self, sending: "Sending") -> None:
        self._sending = sending

    def on_node_start(self, node: GraphNode) -> None:
        """Mind nothing."""

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        """Mind nothing."""

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:  # noqa: ARG002
        """Count one more."""
        self._sending.count()

    def on_stop(self, times: int) -> None:
        """Mind nothing: what has ended is sent."""

    def on_next_stage(self, plan: Plan) -> None:
        """Mind nothing."""


def _next(spec: Spec, approved: Plan, first: Plan | None, stages: list[Plan], state: WritableState) -> Plan | None:
    """Return the next stage; where data had to be prepared first, what is left once it is known what they equal."""
    if first is None or len(stages) > 1:
        return next_stage(spec, stages, state)
    record_equal_data(state)
    return after_prepare(spec, approved, first, state)


def _pin_lock(spec: Spec, approved: Plan) -> None:
    """Write what is new in the lock, and refuse a plan whose model or data are no longer what they were."""
    now, _ = resolve(spec, approved.graph.lock)
    if now != approved.graph.lock:
        raise StalePlan("The model or the data changed after the plan was made. Plan again.")
    stored = read_lock(spec)
    if approved.refreshed or stored is None or {*now.models, *now.data} - {*stored.models, *stored.data}:
        write_lock(spec, now)
