"""What ships by name: settings of well-known data sets, with their licences, and presets, which are whole studies."""

from functools import cache
from importlib.resources import files
from typing import Any

import tomli

from lorafile.errors import LoraError
from lorafile.units import did_you_mean

PREFIX = "catalogue:"
_PRESETS = files("lorafile.specs") / "presets"


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Return name -> settings of `[data]`, and two tables.

    `evaluate`, where a set has one: settings of `[evaluate]` that fit its answers; `about`: what, licence, source,
    metrics, perhaps a note.
    """
    return tomli.loads((files("lorafile.specs") / "catalogue.toml").read_text(encoding="utf-8"))


def entry_name(path: Any) -> str | None:
    """Return the entry that a path names: `catalogue:gsm8k`, or `gsm8k`; a directory of that name is `./gsm8k`."""
    name = path.removeprefix(PREFIX) if isinstance(path, str) else None
    return name if name in catalogue() else None


def with_catalogue_settings(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table `[data]` with the settings of the entry that it names by path or by `like`, its own on top.

    A local copy has neither the hub's name of a configuration nor its path; a template takes the place of a format.
    """
    named = entry_name(table.get("path"))
    entry = named or entry_name(table.get("like"))
    if entry is None:
        return table
    settings = {key: value for key, value in catalogue()[entry].items() if key not in ("about", "evaluate")}
    if named is None:
        settings = {key: value for key, value in settings.items() if key not in ("path", "name")}
    if "template" in table and settings["format"] not in ("classification", "squad"):
        settings = {key: value for key, value in settings.items() if key not in ("format", "columns")}
    if table.get("format", settings.get("format")) != settings.get("format"):
        settings = {key: value for key, value in settings.items() if key in ("path", "name", "split")}
    own = {key: value for key, value in table.items() if not (key == "path" and named)}
    return {**settings, **own, "like": entry}


def evaluation(entry: str | None, form: str, templated: bool) -> dict[str, Any]:
    """Return the settings of `[evaluate]` that fit the answers of a set.

    What ends an answer is of the set's own prompt, and left out where the spec writes another one.

    :param form: the spec's `data.format`; `templated`: whether it has a template of its own
    """
    if entry is None:
        return {}
    settings: dict[str, Any] = catalogue()[entry].get("evaluate", {})
    other_prompt = templated or form != catalogue()[entry]["format"]
    return {key: value for key, value in settings.items() if not (other_prompt and key == "stop_strings")}


def licence(entry: str | None) -> str | None:
    """Return the licence of an entry, or None for data that are none."""
    return str(catalogue()[entry]["about"]["licence"]) if entry else None


class PresetError(LoraError):
    """A command line names a preset that does not exist."""

    exit_code = 64


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(file.name.removesuffix(".toml") for file in _PRESETS.iterdir() if file.name.endswith(".toml"))


def preset(name: str) -> str:
    """Return a preset as TOML text.

    :raises PresetError: when there is none of that name
    """
    names = preset_names()
    if name not in names:
        hint = did_you_mean(name.replace("-", "_"), names)
        raise PresetError(f'There is no preset "{name}"{f"; {hint}" if hint else "."} Presets: {", ".join(names)}.')
    return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")
