"""The smallest change that would make a configuration fit, in the order in which a user would mind it."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from lorafile.graph.graph import GraphNode
from lorafile.plan.forecast.devices import Device
from lorafile.plan.forecast.memory import CONTEXT, SLACK, memory
from lorafile.plan.forecast.shape import Shape
from lorafile.specs.tables.quantizations import quantization_settings


def would_fit(node: GraphNode, shape: Shape, factor: float, target: Device) -> str | None:
    """Return what to set in the spec so that a step fits; None where nothing of what is tried would.

    First what leaves the result as it is but for rounding, then what changes it.

    :param factor: by which the arithmetic is corrected
    """
    for words, changed, with_shape in _changes(node.settings, shape):
        peak = sum(memory(node._replace(settings=changed), with_shape).values()) * factor
        if peak * SLACK + (CONTEXT if target.gpu else 0) <= target.memory:
            return words
    return None


def _changes(settings: dict[str, Any], shape: Shape) -> list[tuple[str, dict[str, Any], Shape]]:
    """Return what could be set: in words, as settings, and with the shape that follows."""
    found: list[tuple[str, dict[str, Any], Shape]] = []
    training = settings["training"]
    size, accumulated = training["per_device_train_batch_size"], training["gradient_accumulation_steps"]
    while size % 2 == 0:
        size, accumulated = size // 2, accumulated * 2
        found.append(
            (
                f"train.per_device_train_batch_size = {size} with train.gradient_accumulation_steps = {accumulated}",
                _with(settings, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated),
                shape,
            )
        )
    again = _with(settings, gradient_checkpointing=True)
    if not training["gradient_checkpointing"]:
        found.append(("train.gradient_checkpointing = true", again, shape))
        if size != training["per_device_train_batch_size"]:
            both = _with(again, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated)
            words = f"train.gradient_checkpointing = true and train.per_device_train_batch_size = {size}"
            found.append((words, both, shape))
    if settings["quantization"] is None and settings["adapter"]["method"] != "full":
        found.append(('quantization = "nf4"', {**settings, "quantization": quantization_settings("nf4")}, shape))
        words = 'quantization = "nf4" with train.gradient_checkpointing = true'
        found.append((words, {**again, "quantization": quantization_settings("nf4")}, shape))
    half = replace(shape, longest=shape.longest // 2, tokens=shape.tokens / 2)
    found.append((f"data.max_length = {half.longest} with train.gradient_checkpointing = true", again, half))
    return found


def _with(settings: dict[str, Any], **training: Any) -> dict[str, Any]:
    changed = deepcopy(settings)
    changed["training"] |= training
    return changed
