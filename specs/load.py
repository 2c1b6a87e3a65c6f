"""TOML to a typed study spec; every mistake is reported at once, each where it stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from lorafile.errors import Problem, SpecError
from lorafile.specs.checks import check_blocks, check_tables
from lorafile.specs.configurations import Configuration, flatten, point_name, points, resolve, unite
from lorafile.specs.positions import positions
from lorafile.specs.problems import Problems
from lorafile.specs.settings import SpecTables, SweepTable


@dataclass(frozen=True)
class Spec:
    """A study spec: its tables, the configurations that its sweeps name, and where it stands."""

    file: Path
    tables: SpecTables
    configurations: tuple[Configuration, ...]

    @property
    def name(self) -> str:
        """The study's name."""
        return self.tables.study.name

    @property
    def primary(self) -> str:
        """The metric that the study decides by."""
        return self.tables.evaluate.primary or self.tables.evaluate.metrics[0]


def load(file: Path) -> Spec:
    """Read a spec.

    :raises SpecError: with every problem of the spec, located; a syntax error comes alone, TOML stops there
    """
    return parse(_read(file), file)


def parse(text: str, file: Path) -> Spec:
    """Return the spec of a TOML text; `file` is where its messages and its relative paths point."""
    problems = Problems(str(file))
    try:
        raw = tomli.loads(text)
        problems.known = positions(text)
    except tomli.TOMLDecodeError as error:
        raise SpecError([Problem(str(file), error.lineno, error.colno, "", f"not valid TOML: {error.msg}")]) from error
    except RecursionError as error:
        raise SpecError([Problem(str(file), 1, 1, "", "is nested too deeply to be a spec")]) from error
    tables = None
    try:
        tables = SpecTables.model_validate(raw)
    except ValidationError as error:
        problems.add_validation(error, raw)
    check_blocks(raw, problems)
    if tables is not None:
        check_tables(tables, problems)
    if problems.found or tables is None:
        raise SpecError(problems.list())
    configurations = _configurations(raw, tables, problems)
    if problems.found:
        raise SpecError(problems.list())
    return Spec(file, tables, tuple(configurations))


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
    for index, block in enumerate(tables.sweep):
        sweep = block_name(block)
        for varied, own_name, where in _block_points(block, index):
            name = f"{sweep}/{own_name or point_name(varied)}"
            configuration = resolve(name, sweep, raw, varied)
            if any(_matches(configuration, raw, flatten(exclusion)) for exclusion in block.exclude):
                continue
            if configuration.method == "full" and configuration.quantization is not None:
                problems.add(where, f"{name}: a quantized base cannot be fine-tuned in full; leave the point out with `exclude`")
            found.append(configuration)
    if not tables.sweep:
        found.append(resolve(tables.method, tables.method, raw, {}))
    united = unite(found)
    _check_names(united, problems)
    if not united:
        problems.add(("sweep",), "no configuration is left; `exclude` takes every point out")
    return united


def _block_points(block: SweepTable, index: int) -> list[tuple[dict[str, Any], str | None, tuple[str | int, ...]]]:
    lists = block_lists(block)
    rows: list[tuple[dict[str, Any], str | None, tuple[str | int, ...]]] = []
    if lists:
        rows += [(point, None, ("sweep", index)) for point in points(lists, block.zip)]
    for number, table in enumerate(block.configurations):
        settings = {key: value for key, value in table.items() if key != "name"}
        rows.append((flatten(settings), table.get("name"), ("sweep", index, "configurations", number)))
    return rows


def _matches(configuration: Configuration, raw: dict[str, Any], exclusion: dict[str, Any]) -> bool:
    """Return whether a configuration has every value of an exclusion, varied or from the spec's own tables."""
    written = {"method": "lora", "quantization": "none", **flatten(raw), **configuration.varied}
    return all(key in written and written[key] == value for key, value in exclusion.items())


def _check_names(configurations: list[Configuration], problems: Problems) -> None:
    seen: dict[str, Configuration] = {}
    for configuration in configurations:
        for name in (configuration.name, *configuration.aliases):
            if seen.setdefault(name, configuration) is not configuration:
                problems.add(("sweep",), f'two different configurations are called "{name}"; give one of them another name')
