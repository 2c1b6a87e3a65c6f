"""Time by arithmetic: operations over speed, and what each step costs whatever its size."""

from lorafile.devices import Device
from lorafile.forecast.memory import EVALUATED
from lorafile.forecast.shape import Shape
from lorafile.graph import GraphNode

_USED = 0.35  # share of a GPU's best that training usually reaches, until something is measured
_STEP_SECONDS = 0.0005  # for each layer and step: launching, whatever the size
_SMALL = 0.1  # seconds of what needs no model


def seconds(node: GraphNode, shape: Shape, device: Device) -> float:
    """Return the time of a node.

    A token costs 4 N operations to train an adapter, 6 N to train all weights, 2 N to predict, for N parameters
    (Kaplan et al. 2020; frozen weights need no gradient of their own).
    """
    speed = device.flops * (_USED if device.gpu else 1.0)
    size = shape.model.parameters
    overhead = _STEP_SECONDS * shape.layers
    if node.kind == "train":
        training = node.settings["training"]
        per_token = (6 if node.settings["adapter"]["method"] == "full" else 4) * size
        accumulated = training["gradient_accumulation_steps"]
        batch = training["per_device_train_batch_size"] * accumulated
        each = batch * shape.tokens * per_token / speed + 3 * overhead * accumulated
        return float(steps(node, shape) * each)
    passes = shape.examples / EVALUATED
    if node.kind == "predict":
        new = node.settings["task"].get("max_new_tokens", 0)
        return float(shape.examples * (shape.tokens + new) * 2 * size / speed + passes * (1 + new) * overhead)
    if node.kind in ("inspect", "merge"):  # tuned and bare, or attached and merged
        examples = min(node.settings["inspection" if node.kind == "inspect" else "merging"]["examples"], shape.examples)
        return float(2 * examples * (shape.tokens * 2 * size / speed + overhead / EVALUATED))
    protocol = node.settings["profile"]
    count = protocol["warmup_steps"] + protocol["steps"] + 8 * protocol["repeats"] * protocol["new_tokens"] / 4
    return float(2 + count * (8 * shape.tokens * 4 * size / speed + 3 * overhead))


def steps(node: GraphNode, shape: Shape) -> float:
    """Return the optimizer steps of a `train` node."""
    training = node.settings["training"]
    if training["max_steps"] > 0:
        return float(training["max_steps"])
    batch = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    return float(training["num_train_epochs"] * shape.examples / batch)


def small(rank: int, parameters: int) -> float:
    """Return the seconds of what needs no model; cutting an adapter is two QR and an SVD of each pair of factors.

    :param rank: the largest of the adapter that is cut, 0 where nothing is
    """
    return _SMALL + 8 * rank * parameters / 2e10
