"""Stored adapters as matrices, without PEFT's layers around the base: what a stack needs to predict with them."""

import math
import re
from typing import Any

import torch
from torch import nn

from lorafile.engine.model.initialization import stored_settings
from lorafile.engine.stacking.stack import Factors
from lorafile.specs.tables.lora import REWRITING

# Settings of a LoraConfig that say which matrices there are, or how they came to be; any other decides what they do.
_PLACED = ("r", "rank_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
_SCALED = ("lora_alpha", "alpha_pattern", "use_rslora")
_MADE = ("lora_dropout", "init_lora_weights", "fan_in_fan_out", "eva_config", "corda_config", "lora_ga_config")
_ABOUT = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
)
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def stored_factors(model: nn.Module, files: dict[str, str]) -> Factors | None:
    """Return a stored adapter as PEFT would load it on a bare base, or None where it is more than plain LoRA.

    None, too, where it does not fit the base: PEFT says what is wrong.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from safetensors.torch import load_file
    from transformers.pytorch_utils import Conv1D

    stored = stored_settings(files)
    if stored.get("peft_type") != "LORA" or not _is_plain(stored, dict(vars(LoraConfig()))):
        return None
    config = LoraConfig(**{name: stored[name] for name in (*_PLACED, *_SCALED) if name in stored})
    sides: dict[str, dict[str, torch.Tensor]] = {"A": {}, "B": {}}
    for key, tensor in load_file(files["adapter_model.safetensors"]).items():
        name = _KEY.fullmatch(key)
        if name is None:
            return None
        sides[name[2]][name[1]] = tensor
    factors = Factors()
    for path, module in model.named_modules():
        if not path or not check_target_module_exists(config, path):
            continue
        pair = sides["A"].pop(path, None), sides["B"].pop(path, None)
        rank = pattern_value(config.rank_pattern, path, config.r)
        alpha = pattern_value(config.alpha_pattern, path, config.lora_alpha)
        if not isinstance(module, (nn.Linear, Conv1D)) or pair[0] is None or pair[1] is None:
            return None
        if "experts" in path.split("."):  # what one of them reads is no longer in the order of the batch
            return None
        plain = isinstance(module, nn.Linear)
        inside, outside = (module.in_features, module.out_features) if plain else (module.nx, module.nf)
        if pair[0].shape != (rank, inside) or pair[1].shape != (outside, rank):
            return None
        # PEFT holds adapters in float32 over whatever the base is, but for a base that is more precise.
        held = module.weight.dtype if module.weight.dtype.is_floating_point else torch.float32
        place, dtype = module.weight.device, torch.promote_types(torch.float32, held)
        factors.matrices[path] = pair[0].to(place, dtype), pair[1].to(place, dtype)
        factors.scaling[path] = lora_scaling(alpha, rank, config.use_rslora)
    return None if sides["A"] or sides["B"] else factors


def _is_plain(stored: dict[str, Any], default: dict[str, Any]) -> bool:
    start = str(stored.get("init_lora_weights"))
    return not start.startswith((*REWRITING, "loftq")) and all(
        value == default.get(name) or (not value and not default.get(name))
        for name, value in stored.items()
        if name not in (*_PLACED, *_SCALED, *_MADE, *_ABOUT)
    )


def lora_scaling(alpha: float, rank: int, use_rslora: Any) -> float:
    """Return what PEFT multiplies an update by: alpha / r, or alpha / √r with rsLoRA."""
    return alpha / (math.sqrt(rank) if use_rslora else rank)


def pattern_value(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """Return a module's own value among patterns, as PEFT finds it, or the default."""
    from peft.utils.other import get_pattern_key

    patterns = patterns or {}
    return patterns.get(get_pattern_key(list(patterns), module), default)
