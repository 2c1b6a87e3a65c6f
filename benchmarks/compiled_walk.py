"""Walks of steps whose blocks and loss are compiled with torch.compile, as some of the measured tools do it.

What torch.compile saves between the passes decides the memory, so the walk lets its own partitioner decide: each block
is traced, decomposed and split as Inductor does it. What Inductor then fuses exists here one tensor after the other
while a block runs. A compiled loss is fused, and its stand-in never holds logits in float32.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from functorch.compile import aot_function, min_cut_rematerialization_partition, nop
from torch import nn
from torch._inductor.decomposition import select_decomp_table
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lorafile.engine.batching.batches import Batch
from lorafile.engine.training import memory_walk


@torch.library.custom_op("walk::attended", mutates_args=())
def attended(
    query: torch.Tensor,
    key: torch.Tensor,  # noqa: ARG001  (what an operation reads is kept for the backward pass)
    value: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result and the row sums of fused attention, an operation that no partitioner computes twice."""
    result = query.new_empty((*query.shape[:-1], value.shape[-1]))
    return result, query.new_empty(query.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("walk::attended_backward", mutates_args=())
def attended_backward(
    gradient: torch.Tensor,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sums: torch.Tensor,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of fused attention."""
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@torch.library.custom_op("walk::dequantized", mutates_args=())
def dequantized(shape: list[int], like: torch.Tensor) -> torch.Tensor:
    """Return a packed weight in full."""
    return like.new_empty(shape)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs, *output)


def _attended_gradients(ctx: Any, gradient: torch.Tensor, _: Any) -> Any:
    query, key, value, _result, sums = ctx.saved_tensors
    return attended_backward(gradient, query, key, value, sums)


attended.register_fake(attended._init_fn)
attended_backward.register_fake(attended_backward._init_fn)
dequantized.register_fake(dequantized._init_fn)
attended.register_autograd(_attended_gradients, setup_context=_save)


class FusedLoss(torch.autograd.Function):
    """A compiled cross-entropy: it keeps the logits in their type, and one number for each row."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        """Return the loss over logits [n, vocabulary]."""
        ctx.save_for_backward(logits, logits.new_empty(len(logits), dtype=torch.float32))
        return logits.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *_gradients: torch.Tensor) -> Any:
        """Return gradients in the type of the logits."""
        return torch.empty_like(ctx.saved_tensors[0])


class CompiledBlock(nn.Module):
    """A block of a model, compiled; with checkpointing, all of it is computed again in the backward pass."""

    def __init__(self, block: nn.Module, checkpointing: bool) -> None:
        super().__init__()
        self.block, self.checkpointing = block, checkpointing
        self.asked: tuple[Any, Any] | None = None  # arguments of the first call
        self.compiled: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block; until it is compiled, only remember its arguments."""
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self.compiled is None:
            self.asked = args, kwargs
            return args[0]
        own = dict(self.block.named_parameters())
        if self.checkpointing:
            return checkpoint(self.compiled, own, *args, use_reentrant=False, **kwargs)
        return self.compiled(own, *args, **kwargs)

    def compile_block(self, trained_below: bool) -> Any:
        """Compile both passes and return them; no dispatch mode may be on."""
        block = self.block

        def run(own: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(block, own, args, kwargs)

        (hidden, *others), kwargs = self.asked or ((), {})
        split = {"partition_fn": min_cut_rematerialization_partition, "decompositions": select_decomp_table()}
        compiled = aot_function(run, fw_compiler=nop, bw_compiler=nop, **split)
        own = dict(block.named_parameters())
        result = compiled(own, hidden.detach().requires_grad_(trained_below), *others, **kwargs)
        (result[0] if isinstance(result, tuple) else result).sum().backward()
        self.zero_grad()
        return compiled


class QuantizedProduct(torch.autograd.Function):
    """A product with a quantized weight, which both passes unpack."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int], *_: Any) -> torch.Tensor:
        """Return x [.., in] times a weight [out, in]."""
        ctx.shape = shape
        return functional.linear(x, dequantized(list(shape), x))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Return the gradient of x."""
        (gradient,) = gradients
        return gradient @ dequantized(list(ctx.shape), gradient), None, None, None


def attend(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> torch.Tensor:
    """Stand in for torch's scaled_dot_product_attention."""
    result: torch.Tensor = attended(query, key, value)[0]
    return result


def tuned_and_compiled(model: Any, step: memory_walk.Step) -> Any:
    """Return the model with its adapter on and its blocks compiled."""
    training = step.settings["training"]
    checkpointing = training["gradient_checkpointing"]
    eager = {**step.settings, "training": {**training, "gradient_checkpointing": False}}
    tuned = TUNED(model, replace(step, settings=eager))
    inner = tuned.get_base_model() if hasattr(tuned, "get_base_model") else tuned
    holder = inner.base_model
    holder.layers = nn.ModuleList([CompiledBlock(block, checkpointing) for block in holder.layers])
    batch: Batch = memory_walk._batch(step)
    mode = memory_walk._MetaTensors(model.get_input_embeddings().weight.shape[0])
    with memory_walk._fused_attention():
        with mode, torch.no_grad():
            tuned.train()(**batch.inputs)
        trained = step.settings["adapter"]["method"] == "full"
        first, later = holder.layers[0].compile_block(trained), holder.layers[1].compile_block(True)
    for number, block in enumerate(holder.layers):
        block.compiled = later if number else first
    return tuned


TUNED = memory_walk._tuned


@contextlib.contextmanager
def compiled_blocks() -> Iterator[None]:
    """While this lasts, walks are those of compiled blocks."""
    before = memory_walk._tuned, memory_walk._attend, memory_walk._Dequantized
    memory_walk._tuned, memory_walk._attend, memory_walk._Dequantized = tuned_and_compiled, attend, QuantizedProduct
    try:
        yield
    finally:
        memory_walk._tuned, memory_walk._attend, memory_walk._Dequantized = before
