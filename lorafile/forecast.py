"""Time and peak memory of what a plan would run: a first analytic model, without torch.

Time is corrected by what state has measured on this device. Memory counts weights, adapter, optimizer, activations and
logits; docs/forecast.md derives the constants.
"""

import os
import re
import statistics
from dataclasses import dataclass
from typing import Any

from lorafile.engine.environment import gpus
from lorafile.errors import LoraError
from lorafile.graph import Graph, GraphNode
from lorafile.lockfile import ModelLock, identity
from lorafile.parameters import adapter_parameters
from lorafile.placement import adapted_modules
from lorafile.plan import Plan
from lorafile.sections import largest_rank
from lorafile.specs import Configuration
from lorafile.specs.quantizations import weight_bits
from lorafile.state import Attempt, State

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ADAM = 8  # two moments in float32
_SLACK = 1.10  # what the allocator holds beyond what it gave
_CONTEXT = 600 * 2**20  # a CUDA context and its kernels
_GPU_FLOPS, _CPU_FLOPS = 6e13, 2e10  # a first guess of sustained speed, until something is measured
_CHARACTERS, _TEMPLATE = 3, 8  # of a token, and tokens that a template adds: rather too many than too few
_STEP_SECONDS = 0.0015  # for each layer and step: launching, whatever the size
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)", re.IGNORECASE)
_UNITS = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}


@dataclass(frozen=True)
class Device:
    """What a plan is held against: its memory in bytes, and what it is called."""

    name: str
    memory: int


