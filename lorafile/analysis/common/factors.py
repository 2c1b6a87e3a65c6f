"""What varies in a study: the members of its sweeps, the settings in which they differ, and what these are called."""

from functools import lru_cache
from typing import Any

from lorafile.analysis.common.format import setting
from lorafile.analysis.common.scores import FIXED
from lorafile.results.results import Results, cells, missing, rows_of
from lorafile.specs.tables.methods import METHODS


def sweeps(results: Results) -> dict[str, dict[str, str]]:
    """Return sweep -> {configuration: its name within the sweep}, aliases included, in the spec's order.

    A configuration that two sweeps name stands in the first one's rows; the second sweep needs it just as much.
    """
    table = results.configurations
    rows = [
        (name, str(sweep or ""), aliases)
        for name, sweep, aliases in zip(results.names, cells(table, "sweep"), cells(table, "aliases"), strict=True)
    ]
    members: dict[str, dict[str, str]] = {sweep: {} for _, sweep, _ in rows}
    for name, sweep, aliases in rows:
        members[sweep][name] = name.removeprefix(f"{sweep}/") if sweep else name
        for alias in aliases if isinstance(aliases, (list, tuple)) else []:
            owners = (other for other in members if other and alias.startswith(f"{other}/"))
            other = next(owners, alias.partition("/")[0])
            members.setdefault(other, {}).setdefault(name, alias.removeprefix(f"{other}/") if other else alias)
    return members


def full_name(sweep: str, short: str) -> str:
    """Return the name that a sweep gives a configuration, from its name within the sweep."""
    return f"{sweep}/{short}" if sweep else short


def settings_of(results: Results) -> list[str]:
    """Return the settings of which the study's configurations have values."""
    return [str(name) for name in results.configurations.columns if name not in FIXED]


def factors(results: Results, among: list[str] | None = None) -> list[str]:
    """Return the settings that vary among configurations (default: all of the study's), `method` included.

    What is tuned in each that has it follows from the others: it is a result, and no factor.
    """
    chosen = tuned(results)
    varying = []
    for factor in settings_of(results):
        labels = setting_labels(results, factor, among)
        if len(set(labels.values())) > 1 and not all(factor in chosen[name] for name in labels):
            varying.append(factor)
    return varying


@lru_cache(maxsize=8)
def tuned(results: Results) -> dict[str, list[str]]:
    """Return configuration -> the settings whose value was chosen on validation, or is not yet; not to be changed."""
    return {name: list(settings or []) for name, settings in results.setting("tuned").items()}


def selected_on_validation(results: Results) -> list[str]:
    """Return the configurations whose runs ended at, or kept, the step that was best on validation."""
    selected = rows_of(results.runs, "configuration", "selected_on")
    return list(dict.fromkeys(str(name) for name, split in selected if split == "validation"))


def setting_values(results: Results, factor: str, among: list[str] | None = None) -> dict[str, Any]:
    """Return configuration -> its value of a setting, for those that the setting applies to."""
    every = _setting_values(results, factor)
    return dict(every) if among is None else {name: every[name] for name in among if name in every}


@lru_cache(maxsize=256)
def _setting_values(results: Results, factor: str) -> dict[str, Any]:
    methods = results.methods
    values = dict(zip(methods, cells(results.configurations, factor), strict=True))
    return {name: value for name, value in values.items() if _applies(factor, methods[name])}


def setting_labels(results: Results, factor: str, among: list[str] | None = None) -> dict[str, str]:
    """Return configuration -> its value of a setting as a label."""
    every = _setting_labels(results, factor)
    return dict(every) if among is None else {name: every[name] for name in among if name in every}


@lru_cache(maxsize=256)
def _setting_labels(results: Results, factor: str) -> dict[str, str]:
    return {name: label(factor, value) for name, value in _setting_values(results, factor).items()}


def equal_settings(results: Results, factor: str, among: list[str] | None = None) -> dict[str, dict[str, str]]:
    """Return what makes two configurations equal apart from a factor: setting -> configuration -> its value as a label.

    A rank that was solved for equal parameters, and the alpha that follows from it, are settings as if written.
    """
    labels = {other: setting_labels(results, other, among) for other in factors(results) if other != factor}
    if factor == "lora.r":
        return labels  # what was solved is the factor itself
    for solved, written in (("rank", "lora.r"), ("alpha", "lora.lora_alpha")):
        values = results.setting(solved)
        if written not in (factor, *labels) and any(value is not None for value in values.values()):
            labels[written] = {name: label(written, values[name]) for name in among or values}
    return labels


def label(factor: str, value: Any) -> str:
    """Return a setting's value as a short text; peft adapts every layer where none is named."""
    if missing(value):
        return "all" if factor.endswith(".layers_to_transform") else "default"
    return setting(value)


def _applies(factor: str, method: str) -> bool:
    section = factor.partition(".")[0]
    return method == section if section in METHODS else method != "none" or not factor.startswith("train.")
