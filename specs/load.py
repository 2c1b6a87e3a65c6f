"""TOML to a typed study spec; every mistake is reported at once, each where it stands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from lorafile.errors import Problem, SpecError
from lorafile.specs.answer_checks import check_answers
from lorafile.specs.checks import FACTOR_SECTIONS, REQUIRED, check_blocks
from lorafile.specs.combinations import contradiction, study_contradiction
from lorafile.specs.configurations import Configuration, flatten, point_name, points, resolve, unite
from lorafile.specs.consistency import check_tables
from lorafile.specs.data_settings import DataTable
from lorafile.specs.evaluate_settings import label
from lorafile.specs.metric_checks import with_default_metrics
from lorafile.specs.positions import Path as Place
from lorafile.specs.positions import Position, positions
from lorafile.specs.problems import Problems
from lorafile.specs.settings import SpecTables, SweepTable
from lorafile.specs.stages import check_stages

_SYNTAX = {
    "Cannot overwrite a value": "sets something here a second time; TOML allows each key once",
}


@dataclass(frozen=True)
class Spec:
    """A study spec: its tables, the configurations that its sweeps name, and where it stands."""

    file: Path
    tables: SpecTables
    configurations: tuple[Configuration, ...]
    known: dict[Place, Position] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.tables.study.name

    def error(self, path: Place, message: str) -> SpecError:
        """Return an error that stands at a setting of this spec: what only its model or its data could tell."""
        problems = Problems(str(self.file), self.known)
        problems.add(path, message)
        return SpecError(problems.list())

    @property
    def reference(self) -> DataTable | None:
        """The reference text, as a table of data; None where the study has none."""
        declared = self.tables.evaluate.reference
        return None if declared is None else declared.table(self.tables.data.split_seed)

    def data(self, configuration: Configuration, split: str) -> DataTable:
        """Return the table that the rows of a split come from."""
        return self.reference or configuration.data if split == "reference" else configuration.data

    @property
    def primary(self) -> str:
        """The name of the metric that the study decides by."""
        return label(self.tables.evaluate.primary or self.tables.evaluate.metrics[0])


def load(file: Path) -> Spec:
    """Read a spec.

    :raises SpecError: with every problem of the spec, located; a syntax error comes alone, TOML stops there
    """
    return parse(_read(file), file)


def parse(text: str, file: Path) -> Spec:
    """Return the spec of a TOML text; `file` is where its messages and its relative paths point."""
    problems = Problems(str(file))
    try:
        raw = _document(text.removeprefix("\ufeff"), problems)
        tables = _tables(raw, problems)
        configurations = _configurations(raw, tables, problems)
        if not problems.found:
            check_stages(tables, configurations, problems)
            check_answers(tables, configurations, file, problems)
    except RecursionError as error:
        raise SpecError([Problem(str(file), 1, 1, "", "is nested too deeply to be a spec")]) from error
    if problems.found:
        raise SpecError(problems.list())
    return Spec(file, tables, tuple(configurations), problems.known)


def _document(text: str, problems: Problems) -> dict[str, Any]:
    """Return the raw document, its positions noted."""
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = _SYNTAX.get(error.msg, f"not valid TOML: {error.msg}")
        raise SpecError([Problem(problems.file, error.lineno, error.colno, "", message)]) from error
    except ValueError as error:  # Python converts no decimal number of more than 4300 digits
        digits = re.search("[0-9_]{4300}", text)
        before = text[: digits.start()] if digits else ""
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise SpecError([Problem(problems.file, line, column, "", "is a number of too many digits")]) from error
    problems.known = positions(text)
    for path in _too_large(raw):
        problems.add(path, "is a number that TOML's 64 bits do not hold")
    if problems.found:
        raise SpecError(problems.list())
    return raw


def _too_large(value: Any, path: Place = ()) -> Iterator[Place]:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _too_large(item, (*path, key))


def _tables(raw: dict[str, Any], problems: Problems) -> SpecTables:
    """Return the typed tables; every check is made, even where another one has failed."""
    bad: list[Place] = []
    try:
        tables = SpecTables.model_validate(raw)
    except ValidationError as error:
        bad = problems.add_validation(error, raw)
        tables = _sound(raw, bad)
    tables = with_default_metrics(tables)
    check_blocks(raw, problems)
    check_tables(tables, raw, problems)
    if problems.found:
        raise SpecError(problems.list())
    return tables


def _sound(raw: dict[str, Any], bad: list[Place]) -> SpecTables:
    """Return the tables without what is wrong, so that the rest can be checked; sweeps and analyses are checked raw."""
    tables = {key: value for key, value in raw.items() if key not in ("sweep", "analysis")}
    for path in bad:
        names = list(takewhile(lambda part: isinstance(part, str), path))
        names = names[:1] if names[:1] == ["quantization"] else names  # half of it may be no quantization at all
        tables = _without(tables, names) if names else tables
    for name, needed in REQUIRED.items():
        tables[name] = {**needed, **tables.get(name, {})}
    return SpecTables.model_validate(tables)


def _without(tables: dict[str, Any], names: list[Any]) -> dict[str, Any]:
    """Return the tables without one setting; without its table, where it is what the table lacks."""
    head, *rest = names
    inner = tables.get(head)
    if rest and isinstance(inner, dict) and (len(rest) > 1 or rest[0] in inner):
        return {**tables, head: _without(inner, rest)}
    return {key: value for key, value in tables.items() if key != head}


def block_lists(block: SweepTable) -> dict[str, Any]:
    """Return what a sweep varies: dotted setting -> its list of candidates."""
    return flatten(block.model_extra or {})


def block_name(block: SweepTable) -> str:
    """Return a sweep's name; without one of its own it is called after what it varies."""
    if block.name:
        return block.name
    return "-".join(setting.rsplit(".", 1)[-1] for setting in block_lists(block)) or "configurations"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        message = "there is no such file. Write a first spec with: lora init"
    except IsADirectoryError:
        message = "is a directory; name the spec file in it"
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start})"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    raise SpecError([Problem(str(file), 1, 1, "", message)])


