"""Time, memory, disk and energy of what a plan would run, without the device; corrected by what state has measured."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from lorafile.environment import installed
from lorafile.graph.graph import Graph, GraphNode
from lorafile.graph.parameter_count import adapter_parameters
from lorafile.graph.settings import largest_rank
from lorafile.lock.lockfile import identity
from lorafile.plan.forecast.calibration import Correction, Corrections, computed, group_of, peak_of, step_of
from lorafile.plan.forecast.devices import Device, device
from lorafile.plan.forecast.memory import BYTES, SLACK, memory, peak_bytes
from lorafile.plan.forecast.meta_device import Walk, can_walk, walked
from lorafile.plan.forecast.shape import Shape, Shapes
from lorafile.plan.forecast.time import seconds, small, steps
from lorafile.plan.plan import Plan
from lorafile.specs.tables.quantizations import quantization_settings
from lorafile.specs.tables.train import PACKED_ROW_LENGTH
from lorafile.state import Attempt, State

_WALKED_FROM = 10**8  # parameters: below it a walk takes longer than its answer is worth
UNKNOWN = "unknown (first run of this trainer)"
WALK_GIVEN_UP = "analytic, because tracing the model was abandoned"
_ANSWER_BYTES = 200  # of an example's predictions
_STEPS_IN = ("train", "profile")  # those that take the same steps

Forecast = dict[str, Any]


def forecasts(plan: Plan, state: State, gpu: str | None = None) -> dict[str, Forecast]:
    """Return key -> forecast for each node that would run.

    Each but the first runs of a trainer has `seconds` with `seconds_low` and `seconds_high`, between which four of five
    runs fall; each has `disk_bytes` and `source`; where a model is loaded also `peak_memory_bytes` (allocated),
    `reserved_bytes`, `memory_source` and `fits`, and `joules` where a profile measured energy.
    """
    target = target_of(plan, gpu)  # first: an unknown device is an error, whatever there is to do
    if not plan.work:
        return {}
    return _Forecaster(plan, state, target).all()


def target_of(plan: Plan, gpu: str | None = None) -> Device:
    """Return the device that a plan is compared with: the one that is asked for, or all that its bases lie on."""
    spread = any(configuration.model.device_map for configuration in plan.graph.spec.configurations)
    return device(gpu, spread, plan.machines)


@dataclass
class _Forecaster:
    plan: Plan
    state: State
    target: Device
    corrections: Corrections = field(init=False)
    walks: dict[str, float] = field(init=False)  # method, model and quantization -> walked over analytic memory
    given_up: set[str] = field(default_factory=set)  # of these, whose model was not walked to the end

    def __post_init__(self) -> None:
        measured = (attempt for attempts in self.state.latest().values() for attempt in attempts)
        self.corrections = Corrections.of(measured, self.plan.device if self.target.here else self.target.name)
        shapes = Shapes(self.plan.graph, self.plan.results)
        self.shapes = {change.key: shapes.of(self.plan.graph.nodes[change.key]) for change in self.plan.work}
        self.walks = self._walks() if self.target.gpu else {}

    def all(self) -> dict[str, Forecast]:
        """Return key -> forecast."""
        return {change.key: self._one(self.plan.graph.nodes[change.key]) for change in self.plan.work}

    def _one(self, node: GraphNode) -> Forecast:
        shape = self.shapes[node.key]
        if shape is None:
            took = small(*self._cut(node))
            return {"seconds": took, "seconds_low": took, "seconds_high": took, "disk_bytes": 0, "source": "analytic"}
        group = group_of(node, shape)
        analytic, factor = seconds(node, shape, self.target), self.corrections.of_time(group)
        left = self._left(node.key)
        if "trainer" in node.settings and not factor.runs:  # the arithmetic is of the built-in loop
            return {"source": UNKNOWN, "disk_bytes": _disk(node, shape)}
        forecast = {
            "seconds": analytic * factor.factor * left,
            "seconds_low": analytic * factor.low * left,
            "seconds_high": analytic * factor.high * left,
            "source": factor.source,
            "disk_bytes": _disk(node, shape),
        }
        if "trainer" in node.settings:
            return forecast | self._program_memory(node, shape, group)
        return forecast | self._memory(node, shape, group) | self._energy(node, shape)

    def _program_memory(self, node: GraphNode, shape: Shape, group: str) -> Forecast:
        """Return what the processes of a program had at most in earlier runs: measured in runs, and in no profile."""
        factor = self.corrections.of_memory(group)
        if self.target.gpu or not factor.runs:
            return {}
        peak = int(peak_bytes(node, shape, self.target.gpu) * factor.factor)
        known = {"peak_memory_bytes": peak, "reserved_bytes": peak, "memory_source": "measured in runs"}
        return known | {"fits": peak <= self.target.usable}

    def _memory(self, node: GraphNode, shape: Shape, group: str) -> Forecast:
        analytic = peak_bytes(node, shape, self.target.gpu)
        measured = self._measured(node)
        factor = self.corrections.of_memory(group)
        if measured:
            peak, source = float(measured), "measured"
        elif factor.runs:
            peak, source = analytic * factor.factor, factor.source
        elif node.kind in _STEPS_IN and step_of(group) in self.walks:
            peak, source = analytic * self.walks[step_of(group)], "walked"
        else:
            given_up = node.kind in _STEPS_IN and step_of(group) in self.given_up
            peak, source = analytic, WALK_GIVEN_UP if given_up else Correction().source
        reserved = int(peak * SLACK) if self.target.gpu else int(peak)
        fits = reserved <= self.target.usable
        forecast: Forecast = {"peak_memory_bytes": int(peak), "reserved_bytes": reserved, "memory_source": source}
        forecast["fits"] = fits
        if not fits and node.kind in ("train", "profile"):
            forecast["would_fit"] = would_fit(node, shape, peak / analytic, self.target)
        return forecast

    def _measured(self, node: GraphNode) -> int:
        """Return what a profile of the very configuration measured on the device; 0 where none has."""
        profile = self.plan.graph.profiles.get(node.configuration) if node.kind == "train" else None
        done = self.plan.results.get(profile) if profile and self.target.here else None
        return peak_of(done) if done else 0

    def _energy(self, node: GraphNode, shape: Shape) -> Forecast:
        profile = self.plan.graph.profiles.get(node.configuration) if node.kind == "train" else None
        done = self.plan.results.get(profile) if profile and self.target.here else None
        joules = done.figures.get("train_step_joules") if done else None
        return {"joules": joules * steps(node, shape) * self._left(node.key)} if joules else {}

    def _walks(self) -> dict[str, float]:
        """Return how far the arithmetic is off for groups of nodes that were never measured: one walk for each."""
        chosen: dict[str, Walk] = {}
        for key, shape in self.shapes.items():
            node = self.plan.graph.nodes[key]
            if shape is None or node.kind not in _STEPS_IN or not node.settings.get("training"):
                continue
            if "trainer" in node.settings:
                continue
            group = group_of(node, shape)
            if shape.model.parameters >= _WALKED_FROM and not self.corrections.of_memory(group).runs:
                best = chosen.get(step_of(group))
                if best is None or shape.reach.inputs > best.shape.reach.inputs:
                    chosen[step_of(group)] = Walk(node, shape)
        if not chosen or not can_walk():
            return {}
        peaks = walked(list(chosen.values()), installed("bitsandbytes"))
        self.given_up = {group for group, peak in zip(chosen, peaks, strict=True) if not peak}
        return {
            group: peak / sum(memory(walk.node, walk.shape).values())
            for (group, walk), peak in zip(chosen.items(), peaks, strict=True)
            if peak
        }

    def _left(self, key: str) -> float:
        """Return the share of a run's steps that are still to be done."""
        unfinished = self.plan.unfinished.get(key)
        return 1 - unfinished.checkpoint / unfinished.steps if unfinished else 1.0

    def _cut(self, node: GraphNode) -> tuple[int, int]:
        """Return largest rank and parameters of an adapter that is to be cut; nothing for any other node."""
        if node.kind != "truncate":
            return 0, 0
        graph = self.plan.graph
        adapter = graph.sections[node.configuration]["adapter"]
        lock = graph.lock.models[identity(graph.spec.named[node.configuration].model)]
        return largest_rank(adapter), adapter_parameters(adapter, lock)


