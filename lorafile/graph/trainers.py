"""The programs that train in the place of the built-in loop: their files, read once, and their section of a key."""

import ast
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.errors import NodeError, Problem, SpecError
from lorafile.files.digests import file_digest, text_digest
from lorafile.files.local_modules import local_modules, parsed
from lorafile.files.user_cache import cached_digest
from lorafile.specs import Configuration, Spec
from lorafile.specs.error_messages import suggestion
from lorafile.specs.tables.trainer import TrainerTable
from lorafile.state.objects import Objects

PROTOCOL = 1  # of the contract between Lorafile and a program


@dataclass(frozen=True)
class TrainerProgram:
    """A declared program as it lies on this machine.

    :ivar script: the program's own file, relative to the spec
    :ivar files: name relative to the spec -> path of everything that a run's directory holds a copy of
    :ivar digests: name -> sha256 of each of these
    :ivar pins: requirements of exact versions, as its lock writes them, by name; empty where it has none
    :ivar data: name -> path of what it trains on besides the train split; `data_digests` likewise
    """

    name: str
    table: TrainerTable
    script: str
    files: dict[str, Path]
    digests: dict[str, str]
    pins: dict[str, str]
    data: dict[str, Path]
    data_digests: dict[str, str]

    @property
    def line(self) -> str:
        """What is run, for a person who decides whether it should be: `python train.py (sha256 1a2b…, 3 files)`."""
        digest = text_digest("".join(f"{name} {digest}\n" for name, digest in sorted(self.digests.items())))
        count = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        return f"{shlex.join(self.table.command)} (sha256 {digest[:12]}…, {count})"

    @property
    def python_variable(self) -> str:
        """The environment variable that names its interpreter on this machine."""
        return f"LORA_TRAINER_{self.name.upper().replace('-', '_')}_PYTHON"

    def python(self, base: Path) -> str:
        """Return the interpreter that runs the program on this machine.

        :param base: the spec's directory
        """
        named = os.environ.get(self.python_variable) or self.table.python
        if named is None:
            return sys.executable
        path = Path(named).expanduser()
        return str(path if path.is_absolute() or len(path.parts) == 1 else (base / path).absolute())

    def differs_in_layout_only(self, kept: str | None, objects: Objects) -> bool:
        """Return whether the program's files say the same as those that are kept with a result, comments aside.

        :param kept: the digest of the result's `program.json`
        """
        if kept is None or not objects.has(kept):
            return False
        before = json.loads(objects.proven(kept).read_text(encoding="utf-8"))
        now = {name: path.read_bytes() for name, path in self.files.items()}
        return before.keys() == now.keys() and all(_same(name, before[name], now[name]) for name in now)

    def section(self, configuration: Configuration) -> dict[str, Any]:
        """Return what of the program decides the result of a configuration: the section of its key."""
        table = configuration.trainer or self.table
        return {
            "protocol": PROTOCOL,
            "command": table.command,
            "files": self.digests,
            "requirements": self.pins,
            "options": table.options,
            "data": self.data_digests,
            "objective": table.objective,
            "processes": table.processes,
        }


def _same(name: str, before: Any, now: bytes) -> bool:
    if not isinstance(before, str) or before.encode() == now:
        return isinstance(before, str)
    try:
        return name.endswith(".py") and ast.dump(ast.parse(before)) == ast.dump(ast.parse(now))
    except (SyntaxError, ValueError):
        return False


def trainer_programs(spec: Spec) -> dict[str, TrainerProgram]:
    """Return name -> the program of each trainer that a spec declares.

    :raises SpecError: at the setting of a program that has no file, or an import that cannot be followed
    """
    programs: dict[str, TrainerProgram] = {}
    problems: list[Problem] = []
    for name, table in spec.tables.trainer.items():
        try:
            programs[name] = _program(spec, name, table)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return programs


def _program(spec: Spec, name: str, table: TrainerTable) -> TrainerProgram:
    base, place = spec.file.parent, ("trainer", name)
    script = _script(spec, name, table)
    files = {script: base / script}
    if script.endswith(".py"):
        try:
            modules = local_modules(parsed(base / script)[1], base / script, (base / script).parent)
        except NodeError as error:
            raise spec.error((*place, "command"), str(error)) from error
        found = [path for path in modules.values() if path.suffix == ".py"]
        files |= {path.relative_to(base).as_posix(): path for path in found}
    for at, file in enumerate(table.files):
        files[file] = _existing(spec, (*place, "files", at), file)
    data = {key: _jsonl(spec, (*place, "data", key), file) for key, file in table.data.items()}
    return TrainerProgram(
        name=name,
        table=table,
        script=script,
        files=dict(sorted(files.items())),
        digests={file: file_digest(path) for file, path in sorted(files.items())},
        pins=_pins(spec, name, table.requirements),
        data=data,
        data_digests={key: cached_digest(path) for key, path in data.items()},
    )


def _script(spec: Spec, name: str, table: TrainerTable) -> str:
    """Return the word of a command that is a file next to the spec.

    :raises SpecError: when none is
    """
    base = spec.file.parent
    for word in table.command:
        path = Path(word)
        if (base / path).is_file() and not path.is_absolute() and ".." not in path.parts:
            return path.as_posix()
    missing = next((word for word in table.command if Path(word).suffix in (".py", ".sh")), None)
    why = "names no file next to the spec, so a change of the program could not be seen"
    if missing is not None:
        beside = [file.name for file in base.iterdir() if file.is_file()]
        why = f"there is no file {missing} next to the spec{suggestion(missing, beside)}"
    raise spec.error(("trainer", name, "command"), why)


def _existing(spec: Spec, place: tuple[str | int, ...], name: str) -> Path:
    path = spec.file.parent / name
    if not path.is_file():
        beside = [file.name for file in path.parent.iterdir() if file.is_file()] if path.parent.is_dir() else []
        raise spec.error(place, f"there is no file {name} next to the spec{suggestion(path.name, beside)}")
    return path


def _jsonl(spec: Spec, place: tuple[str | int, ...], name: str) -> Path:
    if not name.endswith(".jsonl"):
        raise spec.error(place, f"{name} should be a .jsonl file, whose rows can be compared with the held-out ones")
    return _existing(spec, place, name)


def _pins(spec: Spec, name: str, file: str | None) -> dict[str, str]:
    """Return the requirements of a lock by the names of their projects, as pip and uv write them.

    :raises SpecError: at a line that allows more than one version
    """
    if file is None:
        return {}
    from packaging.requirements import InvalidRequirement, Requirement

    place = ("trainer", name, "requirements")
    try:
        text = _existing(spec, place, file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise spec.error(place, f"{file} cannot be read: {error}") from error
    pins: dict[str, str] = {}
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        written = line.split(" #")[0].split(" --hash")[0].strip()
        if not written or written.startswith(("#", "-")):  # a comment, or an option of pip
            continue
        try:
            requirement = Requirement(written)
        except InvalidRequirement as error:
            raise spec.error(place, f"{file}, line {number}: {written!r} is not a requirement") from error
        if [each.operator for each in requirement.specifier] not in (["=="], ["==="]) or "*" in str(requirement):
            remedy = "write name==version, as pip freeze does"
            raise spec.error(place, f"{file}, line {number}: {written!r} does not pin one version; {remedy}")
        pins[requirement.name.lower().replace("_", "-")] = str(requirement)
    return pins
