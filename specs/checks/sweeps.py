"""The checks of a spec that go past types: sweeps, and settings that contradict each other."""

import re
from math import prod
from typing import Any

from pydantic import ValidationError

from lorafile.specs.configurations import REQUIRED, flatten, inner_tables
from lorafile.specs.error_messages import Problems, setting_tables, show, suggestion, unknown_setting
from lorafile.specs.positions import Path
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.tables.settings import SpecTables, field_at, section_table
from lorafile.specs.tables.train import EXECUTION
from lorafile.specs.values import NAME, PATTERNS

FACTOR_SECTIONS = ("model", "data", "method", *METHODS, "full", "none", "quantization", "train", "trainer")
MAX_POINTS = 10_000
SWEEP_SETTINGS = ("name", "match", "zip", "configurations", "exclude")
_MAX_SHOWN = 10**15
_ALONE = ("method", "quantization")


def check_blocks(raw: dict[str, Any], problems: Problems) -> None:
    """Check every sweep of the raw document: known settings, lists of valid candidates, equal lengths when zipped."""
    for index, block in inner_tables(raw, "sweep"):
        _check_block(block, ("sweep", index), problems)


def _check_block(block: dict[str, Any], place: Path, problems: Problems) -> None:
    lists = flatten({key: value for key, value in block.items() if key not in SWEEP_SETTINGS})
    for setting, values in lists.items():
        path = (*place, *setting.split("."))
        if wrong := factor_error(setting):
            problems.add(path, wrong)
        elif not isinstance(values, list):
            single = "" if isinstance(values, dict) else f"; for a single candidate, write [{show(values)}]"
            problems.add(path, f"should be a list of candidates, not {show(values)}{single}")
        elif not values:
            problems.add(path, "has no candidates")
        else:
            for number, value in enumerate(values if len(values) <= MAX_POINTS else []):
                check_value(setting, value, (*path, number), problems)
    zipped = _check_zip(block, lists, place, problems)
    _check_match(block, lists, place, problems)
    for kind in ("configurations", "exclude"):
        for number, row in inner_tables(block, kind):
            _check_point(row, kind, (*place, kind, number), problems)
    count = prod(len(values) for key, values in lists.items() if isinstance(values, list) and key not in zipped[1:])
    rows = block.get("configurations")
    count = max(count if lists else 0, len(rows) if isinstance(rows, list) else 0)
    if count > MAX_POINTS:
        number_of_points = f"{count:,} points" if count < _MAX_SHOWN else "too many points to count"
        problems.add(place, f"names {number_of_points}, more than {MAX_POINTS:,}; its lists multiply")
    if not lists and not block.get("configurations"):
        problems.add(place, "varies nothing; name a setting with a list of candidates, such as lora.r = [8, 16]")


def _check_match(block: dict[str, Any], lists: dict[str, Any], place: Path, problems: Problems) -> None:
    """Refuse a rank in a sweep that solves for the rank."""
    if block.get("match") != "parameters":
        return
    why = 'cannot vary in a sweep with match = "parameters", which solves for the rank of each placement'
    for method, rank in ((name, method.rank) for name, method in METHODS.items() if method.matches):
        if f"{method}.{rank}" in lists:
            problems.add((*place, method, rank), why)
        for number, row in inner_tables(block, "configurations"):
            if f"{method}.{rank}" in flatten(row):
                problems.add((*place, "configurations", number, method, rank), why)


