"""What state has measured corrects the arithmetic: ratios of measured to computed, with how far they scatter."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lorafile.files.digests import json_digest
from lorafile.graph.graph import Graph, GraphNode
from lorafile.plan.forecast.devices import Device
from lorafile.plan.forecast.memory import peak_bytes
from lorafile.plan.forecast.shape import Shape, Shapes
from lorafile.plan.forecast.time import seconds
from lorafile.state import Attempt

ARITHMETIC = 5  # raised when memory or time are computed otherwise: what was compared with the former corrects nothing
TIME_SPREADS = ("generate_spread", "merged_generate_spread", "base_generate_spread")
STEADY = 0.5  # of 16 profiles on two idle cores the largest was 0.31; of 8 next to two busy processes the smallest 0.76
_UNMEASURED = 3.0  # the arithmetic alone may be off by this factor, either way
_ONE_RUN = 1.25  # so far a second run may be from a single one
_PROGRAM = "program"
_NORMAL = 1.2816  # four of five runs fall within


@dataclass(frozen=True)
class Correction:
    """A factor on a figure of the arithmetic, the factors between which four of five fall, and from how many runs."""

    factor: float = 1.0
    low: float = 1 / _UNMEASURED
    high: float = _UNMEASURED
    runs: int = 0

    @property
    def source(self) -> str:
        """Where the forecast is from."""
        return f"calibrated on {self.runs} run{'s' if self.runs > 1 else ''}" if self.runs else "analytic"


def undisturbed(attempt: Attempt) -> bool:
    """Return whether its time is that of the planned work alone: to the end, in one go, and not on a busy machine."""
    spreads = [attempt.figures.get(name) or 0.0 for name in TIME_SPREADS]
    cut = "resumed_from" in attempt.figures or attempt.figures.get("ended_by") == "early stopping"
    return not cut and max(spreads) <= STEADY


def correction(ratios: list[float]) -> Correction:
    """Return the median ratio; its interval is of one further run, log-normal."""
    if not ratios:
        return Correction()
    middle = statistics.median(ratios)
    spread = math.log(_ONE_RUN)
    if len(ratios) > 1:
        spread = _NORMAL * statistics.stdev(math.log(ratio) for ratio in ratios) * math.sqrt(1 + 1 / len(ratios))
    return Correction(middle, middle * math.exp(-spread), middle * math.exp(spread), len(ratios))


def group_of(node: GraphNode, shape: Shape) -> str:
    """Return what runs share that are off by a like factor: kind, what they make, method, model, quantization."""
    made = f"{node.kind} {node.settings.get('task', {}).get('output', '')}".strip()
    if "trainer" in node.settings:  # what one program takes says nothing of another, nor of the built-in loop
        made = f"{_PROGRAM} {_program_digest(node.settings['trainer'])}"
    weights = str(node.settings.get("model", {}).get("weights", ""))[:12]
    return "/".join([made, shape.method, weights, "quantized" if node.settings.get("quantization") else "plain"])


_digests: dict[int, tuple[Any, str]] = {}  # id of a section -> it, and its digest: thousands of nodes share one


def _program_digest(section: dict[str, Any]) -> str:
    if id(section) not in _digests:
        content = {name: section[name] for name in ("command", "files", "requirements")}
        _digests[id(section)] = (section, json_digest(content, sort_keys=True)[:16])
    return _digests[id(section)][1]


def computed(graph: Graph, node: GraphNode, results: dict[str, Attempt], target: Device) -> dict[str, Any]:
    """Return what a finished node keeps of the arithmetic, so that its measurement corrects later forecasts.

    It is computed from the lengths that the examples have by now: what the plan said of them may have been a guess.
    """
    shape = Shapes(graph, results).of(node)
    if shape is None:
        return {}
    return {
        "group": group_of(node, shape),
        "analytic_seconds": seconds(node, shape, target),
        "analytic_bytes": peak_bytes(node, shape, target.gpu),
        "arithmetic": ARITHMETIC,
    }


@dataclass
class Corrections:
    """All that state knows of one device: time by group, by what is made, and by kind; memory by group alone."""

    time: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, attempts: Iterable[Attempt], device: str) -> "Corrections":
        """Return what the attempts of one device tell: each keeps what the arithmetic says of it."""
        corrections = cls()
        for attempt in attempts:
            comparable = attempt.forecast.get("arithmetic") == ARITHMETIC
            if comparable and attempt.outcome == "done" and attempt.device == device:
                corrections._add(attempt, attempt.forecast)
        return corrections

    def _add(self, attempt: Attempt, forecast: dict[str, Any]) -> None:
        took = attempt.seconds + attempt.figures.get("seconds_before", 0.0)
        if forecast.get("analytic_seconds") and took > 0 and undisturbed(attempt):
            for name in dict.fromkeys(_names(forecast["group"])):
                self.time.setdefault(name, []).append(took / forecast["analytic_seconds"])
        peak = peak_of(attempt)
        if forecast.get("analytic_bytes") and peak:
            name = step_of(forecast["group"])
            self.memory.setdefault(name, []).append(peak / forecast["analytic_bytes"])

    def of_time(self, group: str) -> Correction:
        """Return the correction of a node's time: of its like, of what makes the same, of its kind, of training."""
        return next((correction(self.time[name]) for name in _fallbacks(group) if name in self.time), correction([]))

    def of_memory(self, group: str) -> Correction:
        """Return the correction of a node's peak memory, from profiles of its like."""
        return correction(self.memory.get(step_of(group), []))


