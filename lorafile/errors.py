"""Everything that can go wrong in a way that the user can mend, each with its exit code."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_TOLD = 100  # mistakes of one spec
_LONG_LIST = 100  # characters of what is allowed


class LoraError(Exception):
    """A failure in one sentence: what, where, why, and what to do."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec: where it stands, what is wrong, and what is allowed instead."""

    file: str
    line: int
    column: int
    setting: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.setting}: {self.message}" if self.setting else f"{where}: {self.message}"


def _described(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each mistake; what is allowed in a table is listed once."""
    lines, listed = [], dict[str, int]()
    for problem in problems:
        said, mark, allowed = str(problem).partition("; allowed: ")
        first = listed.setdefault(allowed, problem.line) if len(allowed) > _LONG_LIST else problem.line
        lines.append(f"{said}{mark}see line {first}" if first != problem.line else f"{said}{mark}{allowed}")
    return lines


class SpecError(LoraError):
    """The spec is wrong; carries every problem that was found, in the order of the file."""

    exit_code = 3

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
        told = _described(self.problems[:_MOST_TOLD])
        more = len(self.problems) - len(told)
        super().__init__("\n".join([*told, *([f"… and {more} more mistakes"] if more else [])]))


class StateError(LoraError):
    """The state is locked, damaged, unwritable, or made by a newer version."""

    exit_code = 4


class NodeError(LoraError):
    """A node of work could not be done for a reason that its settings or its data explain."""


class ModelError(NodeError):
    """The spec asks of a model what it cannot be, or cannot do."""

    exit_code = 3


def install_command(extra: str = "train") -> str:
    """Return what to type for an extra: where this was installed from a checkout, with the checkout's path."""
    import json
    import shlex
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        written = distribution("lorafile").read_text("direct_url.json")  # PEP 610: of what came from no index
    except PackageNotFoundError:
        written = None
    direct = json.loads(written) if written else {}
    parts = urlsplit(direct.get("url", ""))
    source = unquote(parts.path) if parts.scheme == "file" and "dir_info" in direct else "lorafile"
    editable = "-e " if direct.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(f'{source}[{extra}]')}"


class MissingExtra(LoraError):
    """A command needs a library of an extra that is not installed here."""

    def __init__(self, what: str, library: str, extra: str = "train") -> None:
        super().__init__(
            f"{what} needs {library}, which is not installed here. Install it with: {install_command(extra)}"
        )


class StalePlan(LoraError):
    """An approved plan no longer holds: what it was made from has changed."""

    exit_code = 5


class ArgumentError(LoraError):
    """An argument of a function, or the option of that name of a command, is wrong.

    :ivar argument: its name
    :ivar reason: what is wrong, and what is allowed instead
    """

    def __init__(self, argument: str, reason: str) -> None:
        self.argument, self.reason = argument, reason
        super().__init__(f"{argument}: {reason}")


class UnmatchedPattern(ArgumentError):
    """A pattern that selects a part of a study matches nothing in it."""


class ClaimError(LoraError):
    """A claim of the spec no longer holds for what the state has."""

    exit_code = 6


@contextlib.contextmanager
def named(file: Path | str) -> Iterator[None]:
    """Let an error say of which file it is, also where reading failed that had begun."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(file)
        raise
