"""An apply, stage by stage: the approved plan, then what its results or its choices have made known."""

import shutil

from lorafile.apply.applier import Applier
from lorafile.apply.budget import Budget
from lorafile.apply.progress import Applied, Progress, stop_on_signals
from lorafile.apply.tracking.reporter import tracked
from lorafile.apply.workers import check_libraries, local_executor
from lorafile.errors import StalePlan
from lorafile.lock.lockfile import read_lock, resolve, write_lock
from lorafile.plan.plan import Plan
from lorafile.plan.planner import next_stage, still_missing
from lorafile.specs import Spec
from lorafile.state import WritableState


def apply_plan(
    spec: Spec,
    approved: Plan,
    state: WritableState,
    workers: int | None = None,
    pack: str | int = "auto",
    watchers: list[Progress] | None = None,
    budget: Budget | None = None,
) -> Applied:
    """Do what an approved plan says and has not been done since, and what follows from it; return what was done.

    :param spec: as it is written, in which nothing is chosen yet
    :param state: locked for as long as this takes
    :raises StalePlan: when model or data are no longer what the plan was made of
    """
    check_libraries(approved)
    _pin_lock(spec, approved)
    done, stages = Applied(), [still_missing(approved, state)]
    shutil.rmtree(state.directory / "staging", ignore_errors=True)  # what a killed apply left; we hold the lock
    with tracked(stages[0], state, done) as trackers, stop_on_signals([*(watchers or []), *trackers]) as stop:
        while not done.interrupted:
            executor = local_executor(stages[-1], state.directory, workers, pack)
            done.add(Applier(stages[-1], state, executor, stop.watchers, stop=stop, budget=budget).run())
            ended = done.interrupted or (budget is not None and budget.refused)
            stage = None if ended else next_stage(spec, stages, state)
            if stage is None:
                break
            stages.append(stage)
            for watcher in stop.watchers:
                watcher.on_next_stage(stage)
    return done


def _pin_lock(spec: Spec, approved: Plan) -> None:
    """Write what is new in the lock, and refuse a plan whose model or data are no longer what they were."""
    now, _ = resolve(spec, approved.graph.lock)
    if now != approved.graph.lock:
        raise StalePlan("The model or the data changed after the plan was made. Plan again.")
    stored = read_lock(spec)
    if approved.refreshed or stored is None or {*now.models, *now.data} - {*stored.models, *stored.data}:
        write_lock(spec, now)
