"""The programs that a plan would run, and whether their environments are the ones that they need; runs none of them."""

import json
import shutil
import sys
from pathlib import Path

from lorafile.engine.trainers.environment import installed_in, own, wrong_environment
from lorafile.environment import installed
from lorafile.errors import LoraError
from lorafile.files.digests import json_digest
from lorafile.graph.initializers import INIT, InitFunction, named_function
from lorafile.graph.trainers import TrainerProgram
from lorafile.plan.plan import Plan
from lorafile.units import listing

_CHECKS = "trainers"  # a directory of the state


def planned_programs(plan: Plan) -> list[TrainerProgram]:
    """Return the programs that a plan would run, in the spec's order."""
    nodes, spec = plan.graph.nodes, plan.graph.spec
    trained = (spec.named[nodes[change.key].configuration] for change in plan.work if change.kind == "train")
    names = {c.train.trainer for c in trained if c.train is not None and c.trainer is not None}
    return [program for name, program in plan.graph.trainers.items() if name in names]


def planned_functions(plan: Plan) -> list[InitFunction]:
    """Return the functions by which a plan would initialize adapters."""
    nodes, spec = plan.graph.nodes, plan.graph.spec
    trained = [nodes[change.key] for change in plan.work if change.kind == "train"]
    started = [
        spec.named[node.configuration] for node in trained if isinstance(node.settings["adapter"].get(INIT), dict)
    ]
    names = dict.fromkeys(filter(None, map(named_function, started)))
    return [plan.graph.initializers[name] for name in names]


def program_lines(plan: Plan, state: Path) -> tuple[str, ...]:
    """Return a line for each program that would run: what, in which environment, and whether it was checked.

    A function that initializes adapters is one, too.

    :param state: the state's directory
    """
    base = plan.graph.spec.file.parent
    programs = (
        f"runs: {program.line} with {program.python(base)}; {_checked(program, state)}"
        for program in planned_programs(plan)
    )
    functions = (f"runs: {function.line} to initialize adapters" for function in planned_functions(plan))
    return (*programs, *functions)


def check_file(state: Path, program: TrainerProgram) -> Path:
    """Return where the result of `lora trainer check` is kept for a program of this content."""
    content = {"command": program.table.command, "files": program.digests, "requirements": program.pins}
    return state / _CHECKS / f"{json_digest(content, sort_keys=True)}.json"


def _checked(program: TrainerProgram, state: Path) -> str:
    """Return when a program was checked, and what it did not do; or that it was not, and how it can be."""
    try:
        kept = json.loads(check_file(state, program).read_text(encoding="utf-8"))
        failed = [finding["text"] for finding in kept["findings"] if not finding["holds"]]
        when = f"checked on {kept['checked'][:10]}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"not checked (lora trainer check {program.name})"
    return f"{when}: {'; '.join(failed)}" if failed else when


def environment_lines(plan: Plan) -> list[str]:
    """Return a sentence for each program whose environment is not the pinned one, is not there, or differs from ours.

    It is read and not run: of an environment that cannot be read, the run finds out.
    """
    base = plan.graph.spec.file.parent
    lines = []
    for program in planned_programs(plan):
        wrong = _wrong_environment(program, base)
        lines += [wrong] if wrong else _other_libraries(program, base)
    return lines


def check_programs(plan: Plan, cluster: bool) -> None:
    """Check, before anything is paid for, that a plan's programs can be run.

    :param cluster: the work runs on other machines
    :raises LoraError: when they cannot
    """
    programs = planned_programs(plan)
    if programs and cluster:
        name = programs[0].name
        raise LoraError(
            f"trainer.{name}: programs run on this machine only. Apply without --cluster, or leave their runs out with "
            "--exclude CONFIGURATION."
        )
    for program in programs:
        if wrong := _wrong_environment(program, plan.graph.spec.file.parent):
            raise LoraError(wrong)


def _installed(program: TrainerProgram, base: Path) -> tuple[dict[str, str], str] | None:
    path = shutil.which(program.python(base))
    if path is None:
        return None
    return own() if Path(path).absolute() == Path(sys.executable).absolute() else installed_in(Path(path))


def _wrong_environment(program: TrainerProgram, base: Path) -> str:
    """Return why a program's environment is not the one that it needs, or nothing."""
    named, lock = program.python(base), str(program.table.requirements)
    if shutil.which(named) is None:
        remedy = f"Create it, or set {program.python_variable}"
        return f"trainer.{program.name}: there is no interpreter {named}. {remedy}."
    found = _installed(program, base)
    wrong = wrong_environment(program.pins, lock, named, *found) if found else ""
    return f"trainer.{program.name}: {wrong}" if wrong else ""


def _other_libraries(program: TrainerProgram, base: Path) -> list[str]:
    """Say which libraries have another major version than here: runs of both will not be compared."""
    found = _installed(program, base)
    if found is None:
        return []
    pairs = {name: (found[0].get(name), installed(name)) for name in ("torch", "transformers", "peft")}
    other = [
        f"{name} {there} there and {here} here"
        for name, (there, here) in pairs.items()
        if there and here and there.partition(".")[0] != here.partition(".")[0]
    ]
    if not other:
        return []
    remedy = 'which confounds comparisons with other trainers; to allow it, set verdict.waive = ["environment"]'
    return [f"trainer.{program.name}: {listing(other)}, {remedy}."]
