"""Stored adapters as matrices, without PEFT's layers around the base: what a stack needs to predict with them."""

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
    found = Factors()
    for path in _targets(model, config):
        module, pair = model.get_submodule(path), (sides["A"].pop(path, None), sides["B"].pop(path, None))
        rank, scaling = _scaling(config, path)
        if not isinstance(module, (nn.Linear, Conv1D)) or pair[0] is None or pair[1] is None:
            return None
        if "experts" in path.split("."):  # what one of them reads is no longer in the order of the batch
            return None
        inside, outside = _sizes(module)
        if pair[0].shape != (rank, inside) or pair[1].shape != (outside, rank):
            return None
        # PEFT holds adapters in float32 over whatever the base is, but for a base that is more precise.
        place, dtype = module.weight.device, torch.promote_types(torch.float32, _floating(module.weight.dtype))
        found.matrices[path] = pair[0].to(place, dtype), pair[1].to(place, dtype)
        found.scaling[path] = scaling
    return None if sides["A"] or sides["B"] else found


def _is_plain(stored: dict[str, Any], default: dict[str, Any]) -> bool:
    start = str(stored.get("init_lora_weights"))
    return not start.startswith((*REWRITING, "loftq")) and all(
        value == default.get(name) or (not value and not default.get(name))
        for name, value in stored.items()
        if name not in (*_PLACED, *_SCALED, *_MADE, *_ABOUT)
    )


def _targets(model: nn.Module, config: Any) -> list[str]:
    """Return the modules that PEFT would put an adapter on."""
    from peft.tuners.tuners_utils import check_target_module_exists

    return [path for path, _ in model.named_modules() if path and check_target_module_exists(config, path)]


def _scaling(config: Any, path: str) -> tuple[int, float]:
    """Return a module's rank, and what its update is multiplied by."""
    from peft.utils.other import get_pattern_key

    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), path), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), path), config.lora_alpha)
    return rank, alpha / (rank**0.5 if config.use_rslora else rank)


def _sizes(module: Any) -> tuple[int, int]:
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else (module.nx, module.nf)


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.float32
