"""Quantized bases: the configs that transformers takes, and HQQ layers, which its version 5 does not make by itself."""

import json
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lorafile.errors import NodeError

# What a quantized base needs: name of the import -> name for pip.
LIBRARIES: dict[str, dict[str, str]] = {
    "bitsandbytes": {"bitsandbytes": "bitsandbytes"},
    "hqq": {"hqq": "hqq"},
    "torchao": {"torchao": "torchao"},
    "gptq": {"gptqmodel": "gptqmodel", "optimum": "optimum"},
    "awq": {"gptqmodel": "gptqmodel"},
    "compressed-tensors": {"compressed_tensors": "compressed-tensors"},
    "aqlm": {"aqlm": "aqlm"},
    "quanto": {"optimum.quanto": "optimum-quanto"},
}


def stored_quantization(path: str) -> str | None:
    """Return the method by which a checkpoint was quantized before, as its config.json calls it."""
    config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    stored = config.get("quantization_config")
    return None if stored is None else str(stored.get("quant_method", "bitsandbytes"))


def check_libraries(method: str, setting: str) -> None:
    """Check that the libraries of a quantization are there.

    :param setting: what of the spec asks for them
    :raises NodeError: with what to install
    """
    missing = [name for module, name in LIBRARIES.get(method, {}).items() if not _is_there(module)]
    if missing:
        raise NodeError(
            f"{setting}: a {method} base needs {' and '.join(missing)}, not installed here. "
            f"Install with: pip install {' '.join(missing)}"
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def quantization_config(settings: dict[str, Any], dtype: torch.dtype) -> Any:
    """Return transformers' own config of a base's quantization.

    :raises NodeError: when it refuses the settings
    """
    method = settings.get("quant_method", "bitsandbytes")
    check_libraries(method, "quantization")
    given = {key: value for key, value in settings.items() if value is not None and key != "quant_method"}
    try:
        return CONFIGS[method](given, dtype)
    except (ValueError, TypeError, AssertionError) as error:
        raise NodeError(f"quantization: transformers rejects these settings: {error}") from error


def _transformers_config(name: str, given: dict[str, Any], _dtype: torch.dtype) -> Any:
    import transformers

    return getattr(transformers, name)(**given)


def _bitsandbytes(given: dict[str, Any], dtype: torch.dtype) -> Any:
    return _transformers_config("BitsAndBytesConfig", {"bnb_4bit_compute_dtype": dtype, **given}, dtype)


def _torchao(given: dict[str, Any], _dtype: torch.dtype) -> Any:
    from torchao import quantization
    from transformers import TorchAoConfig

    group = {"granularity": quantization.PerGroup(given["group_size"])} if "group_size" in given else {}
    kind = getattr(quantization, given["quant_type"])(**group)
    return TorchAoConfig(kind, modules_to_not_convert=given.get("modules_to_not_convert"))


CONFIGS: dict[str, Callable[[dict[str, Any], torch.dtype], Any]] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
    "hqq": partial(_transformers_config, "HqqConfig"),
    "gptq": partial(_transformers_config, "GPTQConfig"),
    "awq": partial(_transformers_config, "AwqConfig"),
}


def make_hqq(model: Any, config: Any, dtype: torch.dtype, device: torch.device, head: list[str]) -> Any:
    """Replace a model's linear layers by HQQ's own, one after another, and move what is left to the device.

    Output heads and what `skip_modules` names stay as they are. transformers 5 has the config but no loader for it.

    :param head: the modules of a classification head

    :raises NodeError: when there is no layer to quantize, or its width does not fit the groups
    """
    from hqq.core.quantize import HQQLinear

    kept = [*config.skip_modules, *head]
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name.split(".") or name.endswith(part) for part in kept)
    ]
    if not names:
        raise NodeError(f"quantization: HQQ finds no linear layer in {type(model).__name__}.")
    for name in names:
        layer = model.get_submodule(name)
        shape = tuple(layer.weight.shape)
        try:
            quantized = HQQLinear(layer, config.quant_config, compute_dtype=dtype, device=str(device))
        except AssertionError as error:
            raise NodeError(f"quantization: HQQ cannot quantize {name}, of shape {shape}: {error}") from error
        _compute_in_own_type(quantized, dtype)
        model.set_submodule(name, quantized)
    return model.to(device)


def _compute_in_own_type(layer: Any, dtype: torch.dtype) -> None:
    """Let an HQQ layer ignore autocast: its backward pass multiplies by weights of its own type (seen in 0.2.8)."""
    compute = layer.forward

    def forward(x: torch.Tensor) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return compute(x.to(dtype))

    layer.forward = forward


def check_quantized(model: nn.Module, method: str) -> None:
    """Check that at least one layer of a base was quantized: torchao passes over what is no `nn.Linear`.

    :raises NodeError: when the base is as it would be without quantization
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if type(module).__module__.startswith("bitsandbytes.") or is_traceable_wrapper_subclass(weight):
            return
        if not isinstance(weight, torch.Tensor) and list(module.buffers(recurse=False)):
            return  # GPTQ and AWQ keep packed weights in buffers
    raise NodeError(
        f"quantization: {method} finds no linear layer in {type(model).__name__}, so nothing would be quantized. "
        'Use another quantization, such as "nf4" or "int8", or none.'
    )


def unseen_parameters(model: nn.Module) -> int:
    """Return how many weights HQQ's packed layers hold beyond what a count of their tensors' elements finds."""
    packed: list[Any] = [module for module in model.modules() if hasattr(module, "W_q")]
    return sum(layer.in_features * layer.out_features - layer.W_q.numel() for layer in packed)


def keep_as_loaded(model: nn.Module) -> None:
    """Keep bitsandbytes' layers from rewriting themselves when they compute (seen in 0.50.2).

    Its 4-bit CPU path for inference repacks weights in place and computes in bfloat16, so that a loss depends on what
    ran before, and it refuses widths that its block does not divide. All its layers cast their bias, for good, to the
    type of their first input; here they get a cast copy, and the bias stays what it is. Its 8-bit layers read rows of
    two and three dimensions, and scale those of four (DeepSeek's keys and values) by each other.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no attribute that torch knows of)
        if type(module).__module__.startswith("bitsandbytes.") and getattr(module, "bias", None) is not None:
            module.register_forward_pre_hook(_lend_cast_bias)
            module.register_forward_hook(_take_bias_back, always_call=True)
        if type(module).__name__ == "Linear8bitLt":
            module.register_forward_pre_hook(_flatten)
            module.register_forward_hook(_restore_shape, always_call=True)


def _lend_cast_bias(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    """Put a cast copy in the bias's place, where its type is not the one that the layer computes in."""
    dtype = getattr(module, "compute_dtype", None) or inputs[0].dtype
    if module.bias.dtype != dtype:
        bias = module._parameters.pop("bias")
        module.__dict__["bias"], module.__dict__["own_bias"] = bias.to(dtype), bias


def _take_bias_back(module: Any, _inputs: Any, _output: Any) -> None:
    if "own_bias" in module.__dict__:
        del module.__dict__["bias"]
        module._parameters["bias"] = module.__dict__.pop("own_bias")


def _flatten(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    """Give a layer what it reads as a matrix, where that has more than three dimensions."""
    if inputs[0].ndim <= 3:
        return None
    module.__dict__["read_shape"] = inputs[0].shape
    return (inputs[0].flatten(0, -2), *inputs[1:])


def _restore_shape(module: Any, _inputs: Any, output: Any) -> Any:
    shape = module.__dict__.pop("read_shape", None)
    return output if shape is None or output is None else output.unflatten(0, shape[:-1])
