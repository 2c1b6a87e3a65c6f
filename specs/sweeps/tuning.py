"""Tuned settings: `{ tune = [...] }` taken out of a document, the candidates of a configuration, and the chosen one."""

from dataclasses import replace
from itertools import product
from typing import Any

from lorafile.specs.checks.sweeps import MAX_POINTS, check_value, factor_error
from lorafile.specs.configurations import Axis, Configuration, RawTables, Tuned, inner_tables, point_name, resolve
from lorafile.specs.error_messages import Problems, show, suggestion
from lorafile.specs.positions import Path
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.tables.train import FullTable

MAX_ADDED = 4  # values beyond each end of what a spec lists
TUNABLE = ("train", "full", *METHODS)
_WHOLE = "set it to the values to try: { tune = [1e-4, 3e-4, 1e-3] }"

Raw = dict[str, Any]
AxesByPlace = dict[Path, list[Axis]]  # by (): tuned in the whole study; else by the place of a sweep or of a point


def extract_axes(raw: Raw, problems: Problems) -> tuple[Raw, AxesByPlace]:
    """Return a document with its first candidate wherever a setting is tuned, and what is tuned where."""
    tuned: AxesByPlace = {}
    document = _with_first_candidates(raw, (), tuned, problems)
    if isinstance(raw.get("sweep"), list):
        document["sweep"] = list(raw["sweep"])
        for number, block in inner_tables(raw, "sweep"):
            place: Path = ("sweep", number)
            document["sweep"][number] = settled = _with_first_candidates(block, place, tuned, problems)
            _check_zip(settled, tuned.get(place, []), problems)
            if isinstance(block.get("configurations"), list):
                settled["configurations"] = list(block["configurations"])
            for index, row in inner_tables(block, "configurations"):
                path = (*place, "configurations", index)
                settled["configurations"][index] = _with_first_candidates(row, path, tuned, problems)
    return _drop_misplaced(document, (), problems), tuned


def axes_of(tuned: AxesByPlace, place: Path, varied: Raw, raw: Raw) -> tuple[Axis, ...]:
    """Return what is tuned in one configuration: what its point or sweep says, then the study, where it applies.

    A number in a sweep wins over candidates in the study's tables, and `[full]` over `[train]` as numbers do.

    :param varied: what the point varies, without what it tunes
    """
    method = varied.get("method", raw.get("method", "lora"))
    own = tuned.get(place, []) if place else []
    axes = {axis.setting: axis for axis in own if _applies_to_method(method, axis)}
    for axis in tuned.get((), []):
        fixed = axis.setting in varied or f"{axis.section}.{axis.name}" in varied or axis.setting in axes
        if _applies_to_method(method, axis) and not fixed and not (method == "full" and _overridden_by_full(axis, raw)):
            axes[axis.setting] = axis
    return tuple(axes.values())


def _applies_to_method(method: Any, axis: Axis) -> bool:
    return method == axis.section or (axis.section == "train" and method != "none")


def _overridden_by_full(axis: Axis, raw: Raw) -> bool:
    """Return whether `[full]` has a value of its own for a setting of `[train]`."""
    if axis.section != "train" or axis.name in raw.get("full", {}):
        return axis.section == "train"
    default = FullTable.model_fields[axis.name].default if axis.name in FullTable.model_fields else None
    return default is not None and raw.get("method") != "full"  # a study that is all full has the rate of [train]


def _with_first_candidates(table: Raw, scope: Path, tuned: AxesByPlace, problems: Problems) -> Raw:
    """Return a copy of a table of tables with the first candidate wherever a setting is tuned."""
    sections = {section: table[section] for section in TUNABLE if isinstance(table.get(section), dict)}
    return {
        **table,
        **{name: _extract_section(part, (*scope, name), scope, tuned, problems) for name, part in sections.items()},
    }


def _extract_section(table: Raw, path: Path, scope: Path, tuned: AxesByPlace, problems: Problems) -> Raw:
    settled: Raw = {}
    for key, value in table.items():
        here = (*path, key)
        if _is_tune(value):
            axis = _parse_axis(value, here, here[len(scope) :], problems)
            if axis is not None:
                tuned.setdefault(scope, []).append(axis)
                in_sweep = len(scope) == 2  # whose own settings are lists
                settled[key] = [axis.values[0]] if in_sweep else axis.values[0]
        else:
            settled[key] = _extract_section(value, here, scope, tuned, problems) if isinstance(value, dict) else value
    return settled


def _is_tune(value: Any) -> bool:
    if not isinstance(value, dict) or "tune" not in value:
        return False
    return isinstance(value["tune"], list) or value.keys() <= {"tune", "extend"}


