"""The checks of `train.from`: the configuration that is named exists, trains, and is not what starts from it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from lorafile.specs.checks.trainers import named_in_train
from lorafile.specs.configurations import Configuration
from lorafile.specs.error_messages import Problems, show, suggestion
from lorafile.specs.tables.train import START
from lorafile.specs.tables.trainer import BUILTIN
from lorafile.units import listing

_SHOWN = 8  # names of a study's configurations


def by_name(configurations: Iterable[Configuration]) -> dict[str, Configuration]:
    """Return every configuration and candidate under each of its names."""
    named: dict[str, Configuration] = {}
    for configuration in configurations:
        candidates = configuration.tuned.candidates if configuration.tuned else ()
        for each in (*candidates, configuration):
            named |= dict.fromkeys((each.name, *each.aliases), each)
    return named


def check_starts(raw: dict[str, Any], configurations: Sequence[Configuration], problems: Problems) -> None:
    """Check every configuration that starts from another one's adapter."""
    if not any(c.train is not None and c.train.start for c in _every(configurations)):
        return
    places = {name: path for path, name in reversed([*named_in_train(raw, START)]) if isinstance(name, str)}
    named = by_name(configurations)
    for configuration in _every(configurations):
        name = configuration.train.start if configuration.train else ""
        if name and (wrong := _wrong(configuration, name, named)):
            problems.add(places.get(name, ("train", START)), wrong)


def _every(configurations: Sequence[Configuration]) -> Iterator[Configuration]:
    """Yield what is trained: each configuration, or the candidates of one that is tuned."""
    return chain.from_iterable(c.tuned.candidates if c.tuned else (c,) for c in configurations)


def _wrong(configuration: Configuration, name: str, named: dict[str, Configuration]) -> str:
    """Return why a configuration cannot start from the one of a name, or nothing."""
    source = named.get(name)
    if source is None:
        names = [other for other in named if other != configuration.name]
        others = f"; there is: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
        others = others if names else "; the study has no other one"
        return f'there is no configuration named "{name}"{suggestion(name, names) or others}'
    if source.train is None:
        return f'"{name}" is the untuned model and has no adapter to start from'
    if source.tuned is not None:
        candidate = source.tuned.candidates[0].name
        return (
            f'"{name}" is tuned, and which of its candidates is chosen is known only later; name one of them, such as '
            f"{show(candidate)}"
        )
    circle = _circle(configuration, named)
    if circle == [configuration.name]:
        return f'"{configuration.name}" would start from itself; set train.from only where another one starts from it'
    if circle:
        return f"{listing(circle)} would start from each other in a circle; one of them has to begin with a new adapter"
    if configuration.train is not None and configuration.train.init_seed is not None:
        return "nothing is drawn for an adapter that starts from another one; omit train.init_seed"
    trainer = source.train.trainer
    if trainer != BUILTIN:
        return f'"{name}" is trained by [trainer.{trainer}]; only adapters of the built-in loop can be started from'
    return ""


def _circle(configuration: Configuration, named: dict[str, Configuration]) -> list[str]:
    """Return the names of the circle of starts that a configuration is in; none where it is in none."""
    passed: list[str] = []
    current: Configuration | None = configuration
    while current is not None and current.name not in passed:
        passed.append(current.name)
        current = named.get(current.train.start) if current.train and current.train.start else None
    return passed if current is not None and current.name == configuration.name else []
