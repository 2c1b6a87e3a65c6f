"""TOML to a typed study spec; every mistake is reported at once, each where it stands."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from lorafile.errors import ModelError, NodeError, Problem, SpecError
from lorafile.files.memo import remembered
from lorafile.specs.checks.claims import check_claims
from lorafile.specs.checks.consistency import check_tables, with_defaults
from lorafile.specs.checks.data_names import check_data_names
from lorafile.specs.checks.starts import by_name, check_starts
from lorafile.specs.checks.sweeps import check_blocks
from lorafile.specs.configurations import REQUIRED, Configuration
from lorafile.specs.error_messages import MAX_PROBLEMS, Problems
from lorafile.specs.positions import Path as Place
from lorafile.specs.positions import Position, TooManyPlaces, positions
from lorafile.specs.sweeps.expansion import expand_sweeps
from lorafile.specs.sweeps.stages import check_stages
from lorafile.specs.sweeps.tuning import extract_axes
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.specs.tables.settings import SpecTables, field_at

_MAX_BYTES = 4 << 20
_SYNTAX = {"Cannot overwrite a value": "sets a key a second time; TOML allows each key once"}
_TWICE = re.compile(r"Cannot declare \((.*)\) twice")


_SETTING = re.compile(r"^[a-z_0-9]+(?:\.[a-z_0-9]+)+(?=: )")


def setting_of(message: str) -> str:
    """Return the setting that a message begins with, as in `data.path: …`; nothing for any other text."""
    match = _SETTING.match(message)
    return match[0] if match and field_at(tuple(match[0].split("."))) is not None else ""


@dataclass(frozen=True)
class Spec:
    """A study spec: its tables, the configurations that its sweeps name, and where it stands.

    :ivar text: what the file says; empty of a spec that was made from another one
    """

    file: Path
    tables: SpecTables
    configurations: tuple[Configuration, ...]
    positions: dict[Place, Position] = field(default_factory=dict, repr=False, compare=False)
    text: str = field(default="", init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.tables.study.name

    def error(self, path: Place, message: str) -> SpecError:
        """Return an error that stands at a setting of this spec: what only its model or its data could tell."""
        problems = Problems(str(self.file), self.positions)
        problems.add(path, message)
        return SpecError(problems.list())

    @contextlib.contextmanager
    def located(self, setting: str = "") -> Iterator[None]:
        """Let an error about a model or data say where in this spec the setting stands that it names first.

        :param setting: what it is about, where its message names none
        :raises SpecError: in place of a NodeError that is about a setting; its exit code stays
        """
        try:
            yield
        except NodeError as error:
            text = str(error)
            if not setting_of(text) and not isinstance(error, ModelError):
                if not setting:
                    raise
                text = f"{setting}: {text}"
            named, _, message = text.partition(": ")
            path: Place = tuple(named.split("."))
            swept = (place for place in self.positions if place[:1] == ("sweep",) and path in (place[2:], place[4:]))
            located = self.error(path if path in self.positions else next(swept, path), message)
            located.exit_code = error.exit_code
            raise located from error

    @cached_property
    def named(self) -> dict[str, Configuration]:
        """Every configuration, and every candidate of a tuned one, by name."""
        tried = [candidate for c in self.configurations if c.tuned for candidate in c.tuned.candidates]
        return {configuration.name: configuration for configuration in (*tried, *self.configurations)}

    def start(self, configuration: Configuration) -> Configuration | None:
        """Return the configuration whose adapter another one starts from; None where its adapter is new."""
        name = configuration.train.start if configuration.train else ""
        return self._by_name[name] if name else None

    @cached_property
    def _by_name(self) -> dict[str, Configuration]:
        return by_name(self.configurations)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Return candidate -> the tuned configuration that it is one of, for those that are nothing else."""
        names = {configuration.name for configuration in self.configurations}
        pairs = [(candidate.name, c.name) for c in self.configurations if c.tuned for candidate in c.tuned.candidates]
        return {name: owner for name, owner in pairs if name not in names}

    def with_configurations(self, configurations: tuple[Configuration, ...]) -> "Spec":
        """Return the spec with its tuned configurations settled, or with more candidates."""
        return replace(self, configurations=configurations)

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
        return metric_label(self.tables.evaluate.primary or self.tables.evaluate.metrics[0])