def _disk(node: GraphNode, shape: Shape) -> int:
    """Return the bytes that a node's result takes in the state."""
    if node.kind == "train":
        width = BYTES[shape.dtype] if node.settings["adapter"]["method"] == "full" else 4
        return shape.adapter * width
    return shape.examples * _ANSWER_BYTES if node.kind == "predict" else 0


def recorded_forecast(
    forecast: Forecast | None, graph: Graph, node: GraphNode, results: dict[str, Attempt], target: Device
) -> Forecast:
    """Return what an attempt keeps: its forecast, to be compared with what it took, and the arithmetic."""
    kept = ("seconds", "peak_memory_bytes", "source", "memory_source")
    forecasted = {name: forecast[name] for name in kept if name in forecast} if forecast else {}
    return forecasted | computed(graph, node, results, target)


def would_fit(node: GraphNode, shape: Shape, factor: float, target: Device) -> str | None:
    """Return what to set in the spec so that a step fits; None where nothing of what is tried would.

    What costs least comes first: a smaller micro-batch and gradient checkpointing cost time and leave the result as it
    is but for rounding; then a half-precision base, then a quantized one, then shorter examples.

    :param factor: by which the arithmetic is corrected
    """
    for words, changed, with_shape in _changes(node.settings, shape):
        peak = peak_bytes(node._replace(settings=changed), with_shape, target.gpu) * factor
        if peak * (SLACK if target.gpu else 1) <= target.usable:
            return words
    return None


