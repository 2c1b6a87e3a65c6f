"""The peak memory of a training step, on hardware that need not be at hand.

The real model is built on the meta device, which has shapes and no bytes, and one step is walked through it while a
dispatch mode counts the storages that are alive. Attention and quantized layers have stand-ins: what the kernels of
a GPU keep for the backward pass is known, and the meta device would pick others.

Run as a program it reads a JSON list of steps and writes a JSON list of what they hold, so that a plan never
imports torch.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lorafile.engine.batching.batches import Batch
from lorafile.engine.model.adapters import peft_errors
from lorafile.engine.model.loss import summed_loss
from lorafile.engine.model.methods import peft_config
from lorafile.engine.model.peak_memory import LiveTensors
from lorafile.engine.quiet import quiet_libraries
from lorafile.engine.request import Request
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS


@dataclass(frozen=True)
class Step:
    """A training step.

    :ivar config: the model's config.json
    :ivar settings: resolved sections: `model`, `quantization`, `adapter`, `training`
    :ivar packed: linear layers that are quantized: dotted name -> bytes of the packed weight and its constants
    :ivar examples: of a micro-batch, `length` tokens each, of which `supervised` are in the loss
    :ivar adapter_dtype: type of the adapter; PEFT holds it in float32 whatever the base is
    :ivar saves_inputs: quantized layers keep their inputs for the backward pass, as bitsandbytes did before 0.43.2
    :ivar unpacked_dtype: in which quantized weights are unpacked, before they are cast; empty: the base's
    """

    config: dict[str, Any]
    settings: dict[str, Any]
    examples: int
    length: int
    supervised: int
    packed: dict[str, int] = field(default_factory=dict)
    adapter_dtype: str = "float32"
    saves_inputs: bool = False
    unpacked_dtype: str = ""


@dataclass(frozen=True)
class StepMemory:
    """Bytes alive at the peak of a step, by what they are for."""

    weights: int
    adapter: int
    optimizer: int
    logits: int
    activations: int  # and gradients


class _MetaTensors(LiveTensors):
    """Counts the tensors of a step on the meta device, logits by themselves."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it returns; where a value is asked for, there is none: nothing is padded."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return True
        return super().__torch_dispatch__(func, types, args, kwargs)

    def kind(self, tensor: torch.Tensor) -> str:
        """Tell logits from other activations by their last dimension."""
        return "logits" if tensor.ndim > 1 and tensor.shape[-1] == self._vocabulary else "activations"


