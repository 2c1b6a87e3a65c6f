"""Settings that are each well-formed and cannot be had together in one configuration."""

from typing import TYPE_CHECKING

from lorafile.specs.positions import Path
from lorafile.specs.tables.lora import REWRITING
from lorafile.specs.tables.methods import METHODS

if TYPE_CHECKING:
    from lorafile.specs.configurations import Configuration

Found = tuple[Path, str] | None


def contradiction(c: "Configuration") -> Found:
    """Return where the settings of a configuration contradict each other, and why; None where they do not."""
    if c.method == "full" and c.quantization is not None:
        return ("quantization",), "a quantized base cannot be fine-tuned in full"
    method = METHODS.get(c.method)
    if method is not None and not method.on_quantized and c.quantization is not None:
        return ("quantization",), f"PEFT has no {method.title} for a quantized base"
    if c.varied.get("train.loraplus_lr_ratio") and not _has_b(c):
        return ("train", "loraplus_lr_ratio"), _no_b(c)
    if c.method == "prompt_tuning" and c.model.task_type == "SEQ_CLS":
        return ("method",), "PEFT's virtual tokens hide from a classification head where a padded text ends"
    settings = c.adapter or {}
    if settings.get("prompt_tuning_init") == "TEXT" and not settings["prompt_tuning_init_text"]:
        return ("prompt_tuning", "prompt_tuning_init"), '"TEXT" needs a prompt_tuning_init_text'
    return _initialisation(c) if c.method == "lora" else None


def study_contradiction(c: "Configuration", loraplus: float | None) -> Found:
    """Return the same for a study of one configuration, where every setting of `[train]` is meant for that one."""
    if loraplus and c.train and not _has_b(c):
        return ("train", "loraplus_lr_ratio"), _no_b(c)
    return contradiction(c)


def _has_b(c: "Configuration") -> bool:
    method = METHODS.get(c.method)
    return method is not None and method.second_matrix and (c.adapter or {}).get("init_lora_weights") != "mica"


def _no_b(c: "Configuration") -> str:
    if c.method == "lora":
        return 'LoRA+ is a rate for the B matrices, and init_lora_weights = "mica" does not train them'
    return f'LoRA+ is a rate for B matrices, and method = "{c.method}" has none'


def _initialisation(c: "Configuration") -> Found:
    settings = c.adapter or {}
    word, where = settings["init_lora_weights"], ("lora", "init_lora_weights")
    if not isinstance(word, str):
        return None
    if settings["lora_bias"]:
        return where, f'"{word}" does not go with lora_bias, which begins with true or false alone'
    if word.startswith(REWRITING) and c.quantization is not None:
        return where, f'"{word}" moves a part of the base\'s weights into the adapter, and a quantized base gives none'
    if word in ("mica", "orthogonal") and c.quantization is not None:
        return where, f'"{word}" begins from weights that are not quantized'
    if word == "loftq" and not (c.quantization or {}).get("load_in_4bit"):
        return where, '"loftq" begins from the error of a 4-bit base; set quantization = "nf4"'
    if word == "orthogonal" and settings["r"] % 2:
        return where, f'"orthogonal" needs an even rank, not {settings["r"]}'
    return None
