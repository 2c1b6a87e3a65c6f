"""The learning rate schedules of `train.lr_scheduler_type`, by transformers' names: their own settings, and the rates.

Imports no torch: the rates that another trainer logged are compared with these.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from lorafile.specs.optimizers import Row
from lorafile.units import did_you_mean

DEFAULT_SCHEDULE = "linear"
ScheduleName = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
]
Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """A point of a schedule.

    :ivar step: optimizer steps that were taken; `warmup`: those in which the rate rises; `total`: of the run
    :ivar peak: `train.learning_rate`
    """

    step: int
    warmup: int
    total: int
    peak: float

    @property
    def rise(self) -> float:
        """The share of the peak in a linear warm-up."""
        return self.step / max(1, self.warmup)

    @property
    def after(self) -> float:
        """The share of the steps after the warm-up that were taken."""
        return (self.step - self.warmup) / max(1, self.total - self.warmup)


@dataclass(frozen=True)
class Argument:
    """A setting in `train.lr_scheduler_kwargs`.

    :ivar kind: `int`, `float`, or the words that it may be
    :ivar least: its smallest value; `above`: whether it has to be larger than that
    :ivar most: its largest value
    """

    kind: type[int] | type[float] | tuple[str, ...]
    default: Any = None
    least: float = 0
    above: bool = False
    most: float = math.inf


@dataclass(frozen=True)
class Schedule:
    """A schedule that a study may name.

    :ivar factor: the learning rate as a multiple of its peak
    :ivar required: its own settings of which exactly one has to be set
    """

    factor: Callable[[Progress, Kwargs], float]
    note: str
    arguments: dict[str, Argument] = field(default_factory=dict)
    required: tuple[str, ...] = ()


def _linear(now: Progress, _: Kwargs) -> float:
    return now.rise if now.step < now.warmup else max(0.0, 1 - now.after)


def _wave(cycles: float, progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * cycles * 2 * progress))


def _cosine(now: Progress, own: Kwargs) -> float:
    return now.rise if now.step < now.warmup else max(0.0, _wave(own["num_cycles"], now.after))


def _restarts(now: Progress, own: Kwargs) -> float:
    if now.step < now.warmup:
        return now.rise
    return 0.0 if now.after >= 1 else max(0.0, _wave(0.5, (own["num_cycles"] * now.after) % 1))


def _polynomial(now: Progress, own: Kwargs) -> float:
    if now.step < now.warmup:
        return now.rise
    last = own["lr_end"] / now.peak
    left = 1 - (now.step - now.warmup) / max(1, now.total - now.warmup)
    return float(last if now.step > now.total else (1 - last) * left ** own["power"] + last)


def _constant(_now: Progress, _: Kwargs) -> float:
    return 1.0


def _constant_with_warmup(now: Progress, _: Kwargs) -> float:
    return now.rise if now.step < now.warmup else 1.0


def _inverse_sqrt(now: Progress, own: Kwargs) -> float:
    if now.step < now.warmup:
        return now.rise
    scale = own["timescale"] or now.warmup or 10_000
    return 1 / math.sqrt((now.step + scale - now.warmup) / scale)


def _least(now: Progress, own: Kwargs) -> float:
    """Return the lowest rate of a schedule as a multiple of the peak."""
    return own["min_lr"] / now.peak if own["min_lr"] is not None else float(own["min_lr_rate"])


def _between(wave: float, least: float) -> float:
    return max(0.0, wave * (1 - least) + least)


def _cosine_with_min(now: Progress, own: Kwargs) -> float:
    return now.rise if now.step < now.warmup else _between(_wave(own["num_cycles"], now.after), _least(now, own))


def _warmup_with_min(now: Progress, own: Kwargs) -> float:
    first = own["warmup_lr_rate"]
    if now.step < now.warmup:
        if first is None:
            return (now.step + 1) / max(1, now.warmup)
        return float(first + (1 - first) * now.step / max(1, now.warmup - 1))
    progress = (now.step - now.warmup + 1) / max(1, now.total - now.warmup)
    return _between(_wave(own["num_cycles"], progress), _least(now, own))


_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: _wave(0.5, progress),
    "1-sqrt": lambda progress: 1 - math.sqrt(progress),
}


def _stable(now: Progress, own: Kwargs) -> float:
    decay, least = own["num_decay_steps"], own["min_lr_ratio"]
    stable = own["num_stable_steps"]
    stable = now.total - now.warmup - decay if stable is None else stable
    if now.step < now.warmup:  # a decay run backwards
        return _between(_SHAPES[own["warmup_type"]](1 - now.rise), least)
    if now.step < now.warmup + stable:
        return 1.0
    if now.step >= now.warmup + stable + decay:
        return float(least)
    progress = (now.step - now.warmup - stable) / max(1, decay)
    wave = _wave(own["num_cycles"], progress) if own["decay_type"] == "cosine" else _SHAPES[own["decay_type"]](progress)
    return _between(wave, least)


_HALF = {"num_cycles": Argument(float, 0.5, above=True)}
_LOWEST = {"min_lr": Argument(float), "min_lr_rate": Argument(float, most=1)}
SCHEDULES: dict[str, Schedule] = {
    "linear": Schedule(_linear, "falls to zero"),
    "cosine": Schedule(_cosine, "half a cosine, to zero", _HALF),
    "cosine_with_restarts": Schedule(
        _restarts, "half a cosine, `num_cycles` times", {"num_cycles": Argument(int, 1, above=True)}
    ),
    "polynomial": Schedule(
        _polynomial,
        "falls to `lr_end`",
        {"lr_end": Argument(float, 1e-7), "power": Argument(float, 1.0, above=True)},
    ),
    "constant": Schedule(_constant, "no warm-up"),
    "constant_with_warmup": Schedule(_constant_with_warmup, "constant after the warm-up"),
    "inverse_sqrt": Schedule(
        _inverse_sqrt, "falls with the root of the steps", {"timescale": Argument(int, above=True)}
    ),
    "cosine_with_min_lr": Schedule(
        _cosine_with_min, "half a cosine, to a lowest rate", _LOWEST | _HALF, ("min_lr", "min_lr_rate")
    ),
    "cosine_warmup_with_min_lr": Schedule(
        _warmup_with_min,
        "half a cosine, to a lowest rate; the warm-up does not begin at zero",
        _LOWEST | _HALF | {"warmup_lr_rate": Argument(float, most=1)},
        ("min_lr", "min_lr_rate"),
    ),
    "warmup_stable_decay": Schedule(
        _stable,
        "constant, then falls in the last `num_decay_steps`",
        {
            "num_decay_steps": Argument(int, above=True),
            "num_stable_steps": Argument(int),
            "warmup_type": Argument(tuple(_SHAPES), "linear"),
            "decay_type": Argument(tuple(_SHAPES), "cosine"),
            "min_lr_ratio": Argument(float, 0.0, most=1),
            **_HALF,
        },
        ("num_decay_steps",),
    ),
}


def schedule_rows() -> list[Row]:
    """Return a line for each schedule: its own settings, and how the rate goes."""
    rows = []
    for name, schedule in SCHEDULES.items():
        needs = f"needs {' or '.join(schedule.required)}" if schedule.required else ""
        others = ", ".join(other for other in schedule.arguments if other not in schedule.required)
        rows.append(Row(name, "; ".join(filter(None, (needs, others))), schedule.note))
    return rows


def own_settings(name: str, given: Kwargs) -> Kwargs:
    """Return the settings of a schedule that differ from their defaults, each number as transformers computes it."""
    arguments = SCHEDULES[name].arguments
    kinds = {key: argument.kind for key, argument in arguments.items()}
    typed = {key: float(value) if kinds[key] is float and type(value) is int else value for key, value in given.items()}
    return {key: value for key, value in sorted(typed.items()) if value != arguments[key].default}


def factor(name: str, given: Kwargs, now: Progress) -> float:
    """Return the learning rate at a step, as a multiple of its peak. Source: `transformers.optimization`."""
    schedule = SCHEDULES[name]
    own = {key: argument.default for key, argument in schedule.arguments.items()} | given
    return float(schedule.factor(now, own))


def wrong_settings(name: str, given: Kwargs, peak: float) -> str:
    """Return what is wrong with a schedule's own settings, or nothing."""
    schedule = SCHEDULES[name]
    for key, value in given.items():
        argument = schedule.arguments.get(key)
        if argument is None:
            names = ", ".join(schedule.arguments)
            there = did_you_mean(key, schedule.arguments, f"it has {names}" if names else "it has none")
            return f'lr_scheduler_type = "{name}" has no setting "{key}"; {there}'
        if expected := _expected(argument, value):
            return f'"{key}" should be {expected}, not {value!r}'.replace("'", '"')
    required = [key for key in schedule.required if given.get(key) is not None]
    if schedule.required and len(required) != 1:
        what = " or ".join(schedule.required)
        return f'lr_scheduler_type = "{name}" needs {what}{"" if not required else ", not both"}'
    for key in ("lr_end", "min_lr"):
        lowest = given.get(key, schedule.arguments[key].default if key in schedule.arguments else None)
        if lowest is not None and not lowest < peak:
            return f"{key} = {lowest:g} should be below the learning rate, {peak:g}"
    return ""


def _expected(argument: Argument, value: Any) -> str:
    """Return what a setting should be, where it is not."""
    if isinstance(argument.kind, tuple):
        return "" if value in argument.kind else "one of " + ", ".join(f'"{word}"' for word in argument.kind)
    kinds = (int,) if argument.kind is int else (int, float)
    number = "a whole number" if argument.kind is int else "a number"
    bounds = f"{'above' if argument.above else 'of at least'} {argument.least:g}"
    bounds += f" and at most {argument.most:g}" if argument.most < math.inf else ""
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    fits = fits and (value > argument.least if argument.above else value >= argument.least) and value <= argument.most
    return "" if fits else f"{number} {bounds}"