class _Attended(torch.autograd.Function):
    """Attention as fused kernels leave it: queries, keys, values, the result and a sum for each row stay; no matrix."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return something of the result's shape [b, heads, t, width]."""
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *_gradients: torch.Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attend(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> torch.Tensor:
    """Stand in for torch's scaled_dot_product_attention."""
    attended: torch.Tensor = _Attended.apply(query, key, value)  # type: ignore[no-untyped-call]
    return attended


@contextlib.contextmanager
def _fused_attention() -> Iterator[None]:
    """While this lasts attention is that of a fused kernel; on the meta device torch would write out its matrix."""
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attend
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original


class _Dequantized(torch.autograd.Function):
    """A product with a quantized weight, which is in full only while it is used, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype, saves: bool) -> torch.Tensor:
        """Return x [.., in] times a weight [out, in] that is unpacked in a type, and cast to that of x."""
        ctx.shape, ctx.dtype = shape, dtype
        ctx.save_for_backward(*([x] if saves else []))
        return functional.linear(x, x.new_empty(shape, dtype=dtype).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.shape, dtype=ctx.dtype).to(gradient.dtype), None, None, None


class _Quantized(nn.Linear):
    """A linear layer whose weight is packed into so many bytes."""

    def __init__(self, like: nn.Linear, size: int, step: Step) -> None:
        super().__init__(like.in_features, like.out_features, bias=False, device="meta", dtype=like.weight.dtype)
        self.saves = step.saves_inputs
        self.unpacked = getattr(torch, step.unpacked_dtype) if step.unpacked_dtype else like.weight.dtype
        self.weight = nn.Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False)
        self.bias = like.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (self.out_features, self.in_features)
        product: torch.Tensor = _Dequantized.apply(x, shape, self.unpacked, self.saves)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


def walk(step: Step) -> StepMemory:
    """Walk one training step, forward and backward, in a state in which the optimizer has its moments."""
    model = _model(step)
    mode = _MetaTensors(model.get_input_embeddings().weight.shape[0])
    tuned = _tuned(model, step)
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    full = step.settings["adapter"]["method"] == "full"
    for parameter in [*tuned.parameters(), *tuned.buffers()]:
        mode.count(parameter, "adapter" if parameter.requires_grad and not full else "weights")
    training = step.settings["training"]
    optimizer = OPTIMIZERS[training.get("optim", DEFAULT_OPTIMIZER)]
    sizes = [int(optimizer.state_bytes(parameter.shape, parameter.element_size())) for parameter in trained]
    states = [torch.empty(size, dtype=torch.uint8, device="meta") for size in sizes]  # held until the end
    for state in states:
        mode.count(state, "optimizer")
    dtype = torch.bfloat16 if training["bf16"] else torch.float16
    with _fused_attention(), mode, torch.autocast("cuda", dtype=dtype, enabled=training["bf16"] or training["fp16"]):
        _once(tuned.train(), step)
    return StepMemory(**{name: mode.peak_by_kind[name] for name in StepMemory.__annotations__})


def _once(model: Any, step: Step) -> None:
    """Compute the engine's own loss at the supervised positions, and its gradients."""
    summed_loss(model, _batch(step)).backward()


def _batch(step: Step) -> Batch:
    """Return a micro-batch on the meta device; only which tokens are supervised, the last ones, has values."""
    ids = torch.zeros(step.examples, step.length, dtype=torch.int64, device="meta")
    columns = max(1, min(step.length - 1, -(-step.supervised // step.examples)))
    supervised = torch.zeros(step.examples, step.length, dtype=torch.bool)
    supervised[:, -columns:] = True
    return Batch(list(range(step.examples)), ids, torch.ones_like(ids), supervised)


def _model(step: Step) -> Any:
    """Return the bare model on the meta device, frozen."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in step.config.items() if key not in ("model_type", "quantization_config")}
    config = AutoConfig.for_model(step.config["model_type"], **fields)
    options = {"dtype": getattr(torch, step.settings["model"]["dtype"]), "attn_implementation": "sdpa"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, **options)
        for name, size in step.packed.items():
            parent, _, child = name.rpartition(".")
            holder = model.get_submodule(parent)
            setattr(holder, child, _Quantized(getattr(holder, child), size, step))
    model.requires_grad_(step.settings["adapter"]["method"] == "full")
    return model


def _tuned(model: Any, step: Step) -> Any:
    """Return the model with its adapter on."""
    from peft import get_peft_model

    training = step.settings["training"]
    if step.settings["adapter"]["method"] != "full":
        started = {**step.settings, "adapter": {**step.settings["adapter"], "init_lora_weights": True}}
        with torch.device("meta"), peft_errors(started["adapter"]["method"]):
            model = get_peft_model(model, peft_config(Request("", "train", "", started, {}), 1))
        for name, parameter in model.named_parameters():
            if training.get("optim") == "lorafa" and "lora_A" in name:
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, step.adapter_dtype))
    if training["gradient_checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def main() -> None:
    """Walk the steps on standard input; the result of one that cannot be walked is null."""
    quiet_libraries()
    results: list[dict[str, int] | None] = []
    for step in json.load(sys.stdin):
        try:
            results.append(asdict(walk(Step(**step))))
        except Exception as error:  # a model that cannot be built from its config alone; the forecast is analytic then
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            results.append(None)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