def _configurations(raw: dict[str, Any], tables: SpecTables, problems: Problems) -> list[Configuration]:
    found: list[Configuration] = []
    places: dict[str, Place] = {}
    written = flatten(tables.model_dump(include=set(FACTOR_SECTIONS)))
    for index, block in enumerate(tables.sweep):
        sweep = block_name(block)
        exclusions = [flatten(exclusion) for exclusion in block.exclude]
        members: list[Configuration] = []
        for varied, own_name, where in _block_points(block, index):
            if any(_matches({**written, **varied}, exclusion) for exclusion in exclusions):
                continue
            name = f"{sweep}/{own_name or point_name(varied) or tables.method}"
            places.setdefault(name, where)
            configuration = _resolved(name, sweep, raw, varied, (problems, where))
            members += [configuration] if configuration else []
        if block.match == "parameters" and not problems.found:
            members = _matched(members, ("sweep", index), problems)
        found += members
    if not tables.sweep:
        found.append(_only(raw, tables, problems))
    elif not found and not problems.found:
        problems.add(("sweep",), "no configuration is left; `exclude` takes every point out")
    united = unite(found)
    _check_names(united, places, problems)
    return united


def _resolved(
    name: str, sweep: str, raw: dict[str, Any], varied: dict[str, Any], told: tuple[Problems, Place]
) -> Configuration | None:
    """Return one configuration, or note why the settings of this point do not go together."""
    problems, where = told
    try:
        configuration = resolve(name, sweep, raw, varied)
    except ValidationError as error:
        row = error.errors()[0]
        setting = ".".join(str(part) for part in row["loc"])
        problems.add(where, f"{name}: {setting}: {'is required' if row['type'] == 'missing' else row['msg']}")
        return None
    found = contradiction(configuration)
    if found is not None:
        hint = 'leave the point out, as with exclude = [{ method = "full", quantization = "nf4" }]'
        problems.add(where, f"{name}: {found[1]}; {hint}")
    return configuration


def _only(raw: dict[str, Any], tables: SpecTables, problems: Problems) -> Configuration:
    """Return the configuration of a study without sweeps, or note where its settings contradict each other."""
    configuration = resolve(tables.method, tables.method, raw, {})
    found = study_contradiction(configuration, tables.train.loraplus_lr_ratio)
    if found is not None:
        problems.add(*found)
    return configuration


def _matched(found: list[Configuration], where: Place, problems: Problems) -> list[Configuration]:
    """Return a sweep's configurations, every LoRA placement after the first tied to the first one's parameters."""
    first = next((configuration for configuration in found if configuration.method == "lora"), None)
    if first is None:
        problems.add((*where, "match"), '"parameters" needs a LoRA configuration in this sweep')
        return found
    others = (configuration.method == "lora" and configuration is not first for configuration in found)
    return [replace(c, matched=first) if other else c for c, other in zip(found, others, strict=True)]


def _block_points(block: SweepTable, index: int) -> list[tuple[dict[str, Any], str | None, Place]]:
    lists = block_lists(block)
    rows: list[tuple[dict[str, Any], str | None, Place]] = []
    if lists:
        rows += [(point, None, ("sweep", index)) for point in points(lists, block.zip)]
    for number, table in enumerate(block.configurations):
        settings = {key: value for key, value in table.items() if key != "name"}
        rows.append((flatten(settings), table.get("name"), ("sweep", index, "configurations", number)))
    return rows


def _matches(settings: dict[str, Any], exclusion: dict[str, Any]) -> bool:
    """Return whether a point has every value of an exclusion, varied, written in the spec, or by default."""
    return all(key in settings and settings[key] == value for key, value in exclusion.items())


def _check_names(configurations: list[Configuration], places: dict[str, Place], problems: Problems) -> None:
    seen: dict[str, Configuration] = {}
    for configuration in configurations:
        for name in (configuration.name, *configuration.aliases):
            if seen.setdefault(name, configuration) is not configuration:
                message = f'two different configurations are called "{name}"; give one of them another name'
                problems.add(places.get(name, ("sweep",)), message)
