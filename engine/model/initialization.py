"""How an adapter begins: at random, from the base's weights, from the train split, or from a quantization's error.

Some of PEFT's initialisations take a part out of the base's weights and put it into the adapter. The base is lent, so
it gets them back; what is saved is the change alone, as a plain LoRA of twice the rank that fits the original base.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lorafile.engine.batching.batches import epoch_order, split_micro_batches
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.base import Base
from lorafile.engine.model.init_function import initialize_by_function
from lorafile.engine.model.loading import tensor_files
from lorafile.engine.model.loss import summed_loss
from lorafile.engine.model.methods import peft_config
from lorafile.engine.request import Request
from lorafile.errors import NodeError
from lorafile.specs.tables.lora import REWRITING

_EXAMPLES = 256  # as many as CorDA's authors take
_GRADIENTS = 64  # examples whose gradient LoRA-GA looks at
_AT_ONCE = 16  # examples of one of EVA's batches
ModuleTree = list[tuple[nn.Module, dict[str, Any]]]
_PASSES = 20  # over the examples, until EVA gives up


def initialize_adapter(base: Base, request: Request, tokens: Tokens, steps: int) -> Any:
    """Put a new adapter on a base and let it begin as its settings say; draws from the global generator."""
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    config = peft_config(request, steps, base.head)
    word = request.settings["adapter"].get("init_lora_weights", True)
    if word == "corda":
        _collect_covariances(base, config, tokens)
    if word == "lora_ga":
        _collect_gradients(base, config, tokens, request)
    model: Any = get_peft_model(base.model, config)
    _hold_in_float32(model)
    if word == "olora" and any(isinstance(layer, Conv1D) for layer in model.modules()):
        raise NodeError(
            "lora.init_lora_weights: PEFT's OLoRA expects a layer's weight as (out, in), but this model's layers "
            'store it as (in, out); use "pissa", which supports both.'
        )
    if word == "eva":
        _initialize_eva(base, model, tokens)
    if isinstance(word, dict):
        initialize_by_function(model, request.paths["initializer"])
    if word == "loftq":
        _initialize_loftq(model, request.paths["model"])
    if rewrites(request.settings["adapter"]):
        model.beginning = {  # A and B of each layer by the names that they are saved under
            name.replace(".default.", "."): matrix.detach().clone()
            for name, matrix in model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        }
    return model


def _hold_in_float32(model: Any) -> None:
    """Hold what is trained whole in float32 whatever the base is, as adapters are: small steps are lost otherwise."""
    for module in model.modules():
        for kind in ("modules_to_save", "ln_tuning_layers"):
            copies = getattr(module, kind, None)
            for trained in copies.values() if isinstance(copies, nn.ModuleDict) else ():
                dtype = next(trained.parameters()).dtype
                if dtype in (torch.float16, torch.bfloat16):
                    trained.float()
                    trained.register_forward_pre_hook(
                        lambda _, inputs: tuple(_cast(value, torch.float32) for value in inputs)
                    )
                    trained.register_forward_hook(lambda _, __, output, dtype=dtype: _cast(output, dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def rewrites(adapter: dict[str, Any]) -> bool:
    """Return whether a method moves a part of the base's weights into the adapter."""
    return str(adapter.get("init_lora_weights")).startswith(REWRITING)


@contextlib.contextmanager
def restored_afterwards(model: nn.Module, adapter: dict[str, Any]) -> Iterator[None]:
    """Give a base back as it was: its modules, and the weights that a method writes.

    :param adapter: settings of the method: as in a request, or as stored with an adapter
    """
    modules = module_tree(model)
    written = _written(model, adapter)
    kept = [p.detach().to("cpu", copy=True) for p in written]
    # On a CPU the last bits of a product depend on where in memory a matrix begins: the bytes go back to their place.
    places = [p.data if p.device.type == "cpu" else None for p in written]
    try:
        yield
    finally:
        if hasattr(model, "peft_config"):
            del model.peft_config
        restore_modules(modules)
        for parameter, before, place in zip(written, kept, places, strict=True):
            parameter.data = before.to(parameter.device) if place is None else place.copy_(before)
        model.requires_grad_(False)
        model.zero_grad(set_to_none=True)


def module_tree(model: nn.Module) -> ModuleTree:
    """Return each module of a model with its children, so that they can be put back."""
    return [(module, dict(module._modules)) for module in model.modules()]


def restore_modules(tree: ModuleTree) -> None:
    """Put the children of modules back where they were."""
    for module, children in tree:
        module._modules.clear()
        module._modules.update(children)


def _written(model: nn.Module, adapter: dict[str, Any]) -> list[nn.Parameter]:
    targets = tuple(f".{name}.weight" for name in adapter.get("target_modules") or [])
    moved, biases = rewrites(adapter), adapter.get("bias", "none") != "none"
    return [
        parameter
        for name, parameter in model.named_parameters()
        if (moved and f".{name}".endswith(targets)) or (biases and name.endswith("bias"))
    ]


