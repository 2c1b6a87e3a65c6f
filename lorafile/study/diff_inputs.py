"""The two sides of `lora diff`: specs, saved plans, or a spec now and as git has it at a revision."""

from pathlib import Path

from lorafile.errors import Problem, SpecError
from lorafile.plan.diff import Diff, Side, diff
from lorafile.plan.planfile import is_plan, read
from lorafile.plan.planner import plan_work
from lorafile.state import State
from lorafile.study.git_revision import at_revision
from lorafile.study.study import Study, state_directory


def between(one: Path, other: Path, state: Path | None = None, hourly: float | None = None) -> Diff:
    """Return what differs between two files, each a spec or a saved plan.

    :param hourly: what an hour of one device costs
    """
    directory = state_directory(state)
    return State.snapshot(directory, lambda _: diff(_side(one, state), _side(other, state, hourly)))


def since(revision: str, file: Path, state: Path | None = None, hourly: float | None = None) -> Diff:
    """Return what differs between a spec as it was at a revision and as it is; where it was not there, all is new.

    :raises SpecError: when it was wrong then, or is now
    """
    study = Study.load(file, state)
    return State.snapshot(study.state, lambda stored: _since(revision, file, study, stored, hourly))


def _since(revision: str, file: Path, study: Study, state: State, hourly: float | None) -> Diff:
    plan = study.plan(hourly=hourly)
    then = f"{file} at {revision}"
    try:
        with at_revision(file, revision, plan.graph.lock) as found:
            old = Side(f"no {then}", plan.study)
            if found is not None:
                old = Side.of_plan(then, plan_work(*found, state))
    except SpecError as error:
        rows = [Problem(then, one.line, one.column, one.setting, one.message) for one in error.problems]
        raise SpecError(rows) from error
    return diff(old, Side.of_plan(str(file), plan))


def _side(file: Path, state: Path | None, hourly: float | None = None) -> Side:
    if is_plan(file):
        return Side.of_file(str(file), read(file), hourly)
    return Side.of_plan(str(file), Study.load(file, state).plan(hourly=hourly))
