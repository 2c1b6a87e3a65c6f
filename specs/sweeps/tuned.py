"""A configuration that is tuned: which of its settings are, its candidates, the next values, and the chosen one."""

from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from lorafile.specs.positions import Path

if TYPE_CHECKING:
    from lorafile.specs.configurations import Configuration, OwnTables

MOST_ADDED = 4  # values beyond each end of what a spec lists


@dataclass(frozen=True)
class Axis:
    """One setting that is tuned.

    :ivar setting: what its candidates vary: `train.learning_rate`, where it is `[full]` that says so, too
    :ivar section: the table that says so
    :ivar where: its place in the spec; the same for all configurations that share the candidates
    :ivar added: values beyond the ends of the listed ones, as the plan added them
    """

    setting: str
    section: str
    values: tuple[Any, ...]
    extend: bool
    where: Path
    added: tuple[Any, ...] = ()

    @property
    def tried(self) -> tuple[Any, ...]:
        """Every value: ascending where they are numbers, as listed otherwise."""
        everything = (*self.values, *self.added)
        return tuple(sorted(everything)) if self.numeric else everything

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, which have an order and can be continued."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def name(self) -> str:
        """The setting without its table: `learning_rate`."""
        return self.setting.rpartition(".")[2]

    def added_beyond(self, above: bool) -> int:
        """Return how many values the plan added at one end."""
        listed = sorted(self.values)
        return sum(value > listed[-1] if above else value < listed[0] for value in self.added)


@dataclass(frozen=True)
class Tuned:
    """What belongs to a tuned configuration.

    :ivar varied: what the configuration varies itself, without what is tuned
    :ivar raw: the spec's own tables, from which further candidates are resolved
    :ivar chosen: the name of the candidate that was chosen; empty until then
    """

    axes: tuple[Axis, ...]
    candidates: "tuple[Configuration, ...]"
    varied: dict[str, Any]
    raw: "OwnTables" = field(repr=False, compare=False)
    chosen: str = ""

    def values(self, candidate: "Configuration") -> dict[str, Any]:
        """Return setting -> its value in a candidate."""
        return {axis.setting: candidate.varied[axis.setting] for axis in self.axes}

    def tried(self, setting: str) -> tuple[Any, ...]:
        """Return the values of a setting that are tried; none where it is not tuned."""
        return next((axis.tried for axis in self.axes if axis.setting == setting), ())

    @property
    def settings(self) -> str:
        """What is tuned, in words: `learning_rate and lora_dropout`."""
        return " and ".join(axis.name for axis in self.axes)


def combinations(axes: tuple[Axis, ...]) -> list[dict[str, Any]]:
    """Return setting -> value of every candidate: the product of what is tuned."""
    return [
        dict(zip([axis.setting for axis in axes], row, strict=True)) for row in product(*(axis.tried for axis in axes))
    ]


def tuned(
    name: str, varied: dict[str, Any], axes: tuple[Axis, ...], candidates: "list[Configuration]", raw: "OwnTables"
) -> "Configuration":
    """Return the configuration that stands for its candidates; until one is chosen it has the first one's settings."""
    alike = {candidate.identity(): candidate for candidate in reversed(candidates)}  # "2r" and 16 may be one
    kept = tuple(candidate for candidate in candidates if alike[candidate.identity()] is candidate)
    first: Configuration = kept[0]
    return first._replace(name=name, varied=varied, tuned=Tuned(axes, kept, varied, raw))


def settled(configuration: "Configuration", chosen: str) -> "Configuration":
    """Return a tuned configuration with the settings of the candidate that was chosen."""
    about = configuration.tuned
    assert about is not None  # noqa: S101  (asked of tuned configurations only)
    winner = next(candidate for candidate in about.candidates if candidate.name == chosen)
    own = replace(about, chosen=chosen)
    return winner._replace(name=configuration.name, aliases=configuration.aliases, tuned=own)


def extended(configuration: "Configuration", where: Path, added: tuple[Any, ...]) -> "Configuration":
    """Return a tuned configuration with values added to one of its settings."""
    from lorafile.specs.configurations import point_name, resolve

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
    again = tuned(configuration.name, about.varied, axes, made, about.raw)
    return again._replace(aliases=configuration.aliases)


def beyond(axis: Axis, above: bool) -> Any | None:
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
    from lorafile.specs.checks.sweeps import check_value
    from lorafile.specs.error_messages import Problems

    problems = Problems("")
    check_value(axis.setting, value, axis.where, problems)
    return not problems.found


def _past(value: float, end: float, above: bool) -> bool:
    return value > end if above else value < end
