"""Which nodes can be done together, as several adapters on one base. Imports no torch."""

import json
from typing import Any

from lorafile.engine.request import base_identity
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS
from lorafile.specs.tables.lora import FIXED_B, REWRITING
from lorafile.specs.tables.train import PACKED_ROW_LENGTH

# What a layer of a stack can compute: x W + s (x A) B, for matrices of any rank, at any modules.
_PLAIN = ("r", "lora_alpha", "target_modules", "lora_dropout", "use_rslora", "init_lora_weights", "fan_in_fan_out")
_PLACED = ("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "exclude_modules", "method")


class NotPackable(Exception):
    """Adapters cannot be done together, which only the loaded base or the adapter itself could tell, and why."""


def training_class(settings: dict[str, Any], train: str) -> str:
    """Return equal text for `train` nodes whose adapters can be trained together; nothing where one has to be alone.

    :param settings: the node's resolved sections, as they stand in its key
    :param train: key of the `prepare` node that it reads
    """
    adapter, training = settings["adapter"], settings["training"]
    if settings.get("validation"):  # an evaluation reads one adapter, and may end its run before the others
        return ""
    stackable = {*_PLAIN, *_PLACED} | ({"bias"} if adapter.get("bias") == "none" else set())
    if adapter["method"] != "lora" or set(adapter) - stackable or not _stackable(settings):
        return ""
    # What moves a part of the base into the adapter is stored as another LoRA than it was; a fixed B has no moments;
    # and a loss scale that overflows in one slice would skip a step of all.
    if str(adapter.get("init_lora_weights")).startswith((*REWRITING, FIXED_B)) or training["fp16"]:
        return ""
    # The state of some optimizers belongs to whole matrices, or to blocks of them, and a stack has one tensor of all.
    if not OPTIMIZERS[training.get("optim", DEFAULT_OPTIMIZER)].together or training.get("learning_rates"):
        return ""
    shape = {name: training[name] for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "bf16")}
    shape |= {"gradient_checkpointing": training["gradient_checkpointing"], "rows": training.get(PACKED_ROW_LENGTH)}
    return json.dumps([base_identity(settings), shape, train], sort_keys=True)


def prediction_class(settings: dict[str, Any], data: str) -> str:
    """Return equal text for `predict` nodes that several adapters can do at once; nothing where one has to be alone.

    Whether a stored adapter is one that can be stacked is seen when it is read.

    :param settings: the node's resolved sections, as they stand in its key
    :param data: key of the `prepare` node that it reads
    """
    if settings["task"]["output"] == "lm_eval" or not _stackable(settings):
        return ""
    return json.dumps([base_identity(settings), settings["task"], data], sort_keys=True)


def _stackable(settings: dict[str, Any]) -> bool:
    """Return whether a row's result depends on that row alone."""
    if settings["model"].get("task_type", "CAUSAL_LM") != "CAUSAL_LM":
        return False  # a classification head belongs to each run
    quantization = settings["quantization"] or {}
    return not (quantization.get("load_in_8bit") and quantization.get("llm_int8_threshold"))
