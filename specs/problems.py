"""Turn what pydantic and the checks of a spec complain about into located sentences."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from lorafile.errors import Problem
from lorafile.specs.positions import Path, Position, locate
from lorafile.specs.settings import SpecTables
from lorafile.specs.snapshot import NOT_YET, LoraSettings

_SECTIONS: dict[str, type[BaseModel]] = {
    name: info.annotation
    for name, info in SpecTables.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
}
_SECTIONS["lora"] = LoraSettings
_LENIENT = {"list_type": "a list", "int_type": "a whole number", "float_type": "a number", "string_type": "a text"}


@dataclass
class Problems:
    """Collects every mistake of one spec, each where it stands."""

    file: str
    known: dict[Path, Position] = field(default_factory=dict)
    found: dict[tuple[Path, str], Problem] = field(default_factory=dict)

    def add(self, path: Path, message: str) -> None:
        """Note a mistake at a path of the document."""
        line, column = locate(self.known, path)
        self.found.setdefault((path, message), Problem(self.file, line, column, dotted(path), message))

    def add_validation(self, error: ValidationError, raw: Any, prefix: Path = ()) -> None:
        """Note every error of a pydantic validation; the branches of a union make one message."""
        by_path: dict[Path, list[Any]] = {}
        for row in error.errors():
            by_path.setdefault(_real_path(row, raw), []).append(row)
        for path, rows in by_path.items():
            self.add((*prefix, *path), _sentence(rows, (*prefix, *path)))

    def list(self) -> list[Problem]:
        """Return what was found."""
        return list(self.found.values())


def dotted(path: Path) -> str:
    """Return a path as users write it: `sweep[0].lora.r[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def near(word: str, allowed: list[str]) -> str:
    """Return `; did you mean "…"?` for a near name, or nothing."""
    close = get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def unknown_setting(path: Path) -> str:
    """Return what to say of a setting that does not exist: what is near, where it belongs, what is allowed."""
    name = str(path[-1])
    section = str(path[0]) if len(path) > 1 else ""
    if section == "lora" and name in NOT_YET:
        return "is a setting of peft.LoraConfig that this version cannot train with"
    allowed = list(_SECTIONS[section].model_fields) if section in _SECTIONS else list(SpecTables.model_fields)
    close = near(name, allowed)
    elsewhere = [other for other, table in _SECTIONS.items() if other != section and name in table.model_fields]
    if not close and elsewhere:
        return f"unknown setting; it belongs in [{elsewhere[0]}]"
    return f"unknown setting{close or '; allowed: ' + ', '.join(allowed)}"


def _real_path(row: Any, raw: Any) -> Path:
    """Return an error's path without the names that pydantic adds for the branches of a union."""
    path: list[str | int] = []
    here = raw
    parts = row["loc"]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            here = here[part]
            path.append(part)
        elif last and row["type"] in ("missing", "extra_forbidden"):
            path.append(part)
    return tuple(path)


def _sentence(rows: list[Any], path: Path) -> str:
    kinds = {row["type"] for row in rows}
    if "extra_forbidden" in kinds:
        return unknown_setting(path)
    if kinds == {"missing"}:
        return "is required"
    got = rows[0]["input"]
    parts = list(dict.fromkeys(_expectation(row) for row in rows))
    words = [word for row in rows if row["type"] == "literal_error" for word in _choices(row)]
    close = near(got, words) if isinstance(got, str) else ""
    return f"should be {' or '.join(parts)}, not {_show(got)}{close}"


def _choices(row: Any) -> list[str]:
    expected = str(row["ctx"]["expected"]).replace(" or ", ", ")
    return [word.strip().strip("'") for word in expected.split(",")]


def _expectation(row: Any) -> str:
    if row["type"] in _LENIENT:
        return _LENIENT[row["type"]]
    if row["type"] in ("model_type", "dict_type"):
        return "a table"
    if row["type"] == "literal_error":
        return "one of " + ", ".join(f'"{word}"' for word in _choices(row))
    return str(row["msg"]).removeprefix("Input should be ").removeprefix("String should ").removeprefix("Value error, ")


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 80 else text[:77] + "…"
