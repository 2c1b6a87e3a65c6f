"""The two sides of `lora diff`: specs, saved plans, or a spec now and as git has it at a revision."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import tomli

from lorafile import specs
from lorafile.errors import LoraError, SpecError
from lorafile.lock.lockfile import Lock, identity, lock_file, read_lock, resolve
from lorafile.plan.diff import Diff, Side, diff
from lorafile.plan.planfile import is_plan, read
from lorafile.plan.planner import plan_work
from lorafile.state import State
from lorafile.study.study import Study, state_directory


def between(old: Path, new: Path, state: Path | None = None, hourly: float | None = None) -> Diff:
    """Return what differs between two files, each a spec or a saved plan.

    :param hourly: what an hour of one device costs
    """
    directory = state_directory(state)
    return State.snapshot(directory, lambda _: diff(_side(old, state), _side(new, state, hourly)))


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
        with at_revision(file, revision, plan.graph.lock) as inputs:
            old = Side(f"no {then}", plan.study) if inputs is None else Side.of_plan(then, plan_work(*inputs, state))
    except SpecError as error:
        raise SpecError([replace(problem, file=then) for problem in error.problems]) from error
    return diff(old, Side.of_plan(str(file), plan))


def _side(file: Path, state: Path | None, hourly: float | None = None) -> Side:
    if is_plan(file):
        return Side.of_file(str(file), read(file), hourly)
    return Side.of_plan(str(file), Study.load(file, state).plan(hourly=hourly))


_MOST_BYTES = 10_000_000  # of a file that a spec names


@contextlib.contextmanager
def at_revision(file: Path, revision: str, today: Lock) -> Iterator[tuple[specs.Spec, Lock] | None]:
    """Give the spec and the lock of a file at a revision; None where it had no such file.

    Models and data are what its own lock says; where it had none, what they are today.

    :param today: the lock as it is now
    :raises LoraError: when git is not there, or knows no such revision
    :raises SpecError: when the spec was wrong at that time
    """
    repository = _Repository.of(file, revision)
    content = repository.read(file.name)
    if content is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="lora-") as root:
        folder = Path(root) / "repository" / repository.folder
        folder.mkdir(parents=True)
        (folder / file.name).write_bytes(content)
        for name in _named(content):
            repository.copy(name, folder, Path(root) / "repository")
        lock = repository.read(file.with_suffix(".lock").name)
        spec = specs.load(folder / file.name)
        if lock is not None:
            lock_file(spec).write_bytes(lock)
        yield spec, _lock(spec, file, today)


def _lock(spec: specs.Spec, file: Path, today: Lock) -> Lock:
    """Return the lock that the spec had; what it lacks is taken from today's, or looked at where it is now."""
    own = read_lock(spec) or Lock({}, {})
    lock = Lock({**today.models, **own.models}, {**today.data, **own.data})
    models = {identity(configuration.model) for configuration in spec.configurations}
    data = {identity(table) for table in (*(c.data for c in spec.configurations), spec.reference) if table}
    if models - lock.models.keys() or data - lock.data.keys():
        now, _ = resolve(replace(spec, file=file), lock)
        lock = Lock({**now.models, **own.models}, {**now.data, **own.data})
    return Lock({name: lock.models[name] for name in sorted(models)}, {name: lock.data[name] for name in sorted(data)})


def _named(content: bytes) -> list[str]:
    """Return the files and folders that a spec's text names as its own; nothing of a text that is no spec."""
    try:
        raw: dict[str, Any] = tomli.loads(content.decode())
        evaluate = raw.get("evaluate", {})
        names = [name for name in evaluate.get("metrics", []) if str(name).endswith(".py")]
        names += [evaluate.get("lm_eval_include_path"), evaluate.get("prompts", {}).get("path")]
        names += [analysis.get("file") for analysis in raw.get("analysis", [])]
        names += _init_files(raw)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []  # what is wrong with it is said where it is read
    return [name for name in names if isinstance(name, str)]


def _init_files(value: Any) -> list[Any]:
    """Return the files of functions that initialize adapters, wherever a spec's text names them."""
    if isinstance(value, list):
        return [name for item in value for name in _init_files(item)]
    if not isinstance(value, dict):
        return []
    own = [value["file"]] if {"file", "function"} == value.keys() else []
    return own + [name for item in value.values() for name in _init_files(item)]


class _Repository:
    """What git has of one folder at one commit."""

    def __init__(self, git: str, directory: Path, commit: str, folder: PurePosixPath) -> None:
        self.git, self.directory, self.commit, self.folder = git, directory, commit, folder

    @classmethod
    def of(cls, file: Path, revision: str) -> "_Repository":
        git, directory = shutil.which("git"), file.absolute().parent
        if git is None:
            raise LoraError("lora diff --git needs git, which is not installed here.")
        if not directory.is_dir():
            raise LoraError(f"{file}: there is no folder {directory}.")
        prefix = _run(git, directory, "rev-parse", "--show-prefix")
        if prefix is None:
            raise LoraError(f"{directory} is not in a git repository, so {file} has no revisions.")
        commit = _run(git, directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if commit is None:
            raise LoraError(
                f"git has no revision {revision!r} in {directory}. In CI, fetch the history that contains it."
            )
        return cls(git, directory, commit.decode().strip(), PurePosixPath(prefix.decode().strip()))

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None where it is not there."""
        size = _run(self.git, self.directory, "cat-file", "-s", f"{self.commit}:./{name}")
        if size is None:
            return None
        if int(size) > _MOST_BYTES:
            raise LoraError(f"{name} at {self.commit[:12]} has {int(size):,} bytes, too large for a file of a spec.")
        return _run(self.git, self.directory, "show", f"{self.commit}:./{name}")

    def copy(self, name: str, folder: Path, root: Path) -> None:
        """Copy a file, or every file of a folder, where it is in the repository; what is outside stays outside."""
        listed = _run(self.git, self.directory, "ls-tree", "-r", "-z", "--name-only", self.commit, "--", name) or b""
        for path in filter(None, listed.decode(errors="surrogateescape").split("\0")):
            target = Path(os.path.normpath(folder / path))
            content = self.read(path) if target.is_relative_to(root) else None
            if content is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def _run(git: str, directory: Path, *arguments: str) -> bytes | None:
    """Return what git prints; None where it fails."""
    done = subprocess.run([git, "-C", str(directory), *arguments], capture_output=True, check=False)  # noqa: S603
    return done.stdout if done.returncode == 0 else None
