"""Time by arithmetic: operations over speed, and what each step costs whatever its size."""

from typing import Any

from lorafile.engine.request import EXAMPLES
from lorafile.graph.graph import GraphNode
from lorafile.graph.notices import optimizer_steps
from lorafile.graph.validation import evaluations
from lorafile.plan.forecast.devices import Device
from lorafile.plan.forecast.memory import BYTES, EVALUATED
from lorafile.plan.forecast.shape import Shape, forward_passes

_USED = 0.35  # share of a GPU's best that training usually reaches, until something is measured
SLOWER = 10.0  # than 50 GFLOP/s, in a data type that a processor has no instructions for: 5.4 were measured
_STEP_SECONDS = 0.0005  # for each block and pass: launching, whatever the size
_MODULE_SECONDS = 0.0002  # for each adapted layer and pass, in addition
_LOAD_SECONDS, _LOADED = 0.25, 1e9  # of a whole model that was trained: each time, and bytes a second
_PROCESS_SECONDS = 2.0  # of a worker of its own: libraries and a small base
_EVALUATED = 64  # examples of a profile's evaluation, once for memory and once for time
_SMALL = 0.1  # seconds of what needs no model


def seconds(node: GraphNode, shape: Shape, device: Device) -> float:
    """Return the time of a node.

    A token costs 2 N operations to predict, for N parameters, 6 N to train all weights, and up to 4 N to train an
    adapter (Kaplan et al. 2020): frozen weights need no gradient of their own, and what lies below the first adapted
    block needs none at all.
    """
    speed = device.flops * (_USED if device.gpu else 1.0) / (SLOWER if shape.dtype in device.slow else 1.0)
    size = shape.model.parameters
    overhead = _STEP_SECONDS * shape.layers
    if node.kind == "train":
        evaluated = _validation(node, shape, speed) if "validation" in node.settings else 0.0
        return float(steps(node, shape) * _step(node.settings["training"], shape, speed) + evaluated)
    passes = shape.examples / EVALUATED
    loading = _LOAD_SECONDS + size * BYTES[shape.dtype] / _LOADED if shape.method == "full" else 0.0
    if node.kind == "predict":
        read, written, longest = _read_and_written(node, shape)
        each = (read + written) * 2 * size / speed
        return float(loading + shape.examples * each + passes * (1 + longest) * overhead)
    if node.kind in ("inspect", "merge"):  # tuned and bare, or attached and merged
        examples = min(node.settings["inspection" if node.kind == "inspect" else "merging"]["examples"], shape.examples)
        return float(loading + 2 * examples * (shape.tokens * 2 * size / speed + overhead / EVALUATED))
    return _profile(node, shape, speed)


def _read_and_written(node: GraphNode, shape: Shape) -> tuple[float, float, float]:
    """Return the tokens that a prediction reads of an example, writes in the mean, and writes at most.

    What was trained ends about where the answers do that it has learned; what was not may go on to the limit.
    """
    limit = node.settings["task"].get("max_new_tokens")
    if limit is None:
        return shape.tokens, 0.0, 0.0
    read = shape.tokens - shape.answer
    if "adapter" not in node.inputs:
        return read, limit, limit
    return read, min(limit, shape.answer), min(limit, shape.longest_answer)


def _step(training: dict[str, Any], shape: Shape, speed: float) -> float:
    """Return the seconds of an optimizer step, at so many operations a second."""
    batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    back = 2.0 if shape.method == "full" else shape.reach.blocks / shape.layers
    overheads = _STEP_SECONDS * shape.layers * (1 + 2 * min(1.0, back)) + 3 * _MODULE_SECONDS * shape.reach.modules
    return float(
        batch * shape.tokens * (2 + 2 * back) * shape.model.parameters / speed
        + overheads * forward_passes(training, shape)
    )


def _validation(node: GraphNode, shape: Shape, speed: float) -> float:
    """Return the seconds of a run's evaluations, of examples as long as those that it trains on.

    An answer is counted at the length of those of the data, where the adapter has learned to end it.
    """
    validation, size = node.settings["validation"], shape.model.parameters
    rows, read, passes = int(validation["max_eval_samples"]), 0.0, 0.0
    for output, task in validation["tasks"].items():
        written = min(float(task["max_new_tokens"]), shape.longest_answer) if output == "generation" else 0.0
        read += shape.tokens + min(written, shape.answer)
        passes += rows / EXAMPLES * (1 + written)
    overhead = _STEP_SECONDS * shape.layers + _MODULE_SECONDS * shape.reach.modules
    each = rows * read * 2 * size / speed + passes * overhead
    return evaluations(validation, int(steps(node, shape))) * each


def _profile(node: GraphNode, shape: Shape, speed: float) -> float:
    """Return the seconds of a profile: a fresh process, steps, a few batches, and answers of one and of all tokens."""
    protocol, size, overhead = node.settings["profile"], shape.model.parameters, _STEP_SECONDS * shape.layers
    training = node.settings["training"]
    # two more steps are those of peak memory
    trained = (2 + protocol["warmup_steps"] + protocol["steps"]) * _step(training, shape, speed) if training else 0.0
    evaluated = 2 * _EVALUATED * shape.tokens * 2 * size / speed
    short, long = protocol["repeats"], protocol["repeats"] + 1  # one more is that of peak memory
    read, written = (short + long) * shape.tokens, short + long * protocol["new_tokens"]
    ways = 1 if shape.method in ("none", "full", "head") else 3  # attached, merged, and the bare base
    answers = ways * ((read + written) * 2 * size / speed + written * overhead)
    attached = written * _MODULE_SECONDS * shape.reach.modules
    return float(_PROCESS_SECONDS + trained + evaluated + answers + attached)


def steps(node: GraphNode, shape: Shape) -> float:
    """Return the optimizer steps of a `train` node."""
    return float(optimizer_steps(node.settings["training"], shape.examples))


def small(rank: int, parameters: int) -> float:
    """Return the seconds of what needs no model; cutting an adapter is two QR and an SVD of each pair of factors.

    :param rank: the largest of the adapter that is cut, 0 where nothing is
    """
    return _SMALL + 8 * rank * parameters / 2e10
