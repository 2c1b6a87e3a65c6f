"""Runs one metric file on rows, as a program of its own: FILE ROWS ANSWER MODULES. Imports the standard library alone.

MODULES is JSON: dotted name -> file of each module next to the metric file that it may import.
"""

import importlib.util
import json
import math
import sys
import traceback
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any


def main(file: str, rows_file: str, answer_file: str, modules: str = "{}") -> None:
    """Write `{figure, each}`, or `{error, line}`, to the answer file."""
    rows = json.loads(Path(rows_file).read_text(encoding="utf-8"))
    sys.meta_path.insert(0, LocalModules(json.loads(modules)))
    try:
        answer = _answer(load_file(file), rows)
    except BaseException as error:  # whatever it raises, exit included, is the answer
        answer = {"error": message_of(error), "line": line_of(error, file)}
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")


class _Source(SourceFileLoader):
    """Compiles a file as it stands, and leaves no compiled copy, which may be of an earlier second."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the file."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class LocalModules(MetaPathFinder):
    """Finds the modules that are in the key of a user's file, and nothing else of their folders."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return where a module is; None for all others."""
        file = self._files.get(fullname)
        if file is None:
            return None
        if not file.endswith(".py"):
            return ModuleSpec(fullname, None, is_package=True)
        return _spec(fullname, file)


def _spec(name: str, file: str) -> ModuleSpec | None:
    inside: list[str] | None = [] if file.endswith("__init__.py") else None
    return importlib.util.spec_from_file_location(
        name, file, loader=_Source(name, file), submodule_search_locations=inside
    )


def load_file(file: str) -> ModuleType:
    """Load the file under a name that no module has, so that a `statistics.py` shadows nothing."""
    spec = _spec("lorafile_own_file", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer(module: ModuleType, rows: list[dict[str, Any]]) -> dict[str, Any]:
    if hasattr(module, "score"):
        each = [_number(module.score(row), f"score(row) of row {row['row']}") for row in rows]
        return {"figure": sum(each) / len(each), "each": each}
    result = module.compute(rows)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"compute(rows) should return (figure, one number for each row), not {type(result).__name__}")
    figure, each = _number(result[0], "the figure of compute(rows)"), [*result[1]]
    if len(each) != len(rows):
        raise ValueError(f"compute(rows) returned {len(each)} numbers for {len(rows)} rows")
    numbers = [_number(value, f"number {at} of compute(rows)") for at, value in enumerate(each)]
    return {"figure": figure, "each": numbers}


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} should be a number, not {type(value).__name__}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} is {number}, which is not a finite number")
    return number


def message_of(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' if text else ''}{text[0] if text else ''}"


def line_of(error: BaseException, file: str) -> int | None:
    """Return the line of the file that raised, the innermost one."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


if __name__ == "__main__":
    main(*sys.argv[1:])