def _check_zip(block: dict[str, Any], lists: dict[str, Any], place: Path, problems: Problems) -> list[str]:
    """Return what is zipped, where it can be."""
    zipped = block.get("zip")
    if not isinstance(zipped, list) or not all(isinstance(setting, str) for setting in zipped):
        return []
    for number, setting in enumerate(zipped):
        if setting not in lists:
            hint = suggestion(setting, lists)
            problems.add((*place, "zip", number), f'"{setting}" does not vary in this sweep{hint}')
        elif setting in zipped[:number]:
            problems.add((*place, "zip", number), f'"{setting}" is listed twice')
    if len(zipped) == 1:
        problems.add((*place, "zip"), "needs at least two settings to vary together")
    lengths = {setting: len(lists[setting]) for setting in zipped if isinstance(lists.get(setting), list)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{setting} has {length}" for setting, length in lengths.items())
        problems.add((*place, "zip"), f"zipped settings need the same number of candidates: {counts}")
    return list(lengths)


def _check_point(row: dict[str, Any], kind: str, path: Path, problems: Problems) -> None:
    if kind == "exclude" and not row:
        problems.add(path, "is empty and would exclude every point")
    named = kind == "configurations" and "name" in row
    if named and not (isinstance(row["name"], str) and re.fullmatch(NAME, row["name"])):
        problems.add((*path, "name"), f"should be {PATTERNS[NAME]}, not {show(row['name'])}")
    for setting, value in flatten({key: value for key, value in row.items() if not (named and key == "name")}).items():
        inner = (*path, *setting.split("."))
        if wrong := factor_error(setting):
            problems.add(inner, wrong)
        else:
            check_value(setting, value, inner, problems)


def factor_error(setting: str) -> str:
    """Return why a dotted setting cannot vary, or nothing."""
    names = tuple(setting.split("."))
    if setting == "model.device_map":
        return "cannot be swept; the placement of a base on this machine's GPUs does not affect results"
    if names[0] == "train" and names[-1] in EXECUTION:
        return "cannot be swept; it controls how a run is carried out and does not affect results"
    if names[0] == "trainer":
        return _trainer_error(names)
    if names[0] in FACTOR_SECTIONS:
        if len(names) == 1 and names[0] not in _ALONE:
            example = next(iter(setting_tables(names)))
            return f"names a whole table; vary its settings, such as {names[0]}.{example}"
        beginnings = [names[:length] for length in range(2, len(names) + 1)]
        return next((unknown_setting(part) for part in beginnings if not field_at(part)), "")
    if names[0] == "study":
        return "cannot be swept; every configuration runs with each of study.seeds"
    homes = setting_tables(("lora", "train", "model", "data", "full", *METHODS))
    if names[0] in homes:
        return f'cannot be swept; did you mean "{homes[names[0]]}.{names[0]}"?'
    home = setting_tables().get(names[0])
    if home or names[0] in SpecTables.model_fields:
        belongs = f"; it belongs in [{home}]" if home else ""
        return f"cannot be swept{belongs}; a sweep varies {', '.join(FACTOR_SECTIONS)}"
    close = suggestion(names[0], [*SWEEP_SETTINGS, *FACTOR_SECTIONS]) or suggestion(names[-1], homes)
    for name, table in homes.items():
        close = close.replace(f'"{name}"', f'"{table}.{name}"')
    return f"cannot be swept{close or '; a sweep varies ' + ', '.join(FACTOR_SECTIONS)}"


def _trainer_error(names: tuple[str, ...]) -> str:
    """Return why a setting of a `[trainer.NAME]` cannot vary, or nothing: its options can."""
    if len(names) > 3 and names[2] == "options":
        return ""
    if len(names) == 3 and not field_at(names):
        return unknown_setting(names)
    remedy = "declare another [trainer.NAME] and vary train.trainer" if len(names) > 2 else "vary train.trainer"
    return f"cannot be swept; {remedy}. A sweep varies a program's options: trainer.NAME.options.beta"


def check_value(setting: str, value: Any, path: Path, problems: Problems) -> None:
    """Check one candidate of one setting against the table that the setting belongs to."""
    section, *rest = setting.split(".")
    table: Any = value
    for part in reversed(rest):
        table = {part: table}
    if rest and _is_valid(section, {**REQUIRED.get(section, {}), **table}):
        return
    filled: dict[str, Any] = {**REQUIRED, section: {**REQUIRED.get(section, {}), **table} if rest else table}
    try:
        SpecTables.model_validate(filled)
    except ValidationError as error:
        problems.add_validation(error, filled, path, (section, *rest))
    else:
        if section == "quantization":
            check_bits(value, path, problems)


def _is_valid(section: str, table: dict[str, Any]) -> bool:
    """Return whether a table is one, by itself: a hundredth of what a whole spec takes, and it says not why not."""
    model = section_table(section)
    if model is None:
        return False
    try:
        model.model_validate(table)
    except ValidationError:
        return False
    return True


def check_bits(quantization: Any, path: Path, problems: Problems) -> None:
    """Check that a base that is quantized by BitsAndBytesConfig's settings has one width."""
    if isinstance(quantization, dict) and quantization.get("quant_method", "bitsandbytes") == "bitsandbytes":
        widths = [key for key in ("load_in_4bit", "load_in_8bit") if quantization.get(key) is True]
        if len(widths) != 1:
            problems.add(path, "set exactly one of load_in_4bit and load_in_8bit to true")
