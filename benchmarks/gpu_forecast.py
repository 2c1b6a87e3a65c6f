"""What the plan would forecast of a step on a random Llama: the memory of one adapter, or of several together."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pack_ways import ADAPTER
from shapes import Shape, config_of

from lorafile.graph.graph import GraphNode
from lorafile.graph.parameter_count import adapter_parameters
from lorafile.lock.lockfile import ModelLock, unlocked_model
from lorafile.plan.forecast.memory import memory
from lorafile.plan.forecast.meta_device import Walk
from lorafile.plan.forecast.shape import Shape as Work
from lorafile.plan.forecast.shape import reach
from lorafile.specs.tables.quantizations import quantization_settings
from lorafile.specs.tables.settings import ModelTable

SUPERVISED = 0.5  # of the tokens, as `write_tokens` marks them
_MOMENTS_AND_GRADIENT = 3  # float32 values next to each value of an adapter


@dataclass(frozen=True)
class Forecast:
    """Steps of some adapters together, as the plan sees them.

    :ivar one: the step of one adapter, which can be walked; `arithmetic`: its bytes
    :ivar together: bytes of all of them, by the arithmetic
    """

    one: Walk
    arithmetic: float
    together: float

    def corrected(self, walked: int | None) -> int:
        """Return the bytes of all of them, corrected by a walk of one, as a plan corrects what is of one kind."""
        return int(self.together * (walked / self.arithmetic if walked else 1.0))


def forecast(shape: Shape, dtype: str, training: dict[str, Any], width: int) -> Forecast:
    """Return the arithmetic of a step of K adapters.

    A plan forecasts one adapter. Of K that train together the batch is K times as large, and each beyond the first
    has its weights, gradient and moments.
    """
    one = _work(shape, dtype, training)
    size = training["per_device_train_batch_size"]
    wide = _work(shape, dtype, {**training, "per_device_train_batch_size": size * width})
    others = (width - 1) * one.shape.adapter * 4 * (1 + _MOMENTS_AND_GRADIENT)
    bytes_of_one, bytes_of_all = (float(sum(memory(each.node, each.shape).values())) for each in (one, wide))
    return Forecast(one, bytes_of_one, bytes_of_all + others)


def _work(shape: Shape, dtype: str, training: dict[str, Any]) -> Walk:
    """Return a training node and what the forecast has to know of it."""
    lock = _lock(shape)
    sizes = [rows * columns for rows, columns in lock.modules.values()]
    nf4 = {**(quantization_settings("nf4") or {}), "bnb_4bit_use_double_quant": True}
    held = "bfloat16" if dtype == "nf4" else dtype
    work = Work(
        model=lock,
        dtype=held,
        layers=shape.layers,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        values=shape.hidden // shape.heads * shape.kv_heads,
        vocabulary=shape.vocabulary,
        linear=sum(sizes),
        widest=max(sizes),
        adapter=adapter_parameters(ADAPTER, lock),
        method="lora",
        reach=reach(ADAPTER, lock, shape.layers),
        tokens=shape.length,
        longest=shape.length,
        examples=shape.batch,
        supervised=SUPERVISED,
    )
    settings = {"model": {"dtype": held}, "quantization": nf4 if dtype == "nf4" else None}
    return Walk(GraphNode("", "train", "", {**settings, "adapter": ADAPTER, "training": training}, {}), work)


@cache
def _lock(shape: Shape) -> ModelLock:
    """Return what a lock would say of the model, by its config alone."""
    with tempfile.TemporaryDirectory() as directory:
        config_of(shape).save_pretrained(directory)
        lock = unlocked_model(ModelTable(path=directory), Path(directory))
    assert lock is not None
    return lock