def step_of(group: str) -> str:
    """Return what of a group decides the memory of a step: method, model and quantization, and a program if it is one.

    Whatever the kind: a profile takes the same steps as a run.
    """
    return group if group.startswith(f"{_PROGRAM} ") else group.partition("/")[2]


def _fallbacks(group: str) -> tuple[str, ...]:
    """Return the names under which times are kept that say something of a group, the best first."""
    return _names(group) if group.startswith(f"{_PROGRAM} ") else (*_names(group), "train")


def _names(group: str) -> tuple[str, ...]:
    """Return what a group's times are kept under: itself, what it makes, its kind; of a program not the kind."""
    made = group.partition("/")[0]
    return (group, made) if made.startswith(f"{_PROGRAM} ") else (group, made, made.partition(" ")[0])


def peak_of(attempt: Attempt) -> int:
    """Return the peak memory that a profile measured while it trained; of an untuned model while it evaluated.

    Of a program it is that of all of its processes in a run.

    On a GPU it is what was allocated, on a CPU the resident size of the worker.
    """
    what = "reserved" if attempt.device == "cpu" else "allocated"
    if attempt.kind == "train" and attempt.device == "cpu" and "trainer" in attempt.figures:
        return int(attempt.figures.get("process_peak_bytes") or 0)
    return int(attempt.figures.get(f"train_{what}_bytes") or attempt.figures.get(f"evaluate_{what}_bytes") or 0)


def errors(attempts: Iterable[Attempt]) -> dict[str, list[float]]:
    """Return how far forecasts were off, as shares of what was measured: of `time`, and of peak `memory`."""
    shares: dict[str, list[float]] = {"time": [], "memory": []}
    for attempt in attempts:
        forecast = attempt.forecast
        if attempt.outcome != "done":
            continue
        took = attempt.seconds + attempt.figures.get("seconds_before", 0.0)
        if "seconds" in forecast and "analytic_seconds" in forecast and took > 0:
            shares["time"].append(forecast["seconds"] / took - 1)
        if "peak_memory_bytes" in forecast and peak_of(attempt) and forecast.get("arithmetic") == ARITHMETIC:
            shares["memory"].append(forecast["peak_memory_bytes"] / peak_of(attempt) - 1)
    return shares
