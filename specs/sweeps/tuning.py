"""Tuned settings: the candidates of a configuration, the next value past an end, and the configuration once chosen."""

from dataclasses import replace
from itertools import product
from typing import Any

from lorafile.specs.checks.sweeps import check_value
from lorafile.specs.configurations import Axis, Configuration, OwnTables, Tuned, point_name, resolve
from lorafile.specs.error_messages import Problems
from lorafile.specs.positions import Path

MOST_ADDED = 4  # values beyond each end of what a spec lists


def combinations(axes: tuple[Axis, ...]) -> list[dict[str, Any]]:
    """Return setting -> value of every candidate: the product of what is tuned."""
    return [
        dict(zip([axis.setting for axis in axes], row, strict=True)) for row in product(*(axis.tried for axis in axes))
    ]


def with_tuning(
    name: str, varied: dict[str, Any], axes: tuple[Axis, ...], candidates: list[Configuration], raw: OwnTables
) -> Configuration:
    """Return the configuration that stands for its candidates; until one is chosen it has the first one's settings."""
    alike = {candidate.identity(): candidate for candidate in reversed(candidates)}  # "2r" and 16 may be one
    kept = tuple(candidate for candidate in candidates if alike[candidate.identity()] is candidate)
    return kept[0]._replace(name=name, varied=varied, tuned=Tuned(axes, kept, varied, raw))


def with_choice(configuration: Configuration, chosen: str) -> Configuration:
    """Return a tuned configuration with the settings of the candidate that was chosen."""
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    winner = next(candidate for candidate in about.candidates if candidate.name == chosen)
    own = replace(about, chosen=chosen)
    return winner._replace(name=configuration.name, aliases=configuration.aliases, tuned=own)


def with_candidates(configuration: Configuration, where: Path, added: tuple[Any, ...]) -> Configuration:
    """Return a tuned configuration with values added to one of its settings."""
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    axes = tuple(replace(axis, added=added) if axis.where == where else axis for axis in about.axes)
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
    return next((value for value in steps if _past(value, end, above) and _valid(axis, value)), None)


def _valid(axis: Axis, value: Any) -> bool:
    problems = Problems("")
    check_value(axis.setting, value, axis.where, problems)
    return not problems.found


def _past(value: float, end: float, above: bool) -> bool:
    return value > end if above else value < end
