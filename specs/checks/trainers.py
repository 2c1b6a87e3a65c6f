"""The checks of `[trainer.NAME]` tables, and of the names by which training refers to them."""

import math
from collections.abc import Iterator
from datetime import date, time
from typing import Any

from lorafile.specs.configurations import inner_tables
from lorafile.specs.error_messages import Problems, suggestion
from lorafile.specs.positions import Path
from lorafile.specs.tables.settings import SpecTables
from lorafile.specs.tables.trainer import BUILTIN


def check_trainers(tables: SpecTables, raw: dict[str, Any], problems: Problems) -> None:
    """Check that each trainer that is named is declared, and what is declared can be carried out."""
    declared = list(raw["trainer"]) if isinstance(raw.get("trainer"), dict) else []
    for name, table in tables.trainer.items():
        if name == BUILTIN:
            problems.add(("trainer", name), "is the name of Lorafile's own training loop; rename this one")
        if table.processes > 1:
            problems.add(("trainer", name, "processes"), "only 1 is supported; a program that needs more cannot be run")
        for option, value in table.options.items():
            if why := _no_json(value):
                problems.add(("trainer", name, "options", option), why)
    for path, name in named_in_train(raw, "trainer"):
        if isinstance(name, str) and name != BUILTIN and name not in declared:
            there = f"; there is: {', '.join(declared)}" if declared else "; the spec declares no trainer"
            problems.add(path, f"there is no [trainer.{name}]{suggestion(name, declared) or there}")


def _no_json(value: Any) -> str:
    """Return why an option cannot be passed to a program as JSON, or nothing."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return next(filter(None, map(_no_json, inner)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return "should be a finite number"
    if isinstance(value, date | time):  # a datetime is a date
        return f'is a date or time, which JSON does not have; write it as text: "{value.isoformat()}"'
    return ""


def named_in_train(raw: dict[str, Any], setting: str) -> Iterator[tuple[Path, Any]]:
    """Yield each place where a setting of `[train]` has a value, and the value; of a sweep's, each candidate."""
    yield from _at(raw, ("train", setting))
    for number, block in inner_tables(raw, "sweep"):
        for path, names in _at(block, ("sweep", number, "train", setting)):
            yield from (((*path, at), name) for at, name in enumerate(names if isinstance(names, list) else []))
        for index, row in inner_tables(block, "configurations"):
            yield from _at(row, ("sweep", number, "configurations", index, "train", setting))


def _at(table: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    train = table.get("train")
    if isinstance(train, dict) and path[-1] in train:
        yield path, train[path[-1]]