def _parse_axis(table: Raw, path: Path, names: Path, problems: Problems) -> Axis | None:
    """Return one tuned setting, or note everything that is wrong with it."""
    before, section = len(problems.by_place), str(names[0])
    setting = ".".join(map(str, names))
    wrong = factor_error(setting)
    if wrong:
        problems.add(path, wrong.replace("cannot be swept", "cannot be tuned"))
        return None
    values, extend = table["tune"], table.get("extend", False)
    for name in table.keys() - {"tune", "extend"}:
        hint = suggestion(name, ("tune", "extend")) or "; allowed: tune, extend"
        problems.add((*path, name), f"unknown setting{hint}")
    if not isinstance(values, list):
        problems.add((*path, "tune"), f"should be a list of candidates, not {show(values)}")
        return None
    if len(values) > MAX_POINTS:
        problems.add((*path, "tune"), f"has {len(values):,} candidates, more than {MAX_POINTS:,}")
        return None
    for number, value in enumerate(values):
        check_value(setting, value, (*path, "tune", number), problems)
        if value in values[:number]:
            problems.add((*path, "tune", number), f"{show(value)} is listed twice")
    if len(values) < 2:
        problems.add((*path, "tune"), "needs at least two candidates; write a single value by itself")
    if not isinstance(extend, bool):
        problems.add((*path, "extend"), f"should be true or false, not {show(extend)}")
    varied = setting.replace("full.", "train.", 1) if section == "full" else setting
    axis = Axis(varied, section, tuple(values), extend is True, path)
    if extend is True and not axis.numeric:
        problems.add((*path, "extend"), "continues a range of numbers, and these are not numbers; omit it")
    return axis if len(problems.by_place) == before else None


def _check_zip(block: Raw, axes: list[Axis], problems: Problems) -> None:
    zipped = block.get("zip")
    for axis in axes:
        name = f"{axis.section}.{axis.name}"
        if isinstance(zipped, list) and name in zipped:
            problems.add(axis.path, "is tuned, so it has no values to zip with others; remove it from zip")
        if block.get("match") == "parameters" and axis.setting == "lora.r":
            problems.add(axis.path, 'cannot be tuned in a sweep with match = "parameters", which solves for it')


def _drop_misplaced(value: Any, path: Path, problems: Problems) -> Any:
    """Return a document without what is written as tuned where nothing can be, each place noted."""
    if isinstance(value, list):
        return [_drop_misplaced(item, (*path, number), problems) for number, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and isinstance(inner.get("tune"), list):
            problems.add((*path, key), _misplaced_message((*path, key)))
        elif isinstance(inner, list) and any(map(_is_tune, inner)) and path[:1] == ("sweep",):
            number = next(index for index, item in enumerate(inner) if _is_tune(item))
            problems.add((*path, key, number), f"is one of several candidates; to tune, {_WHOLE}")
            kept[key] = [item for item in inner if not _is_tune(item)]
        else:
            kept[key] = _drop_misplaced(inner, (*path, key), problems)
    return kept


def _misplaced_message(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    if "exclude" in names:
        return "is tuned, so it has no value by which to exclude a point"
    tables = "only settings of [train], [full] and a method's own table can be tuned"
    return f"cannot be tuned: {tables}, in the study's tables or in a sweep. Compare other settings in a sweep"


def combinations(axes: tuple[Axis, ...]) -> list[dict[str, Any]]:
    """Return setting -> value of every candidate: the product of what is tuned."""
    settings = [axis.setting for axis in axes]
    return [dict(zip(settings, row, strict=True)) for row in product(*(axis.tried for axis in axes))]


def with_tuning(
    name: str, varied: dict[str, Any], axes: tuple[Axis, ...], candidates: list[Configuration], raw: RawTables
) -> Configuration:
    """Return the configuration that stands for its candidates; until one is chosen it has the first one's settings."""
    alike = {candidate.identity(): candidate for candidate in reversed(candidates)}  # "2r" and 16 may be one
    kept = tuple(candidate for candidate in candidates if alike[candidate.identity()] is candidate)
    first: Configuration = kept[0]  # mypy takes an element of this tuple for Any
    return first._replace(name=name, varied=varied, tuned=Tuned(axes, kept, varied, raw))


def with_choice(configuration: Configuration, chosen: str) -> Configuration:
    """Return a tuned configuration with the settings of the candidate that was chosen."""
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    winner = next(candidate for candidate in about.candidates if candidate.name == chosen)
    tuned = replace(about, chosen=chosen)
    return winner._replace(name=configuration.name, aliases=configuration.aliases, tuned=tuned)


def with_candidates(configuration: Configuration, place: Path, added: tuple[Any, ...]) -> Configuration:
    """Return a tuned configuration with values added to one of its settings."""
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    axes = tuple(replace(axis, added=added) if axis.path == place else axis for axis in about.axes)
    if axes == about.axes:
        return configuration
    made = []
    for values in combinations(axes):
        name = f"{configuration.name},{point_name(values)}"
        made.append(resolve(name, configuration.sweep, about.raw, {**about.varied, **values}))
    made = [candidate._replace(matched=configuration.matched) for candidate in made]
    again = with_tuning(configuration.name, about.varied, axes, made, about.raw)
    return again._replace(aliases=configuration.aliases)


def next_value(axis: Axis, above: bool) -> Any | None:
    """Return the next value past one end: by the last ratio there, by the last difference where a value is not above 0.

    None where there is none that the setting may have.
    """
    end, inner = (axis.tried[-1], axis.tried[-2]) if above else (axis.tried[0], axis.tried[1])
    exact = end * end / inner if end > 0 and inner > 0 else 2 * end - inner
    steps: list[Any] = [float(f"{exact:.{digits}g}") for digits in (2, 3, 6)]
    if all(isinstance(value, int) for value in axis.values):
        steps = [round(exact), end + 1 if above else end - 1]
    past = [value for value in steps if (value > end if above else value < end)]
    return next((value for value in past if _is_valid(axis, value)), None)


def _is_valid(axis: Axis, value: Any) -> bool:
    problems = Problems("")
    check_value(axis.setting, value, axis.path, problems)
    return not problems.by_place
