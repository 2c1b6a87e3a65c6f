"""From a checkpoint to a model in memory: type, quantization, attention, and the devices that it lies on."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn import functional

from lorafile.engine.data.hub import first_line
from lorafile.engine.model.calls import uncalled_layers
from lorafile.engine.model.head import (
    absent_poolers,
    head_modules,
    head_options,
    head_parts,
    in_float32,
    is_head,
    is_in,
)
from lorafile.engine.model.quantized import (
    check_libraries,
    check_quantized,
    make_hqq,
    quantization_config,
    stored_quantization,
)
from lorafile.errors import NodeError
from lorafile.units import listing

_ATTENTION = {"flash_attention_2": "flash-attn", "flash_attention_3": "flash-attn-3"}
BLOCKS = "sdpa_in_blocks"
_BLOCK = 64  # queries; as many as torch's kernel takes at once
_NARROWEST = 16  # width of a head


def load_model(path: str, settings: dict[str, Any], device_map: str | None = None) -> tuple[Any, list[str], list[str]]:
    """Return the model of some settings, the modules of its classification head, and those that the checkpoint lacks.

    :param path: its directory; also one with weights that were fine-tuned in full
    :param device_map: spread it over all GPUs, as accelerate's word says
    :raises NodeError: when it cannot be loaded: what is missing, or what does not go together
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    dtype = getattr(torch, settings["model"]["dtype"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {
        "dtype": dtype,
        "local_files_only": True,
        "trust_remote_code": settings["model"]["trust_remote_code"],
        "use_safetensors": True,
    }
    if "attn_implementation" in settings["model"]:
        options["attn_implementation"] = settings["model"]["attn_implementation"]
    chosen, stored = settings["quantization"], stored_quantization(path)
    if stored is not None:
        check_libraries(stored, "model.path")
    config = quantization_config(chosen, dtype) if chosen is not None else None
    later = config is not None and config.quant_method == "hqq"
    if config is not None and not later:
        options["quantization_config"] = config
    placed = device_map is not None or (not later and (config is not None or stored is not None))
    if placed:
        options["device_map"] = device_map or {"": device}
    spared = [] if config is None else _unquantizable(path, settings)
    if spared and not later:
        _spare(config, spared, path, settings)
    model, report = _from_pretrained(path, options, settings)
    head, drawn = head_parts(model, report["missing_keys"]) if is_head(settings) else ([], [])
    if stored is None:  # the tensors of a quantized checkpoint have other names than the model's
        _check_complete(model, drawn, report, path)
    in_float32(model, head)
    if later:
        return make_hqq(model, config, dtype, device, [*head, *spared]), head, drawn
    if config is not None:
        check_quantized(model, str(chosen.get("quant_method", "bitsandbytes")))
    _check_places(model)
    model = model if placed else model.to(device)
    if "attn_implementation" not in settings["model"]:
        use_blocks(model)
    return model, head, drawn


def on_meta(path: str, classifies: bool, trust_remote_code: bool, **changes: Any) -> Any:
    """Return a checkpoint's model with shapes and no bytes, as its config says, quantized or not.

    :param changes: settings of the config that are to be others
    """
    from transformers import AutoConfig

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(path, local_files_only=True, **options, **changes)
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    with torch.device("meta"):
        return auto_class(classifies).from_config(config, **options)


def auto_class(classifies: bool) -> Any:
    """Return transformers' class that finds the one of a checkpoint."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if classifies else AutoModelForCausalLM


def _unquantizable(path: str, settings: dict[str, Any]) -> list[str]:
    """Return what of a model stays as it is under any quantization: a head, and layers that only lend their weight.

    A pooler that the checkpoint lacks is a part of the head: it is drawn and trained.
    """
    trusted, classifies = settings["model"]["trust_remote_code"], is_head(settings)
    model = on_meta(path, classifies, trusted)
    layers = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    inside = [name for name in layers if any(part.isdigit() for part in name.split("."))]
    head = [*head_modules(model), *absent_poolers(model, tensor_files(Path(path)))] if classifies else []
    return [*head, *uncalled_layers(model, inside, quantized=True)]


def _spare(config: Any, modules: list[str], path: str, settings: dict[str, Any]) -> None:
    """Let a quantization leave modules alone: of a head, transformers by itself spares its last parameter only."""
    from transformers.quantizers.base import get_keys_to_not_convert

    name = "llm_int8_skip_modules" if hasattr(config, "llm_int8_skip_modules") else "modules_to_not_convert"
    given = getattr(config, name, None)
    if given is None and not is_head(settings):  # what transformers spares where nothing is named
        given = sorted(get_keys_to_not_convert(on_meta(path, False, settings["model"]["trust_remote_code"])))
    setattr(config, name, [*(given or []), *modules])


def _check_complete(model: Any, drawn: list[str], report: dict[str, Any], path: str) -> None:
    """Refuse a checkpoint that lacks anything but a head, which transformers would draw at random.

    :param drawn: the modules of a head that are drawn for each run
    """
    lost = sorted(name for name in report["missing_keys"] if not is_in(name, drawn))
    if lost:
        raise NodeError(
            f"model.path: {path} lacks {listing(lost, 3)} of a {type(model).__name__}, which would be random. "
            "Is the download complete?"
        )


def _from_pretrained(path: str, options: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a model, and transformers' report of what of the checkpoint did not fit."""
    classifies = is_head(settings)
    head = head_options(settings["model"]) if classifies else {}
    try:
        model, report = auto_class(classifies).from_pretrained(path, output_loading_info=True, **options, **head)
        return model, report
    except torch.OutOfMemoryError:
        raise  # an outcome of its own
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, NotImplementedError, AttributeError) as error:
        named = options.get("attn_implementation", "")
        words = (named, "attn_implementation", "attention implementation", "flash")
        if named and any(word in str(error).lower() for word in words):
            package = f" Install with: pip install {_ATTENTION[named]}" if named in _ATTENTION else ""
            raise NodeError(
                f'model.attn_implementation: "{named}" cannot be used here: {first_line(error)}{package}'
            ) from error
        raise NodeError(f"model.path: {path} cannot be loaded: {first_line(error)}") from error


def tensor_files(directory: Path) -> dict[str, Path]:
    """Return tensor -> the safetensors file of a checkpoint that holds it."""
    file_of: dict[str, Path] = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stream:
            file_of |= dict.fromkeys(stream.keys(), file)
    return file_of


def _check_places(model: Any) -> None:
    """Refuse a base of which a part lies off the GPUs: it would be too slow to train, or could not be."""
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    off = places & ({"cpu", "disk"} if len(places) > 1 else {"disk"})
    if off:
        raise NodeError(
            "model.device_map: the base does not fit on this machine's GPUs; part of it would be on the "
            f"{sorted(off)[0]}, where it cannot be trained. Quantize it, or use more GPUs."
        )


def use_blocks(model: Any) -> None:
    """Let a model that computes attention as sdpa, on a CPU, do so in blocks of queries; others are left alone.

    Equal up to rounding: torch's CPU kernel computes every key for every query, and is slower for heads of 8 than for
    heads of 16. Here a block of queries sees only the keys up to its end, and what is added to a narrow head is zero.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config = model.config.get_text_config()
    if model.device.type != "cpu" or config is not model.config or config._attn_implementation != "sdpa":
        return
    if not model._can_set_attn_implementation():
        return
    ALL_ATTENTION_FUNCTIONS.register(BLOCKS, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(BLOCKS, sdpa_mask)
    model.set_attn_implementation(BLOCKS)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' `sdpa_attention_forward` does, whose arguments these are; return [b, t, heads, width].

    Whatever is not plain attention of a text to itself, under a causal mask or a boolean one, is left to that.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    causal = attention_mask is None and (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    masked = attention_mask is not None and attention_mask.dtype == torch.bool
    special = any(others.get(name) is not None for name in ("softcap", "position_bias", "cache")) or dropout
    length = query.shape[2]
    if special or not (causal or masked) or length != key.shape[2] or length == 1 or query.dtype != torch.float32:
        options: dict[str, Any] = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **others}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    width = value.shape[-1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (_widened(heads) for heads in (query, key, value))
    attended = []
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        mask, seen = _mask(attention_mask, start, end, length)
        parts = query[:, :, start:end], key[:, :, :seen], value[:, :, :seen]
        attended.append(functional.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale)[..., :width])
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _widened(heads: torch.Tensor) -> torch.Tensor:
    return functional.pad(heads, (0, _NARROWEST - heads.shape[-1])) if heads.shape[-1] < _NARROWEST else heads


def _mask(whole: torch.Tensor | None, start: int, end: int, length: int) -> tuple[torch.Tensor, int]:
    """Return the mask of a block of queries, true where a key is seen, and how many keys it is about.

    :param whole: of the whole text [b, 1 or heads, t, t]; None: each token sees itself and what stands before it
    """
    if whole is None:
        return torch.ones(end - start, end, dtype=torch.bool).tril(start), end
    later = bool(whole[:, :, start:end, end:].any())  # a mask that is not causal
    seen = length if later else end
    return whole[:, :, start:end, :seen], seen