def device(gpu: str | None = None, spread: bool = False) -> Device:
    """Return the device that is asked for (`24GB`), or the one that is here.

    :param spread: a base lies on all GPUs at once
    :raises LoraError: when the text is not a size
    """
    if gpu is not None:
        match = _SIZE.fullmatch(gpu.strip())
        if match is None:
            raise LoraError(f'--gpu: "{gpu}" is not a size of memory; write for example --gpu 24GB')
        return Device(f"a GPU of {gpu}", int(float(match[1]) * _UNITS[match[2].lower()]))
    if gpus() and gpus()[0]["memory"]:
        if spread and len(gpus()) > 1:
            return Device(f"{len(gpus())} × {gpus()[0]['name']}", sum(gpu["memory"] or 0 for gpu in gpus()))
        return Device(gpus()[0]["name"], gpus()[0]["memory"])
    return Device("this machine's memory", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def forecasts(plan: Plan, state: State, gpu: str | None = None) -> dict[str, dict[str, Any]]:
    """Return key -> forecast for each node that would run.

    Each has `seconds` and `source`, and where a model is loaded `peak_memory_bytes` and `fits`.
    """
    target = device(gpu, any(configuration.model.device_map for configuration in plan.graph.spec.configurations))
    history = state.latest()
    measured = calibration(history, plan)
    found = {}
    for change in plan.work:
        node = plan.graph.nodes[change.key]
        shape = Shape.of(plan.graph, node, plan.results)
        if shape is None:
            found[node.key] = {"seconds": _small(node, plan.graph), "source": "analytic"}
            continue
        factor, runs = measured.get(node.kind) or measured.get("train") or (1.0, 0)
        forecast: dict[str, Any] = {"seconds": seconds(node, shape) * factor * left(plan, node.key)}
        forecast["source"] = f"calibrated on {runs} runs" if runs else "analytic"
        peak = int(sum(memory(node, shape).values()) * _SLACK)
        forecast |= {"peak_memory_bytes": peak, "fits": peak + (_CONTEXT if gpu or gpus() else 0) <= target.memory}
        found[node.key] = forecast
    return found


def _small(node: GraphNode, graph: Graph) -> float:
    """Return the seconds of what needs no model; cutting an adapter is two QR and an SVD of each pair of factors."""
    if node.kind != "truncate":
        return 0.1
    configuration = graph.spec.named[node.configuration]
    adapter, lock = graph.sections[node.configuration]["adapter"], graph.lock.models[identity(configuration.model)]
    return 0.1 + 8 * largest_rank(adapter) * adapter_parameters(adapter, lock) / _CPU_FLOPS


def left(plan: Plan, key: str) -> float:
    """Return the share of a run's steps that are still to be done."""
    found = plan.unfinished.get(key)
    return 1 - found.checkpoint / found.steps if found else 1.0


@dataclass(frozen=True)
class Shape:
    """What the forecast has to know of a node's model and data."""

    model: ModelLock
    dtype: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    linear: int  # weights of the linear layers inside blocks
    adapter: int  # trainable parameters of the adapter
    targets: int  # input features that adapters read, summed over the adapted modules of a model
    tokens: float  # mean tokens of an example
    longest: int
    examples: int
    supervised: float  # share of tokens

    @classmethod
    def of(cls, graph: Graph, node: GraphNode, results: dict[str, Attempt]) -> "Shape | None":
        """Return the shape of a node's work; None for what needs no model."""
        if node.kind not in ("train", "predict", "profile", "inspect", "merge"):
            return None
        configuration = graph.spec.named[node.configuration]
        lock = graph.lock.models[identity(configuration.model)]
        prepare = node.inputs.get("train") or node.inputs.get("data") or ""
        figures = results[prepare].figures if prepare in results else {}
        adapter = graph.sections[node.configuration]["adapter"]
        text = lock.settings.get("text_config") or lock.settings
        hidden = text.get("hidden_size") or text.get("n_embd") or 1
        count, mean, longest = _guess(graph, configuration, graph.nodes.get(prepare), node)
        # Packed text is trained block by block.
        examples = int(figures.get("blocks") or figures.get("examples") or count)
        tokens = figures["tokens"] / examples if figures.get("tokens") else mean
        modules = adapted_modules(adapter, lock.modules) if "target_modules" in adapter else []
        return cls(
            model=lock,
            dtype=graph.sections[node.configuration]["model"]["dtype"],
            layers=text.get("num_hidden_layers") or text.get("n_layer") or 1,
            hidden=hidden,
            intermediate=text.get("intermediate_size") or 4 * hidden,
            heads=text.get("num_attention_heads") or text.get("n_head") or 1,
            vocabulary=text.get("vocab_size") or 1,
            linear=sum(rows * columns for rows, columns in lock.modules.values()),
            adapter=adapter_parameters(adapter, lock),
            targets=sum(min(lock.modules[name]) for name in modules),
            tokens=tokens,
            longest=int(figures.get("longest") or longest),
            examples=examples,
            supervised=figures.get("supervised_fraction") or 0.5,
        )


def _guess(
    graph: Graph, configuration: Configuration, prepare: GraphNode | None, node: GraphNode
) -> tuple[int, float, float]:
    """Return how many examples there are, and mean and longest in tokens: a guess from their characters."""
    if prepare is None:  # a harness task, of which nothing is known before it is loaded
        return node.settings["task"].get("limit", 1000), 100.0, 512.0
    settings = prepare.settings["data"]
    if "prompts" in settings:
        lengths = [len(str(prompt)) for prompt in settings["prompts"]]
        count, characters = len(lengths), [round(sum(lengths) / len(lengths)), max(lengths)]
    else:
        data = graph.lock.data[identity(graph.spec.data(configuration, prepare.split))]
        source = next(split for split, digest in data.digests.items() if digest == settings["digest"])
        count, characters = settings["rows"]["stop"] - settings["rows"]["start"], data.characters[source]
    mean, longest = (min(settings["max_length"], size / _CHARACTERS + _TEMPLATE) for size in characters)
    return count, mean, longest


def memory(node: GraphNode, shape: Shape) -> dict[str, float]:
    """Return the bytes allocated at the peak of a node, by what they are for."""
    width = BYTES[shape.dtype]
    parts = {"weights": weight_bytes(node.settings["quantization"], shape, width)}
    if node.kind == "merge":  # a quantized base is dequantized, and a float32 one stands beside nothing else
        parts["weights"] = float(shape.model.parameters * max(width, BYTES[node.settings["merging"]["dtype"]]))
    training = node.settings.get("training") or {}
    if not training:
        batch = 16
        live = 4 * batch * shape.longest * (2 * shape.hidden + shape.intermediate) * width
        return parts | {
            "activations": live,
            "logits": 3 * 4 * batch * shape.longest * shape.supervised * shape.vocabulary,
        }
    trained = width if node.settings["adapter"]["method"] == "full" else 4
    parts["adapter"] = shape.adapter * trained if trained == 4 and node.settings["adapter"]["method"] != "full" else 0
    parts["gradients"] = shape.adapter * trained
    parts["optimizer"] = shape.adapter * _ADAM * trained / 4
    positions = training["per_device_train_batch_size"] * shape.longest
    layer = positions * (8 * shape.hidden + 4 * shape.intermediate) * width + positions * 2 * shape.hidden * 4
    inputs = positions * shape.targets * 4 / max(shape.layers, 1)  # adapters read their inputs in float32
    if training.get("gradient_checkpointing"):
        parts["activations"] = positions * shape.hidden * width * shape.layers + layer + inputs
    else:
        parts["activations"] = shape.layers * (layer + (inputs if width < 4 else 0))
    parts["logits"] = 3 * 4 * positions * shape.supervised * shape.vocabulary
    return parts


def weight_bytes(quantization: dict[str, Any] | None, shape: Shape, width: int) -> float:
    """Return the bytes of a base's weights.

    Quantized: bits and scales for the linear layers of its blocks, its own type for the rest. A checkpoint that was
    quantized before takes what its files do.
    """
    if shape.model.settings.get("quantization_config"):
        return shape.model.bytes
    if quantization is None:
        return shape.model.parameters * width
    bits, scales = weight_bits(quantization, 8 * width)
    return (shape.model.parameters - shape.linear) * width + shape.linear * (bits + scales) / 8


def seconds(node: GraphNode, shape: Shape) -> float:
    """Return the time of a node by its arithmetic, and what each step costs whatever its size.

    4 N operations a token to train an adapter, 6 N to train all weights, 2 N to predict, for N parameters.
    """
    speed = _GPU_FLOPS if gpus() else _CPU_FLOPS
    size = shape.model.parameters
    overhead = _STEP_SECONDS * shape.layers
    if node.kind == "train":
        training = node.settings["training"]
        per_token = (6 if node.settings["adapter"]["method"] == "full" else 4) * size
        batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
        steps = (
            training["max_steps"]
            if training["max_steps"] > 0
            else training["num_train_epochs"] * shape.examples / batch
        )
        return float(
            steps * (batch * shape.tokens * per_token / speed + 3 * overhead * training["gradient_accumulation_steps"])
        )
    passes = shape.examples / 16
    if node.kind == "predict":
        new = node.settings["task"].get("max_new_tokens", 0)
        return float(shape.examples * (shape.tokens + new) * 2 * size / speed + passes * (1 + new) * overhead)
    if node.kind in ("inspect", "merge"):  # tuned and bare, or attached and merged
        examples = min(node.settings["inspection" if node.kind == "inspect" else "merging"]["examples"], shape.examples)
        return float(2 * examples * (shape.tokens * 2 * size / speed + overhead / 16))
    protocol = node.settings["profile"]
    steps = protocol["warmup_steps"] + protocol["steps"] + 8 * protocol["repeats"] * protocol["new_tokens"] / 4
    return float(2 + steps * (8 * shape.tokens * 4 * size / speed + 3 * overhead))


def calibration(history: dict[str, list[Attempt]], plan: Plan) -> dict[str, tuple[float, int]]:
    """Return kind -> (measured over forecast time, number of runs): medians over what finished on this device."""
    ratios: dict[str, list[float]] = {}
    for key, node in plan.graph.nodes.items():
        shape = Shape.of(plan.graph, node, plan.results) if key in history else None
        if shape is not None:
            done = [a for a in history[key] if a.outcome == "done" and a.device == plan.device]
            took = [attempt.seconds + attempt.figures.get("seconds_before", 0.0) for attempt in done]
            ratios.setdefault(node.kind, []).extend(each / seconds(node, shape) for each in took)
    return {kind: (statistics.median(found), len(found)) for kind, found in ratios.items() if found}