def load(file: Path) -> Spec:
    """Read a spec.

    :raises SpecError: with every problem of the spec, located; a syntax error comes alone, TOML stops there
    """
    return parse(_read(file), file)


def parse(text: str, file: Path) -> Spec:
    """Return the spec of a TOML text; `file` is where its messages and its relative paths point."""
    problems = Problems(str(file))
    try:
        raw, tuned = extract_axes(_document(text.removeprefix("\ufeff"), problems), problems)
        tables = _tables(raw, problems)
        check_data_names(raw, file, problems)
        configurations = remembered(
            "configurations",
            text,
            lambda: expand_sweeps(raw, tables, tuned, problems),
            lambda: not (tuned or problems.by_place),
        )
        if not problems.by_place:
            check_stages(tables, configurations, problems)
            check_claims(tables, configurations, file, problems)
            check_starts(raw, configurations, problems)
    except RecursionError as error:
        raise SpecError([Problem(str(file), 1, 1, "", "is nested too deeply to be a spec")]) from error
    if problems.by_place:
        raise SpecError(problems.list())
    spec = Spec(file, tables, tuple(configurations), problems.positions)
    object.__setattr__(spec, "text", text)
    return spec


def _syntax_message(told: str) -> str:
    """Return what is wrong with a text that is no TOML."""
    if twice := _TWICE.fullmatch(told):
        name = ".".join(re.findall("'([^']*)'", twice[1]))
        return f"declares [{name}] a second time; move its settings into the first one"
    return _SYNTAX.get(told, f"not valid TOML: {told}")


def _document(text: str, problems: Problems) -> dict[str, Any]:
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = _syntax_message(error.msg)
        raise SpecError([Problem(problems.file, error.lineno, error.colno, "", message)]) from error
    except ValueError as error:  # Python converts no decimal number of more than 4300 digits
        digits = re.search("[0-9_]{4300}", text)
        before = text[: digits.start()] if digits else ""
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise SpecError([Problem(problems.file, line, column, "", "is a number with too many digits")]) from error
    try:
        problems.positions = positions(text)
    except TooManyPlaces as error:
        raise SpecError([Problem(problems.file, error.line, error.column, "", str(error))]) from error
    for path in _too_large(raw):
        problems.add(path, "is a number that does not fit into TOML's 64 bits")
    if problems.by_place:
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
        if len(bad) >= MAX_PROBLEMS:
            raise SpecError(problems.list()) from error
        tables = _valid_tables(raw, bad)
    tables = with_defaults(tables)
    check_blocks(raw, problems)
    check_tables(tables, raw, problems)
    if problems.by_place:
        raise SpecError(problems.list())
    return tables


def _valid_tables(raw: dict[str, Any], bad: list[Place]) -> SpecTables:
    """Return the tables without what is wrong, so that the rest can be checked; sweeps and analyses are checked raw."""
    tables = {key: value for key, value in raw.items() if key not in ("sweep", "analysis")}
    while True:
        for path in bad:
            names = list(takewhile(lambda part: isinstance(part, str), path))
            names = names[:1] if names[:1] == ["quantization"] else names  # half of it may be no quantization at all
            tables = _without(tables, names) if names else tables
        for name, needed in REQUIRED.items():
            tables[name] = {**needed, **tables.get(name, {})}
        try:
            return SpecTables.model_validate(tables)
        except ValidationError as error:  # a table lacks what was wrong in it
            bad = [row["loc"] for row in error.errors()]


def _without(tables: dict[str, Any], names: list[Any]) -> dict[str, Any]:
    """Return the tables without one setting; without its table, where it is what the table lacks."""
    head, *rest = names
    inner = tables.get(head)
    if rest and isinstance(inner, dict) and (len(rest) > 1 or rest[0] in inner):
        return {**tables, head: _without(inner, rest)}
    return {key: value for key, value in tables.items() if key != head}


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:  # a device or a pipe may never end
            content = stream.read(_MAX_BYTES + 1)
        if len(content) <= _MAX_BYTES:
            return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read()
        message = f"is larger than {_MAX_BYTES >> 20} MiB, too large to be a spec"
    except FileNotFoundError:
        message = "file not found. Write a first spec with: lora init"
    except IsADirectoryError:
        message = "is a directory; pass the spec file in it"
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start})"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    raise SpecError([Problem(str(file), 1, 1, "", message)])