def _changes(settings: dict[str, Any], shape: Shape) -> Iterator[tuple[str, dict[str, Any], Shape]]:
    """Yield what could be set: in words, as settings, and with the shape that follows."""
    yield from _without_cost(settings, shape)
    bases: list[tuple[str, dict[str, Any], Shape]] = []
    if shape.dtype == "float32":
        half = {**settings, "model": {**settings["model"], "dtype": "bfloat16"}}
        bases.append(('model.dtype = "bfloat16"', half, replace(shape, dtype="bfloat16")))
    if settings["quantization"] is None and settings["adapter"]["method"] != "full":
        bases += [
            (f'quantization = "{name}"', {**settings, "quantization": quantization_settings(name)}, shape)
            for name in ("int8", "nf4")
        ]
    for words, changed, with_shape in bases:
        yield words, changed, with_shape
        for more, both, _ in _without_cost(changed, with_shape):
            yield f"{words} and {more}", both, with_shape
    rows = settings["training"].get(PACKED_ROW_LENGTH)
    limit = (rows or shape.longest) // 2
    shorter = replace(shape, longest=min(shape.longest, limit), tokens=shape.tokens / (1 if rows else 2))
    again = _with(settings, gradient_checkpointing=True, **({PACKED_ROW_LENGTH: limit} if rows else {}))
    yield f"data.max_length = {limit} and train.gradient_checkpointing = true", again, shorter


def _without_cost(settings: dict[str, Any], shape: Shape) -> Iterator[tuple[str, dict[str, Any], Shape]]:
    """Yield what leaves the result as it is: smaller micro-batches, gradient checkpointing, and both."""
    training = settings["training"]
    size, accumulated = training["per_device_train_batch_size"], training["gradient_accumulation_steps"]
    smaller = []
    while size % 2 == 0:
        size, accumulated = size // 2, accumulated * 2
        words = f"train.per_device_train_batch_size = {size} and train.gradient_accumulation_steps = {accumulated}"
        smaller.append((words, {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}))
    for words, changed in smaller:
        yield words, _with(settings, **changed), shape
    if not training["gradient_checkpointing"]:
        again = "train.gradient_checkpointing = true"
        yield again, _with(settings, gradient_checkpointing=True), shape
        for words, changed in smaller:
            yield f"{again}, {words}", _with(settings, gradient_checkpointing=True, **changed), shape


def _with(settings: dict[str, Any], **training: Any) -> dict[str, Any]:
    changed = deepcopy(settings)
    changed["training"] |= training
    return changed