def as_plain_lora(model: Any, out: Path, config: dict[str, Any]) -> None:
    """Rewrite a saved adapter as what was learned: ΔW = s(BA − B₀A₀) = s[B −B₀][A A₀]ᵀ, of twice the rank.

    The scale s is α/r or α/√r; α grows with the rank so that it stays (PEFT's `subtract_mutated_init`, for every
    setting and not only for plain ones).
    """
    file = out / "adapter_model.safetensors"
    tensors = load_file(file)
    for name, start in model.beginning.items():
        now = tensors[name]
        side = 0 if ".lora_A." in name else 1
        first = start.to(now) if side == 0 else -start.to(now)
        tensors[name] = torch.cat([now, first], dim=side).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    growth = 2**0.5 if config["use_rslora"] else 2
    config["r"] *= 2
    config["lora_alpha"] *= growth
    config["rank_pattern"] = {name: 2 * rank for name, rank in (config["rank_pattern"] or {}).items()}
    config["alpha_pattern"] = {name: growth * alpha for name, alpha in (config["alpha_pattern"] or {}).items()}
    config |= {"init_lora_weights": True, "corda_config": None, "lora_ga_config": None}


def _order(tokens: Tokens, size: int, most: int) -> list[list[int]]:
    """Return batches of examples of the train split, drawn from the global generator."""
    seed = int(torch.randint(2**31, (1,)))
    batches = epoch_order(tokens.lengths(), size, seed, 0)
    return batches[: max(1, most // size)]


def _collect_covariances(base: Base, config: Any, tokens: Tokens) -> None:
    """Collect the covariance of what each layer reads; PEFT wants one text at a time."""
    from peft.tuners.lora.corda import preprocess_corda

    def look() -> None:
        for (index,) in _order(tokens, 1, _EXAMPLES):
            batch = base.collate(tokens, [index])
            base.model(input_ids=batch.input_ids, use_cache=False)

    if config.corda_config is None:
        raise NodeError("lora.corda_config is missing.")
    preprocess_corda(base.model, config, run_model=look)


def _collect_gradients(base: Base, config: Any, tokens: Tokens, request: Request) -> None:
    """Collect the gradient of the loss for each adapted weight."""
    from peft.tuners.lora.loraga import preprocess_loraga

    def look() -> None:
        settings = request.settings["training"]
        size = settings["per_device_train_batch_size"]
        for step in _order(tokens, size * settings["gradient_accumulation_steps"], _GRADIENTS):
            batches = [base.collate(tokens, indexes) for indexes in split_micro_batches([step], size, 1)]
            supervised = max(sum(int(batch.supervised.sum()) for batch in batches), 1)
            for batch in batches:
                (summed_loss(base.model, batch) / supervised).backward()

    preprocess_loraga(base.model, config, look)


def _initialize_eva(base: Base, model: Any, tokens: Tokens) -> None:
    """Let EVA look at batches until it has found its directions; with too few tokens it never would."""
    from peft import initialize_lora_eva_weights

    batches = []
    for indexes in _order(tokens, _AT_ONCE, _EXAMPLES):
        batch = base.collate(tokens, indexes)
        labels = batch.input_ids.masked_fill(~batch.supervised, -100)
        batches.append({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels})
    left = iter(range(_PASSES * len(batches)))

    def look(lora: Any, inputs: dict[str, torch.Tensor]) -> Any:
        if next(left, None) is None:
            raise NodeError(
                f"lora.init_lora_weights: EVA found no stable directions in {_PASSES} passes over {len(batches)} "
                "batches of the train split. Lower lora.r or lora.eva_config.tau, add rows, or set "
                "lora.eva_config.use_label_mask = false, so that prompts also count."
            )
        return lora(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])

    initialize_lora_eva_weights(model, batches, forward_fn=look, show_progress_bar=False)


@torch.no_grad()
def _initialize_loftq(model: Any, path: str) -> None:
    """Begin LoftQ's way on a 4-bit base: sBA is the best approximation of what quantization took (arXiv 2310.08659).

    PEFT's own `replace_lora_weights_loftq` wants a GPU and leaves the scale s out, so that an alpha of 2r would
    correct twice as much as was lost.
    """
    import bitsandbytes
    from peft.tuners.lora import Linear4bit

    layers = {name: layer for name, layer in model.get_base_model().named_modules() if isinstance(layer, Linear4bit)}
    weights = original_weights(path, list(layers))
    for name, layer in layers.items():
        stored = layer.get_base_layer().weight
        kept = bitsandbytes.functional.dequantize_4bit(stored.data, stored.quant_state)
        lost = weights[name].to(kept.device, torch.float32) - kept.to(torch.float32)
        left, values, right = torch.linalg.svd(lost, full_matrices=False)
        rank, root = layer.r["default"], values[: layer.r["default"]].sqrt()
        layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
        layer.lora_B["default"].weight.copy_(left[:, :rank] * root / layer.scaling["default"])


def stored_settings(files: dict[str, str]) -> dict[str, Any]:
    """Return the config that is stored with an adapter."""
    config: dict[str, Any] = json.loads(Path(files["adapter_config.json"]).read_text(encoding="utf-8"))
    return config


def original_weights(path: str, modules: list[str]) -> dict[str, torch.Tensor]:
    """Return module -> the weight of its checkpoint; files may leave the first part of a name out, as GPT-2's does.

    :raises NodeError: when the files hold no weight of that name
    """
    file_of, weights = tensor_files(Path(path)), {}
    for module in modules:
        name = f"{module}.weight"
        name = name if name in file_of else name.partition(".")[2]
        if name not in file_of:
            raise NodeError(f"lora.init_lora_weights: {path} has no weight for {module}, which LoftQ needs.")
        with safe_open(file_of[name], framework="pt") as stream:
            weights[module] = stream.get_tensor(name)
    return weights
