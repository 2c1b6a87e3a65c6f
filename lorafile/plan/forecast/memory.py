"""Peak memory by arithmetic: what PyTorch keeps of a step, part by part; docs/forecast.md derives it."""

import math
from typing import Any

from lorafile.graph.graph import GraphNode
from lorafile.plan.forecast.shape import Shape, micro_batch
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS
from lorafile.specs.tables.quantizations import weight_bits

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SLACK = 1.05  # what the allocator holds beyond what it gave: 22.3 for 21.2, 38.9 for 35.9 GB (PEFT's comparison)
PROCESS = 400 * 2**20  # resident size of a worker that has loaded nothing: Python, torch, transformers, peft
HEAP = 1.5  # resident bytes of a CPU worker for each byte of what is not its weights: what its heap keeps in between
EVALUATED = 16  # examples at a time
PIECE, CPU_PIECE = 2**26, 2**21  # logits that a loss holds in float32 at a time; `engine/model/loss.py` says so

Parts = dict[str, float]


def peak_bytes(node: GraphNode, shape: Shape, gpu: bool = True) -> float:
    """Return the bytes at the peak of a node: what is allocated on a GPU; on a CPU the resident size of the worker."""
    parts = memory(node, shape, gpu)
    if gpu:
        return sum(parts.values())
    weights = parts.pop("weights")
    return PROCESS + weights + max(HEAP * sum(parts.values()), shape.model.bytes)  # the file that it is loaded from


def memory(node: GraphNode, shape: Shape, gpu: bool = True) -> Parts:
    """Return the bytes of tensors at the peak of a node, by what they are for."""
    width = BYTES[shape.dtype]
    parts = {"weights": weight_bytes(node.settings["quantization"], shape, width)}
    if node.settings["quantization"] is not None and not gpu:  # the heap keeps what was read before it was quantized
        parts["weights"] += float(shape.model.parameters * width)
    if node.kind == "merge":  # a quantized base is dequantized, and a float32 one is the only copy
        parts["weights"] = float(shape.model.parameters * max(width, BYTES[node.settings["merging"]["dtype"]]))
    training = node.settings.get("training") or {}
    if not training:
        positions = EVALUATED * shape.longest
        live = positions * (2 * shape.hidden + shape.intermediate) * 4 * width
        words = positions * shape.supervised * shape.vocabulary
        piece = min(words, PIECE if gpu else CPU_PIECE)
        logits = words * width + 2 * 8 * piece  # in double precision
        return parts | {"activations": max(0.0, live - logits), "logits": logits}  # no block is kept until they come
    return parts | _training(node.settings, shape, training, width, gpu)


def _training(settings: dict[str, Any], shape: Shape, training: dict[str, Any], width: int, gpu: bool) -> Parts:
    """Return what a training step adds to the weights."""
    full = settings["adapter"]["method"] == "full"
    trained = width if full else 4  # PEFT holds adapters in float32
    positions = math.prod(micro_batch(training, shape))
    layer = positions * (_layer(shape, width) + (_inputs(shape, width) if full else 0))
    read = 0.0 if full else positions * _read(settings["adapter"], shape, width)
    blocks = shape.layers if full else shape.reach.blocks  # those below have nothing to hand a gradient to
    if training.get("gradient_checkpointing"):
        kept = positions * shape.hidden * width * shape.layers + layer + read / max(blocks, 1)
    else:
        kept = blocks * layer + read
    # The logits go before the gradients of a block come, so that only the larger of the two counts.
    back = positions * (3 * shape.intermediate + 4 * shape.hidden) * width
    back += shape.widest * width if settings["quantization"] else 0
    logits = _logits(positions, shape, PIECE if gpu else CPU_PIECE)
    gradients = shape.adapter * trained
    return {
        "adapter": 0.0 if full else float(shape.adapter * trained),
        "gradients": max(0.0, gradients - kept - logits),  # they come as what was kept for them goes
        "optimizer": _optimizer(settings, shape, training, trained),
        "activations": kept + max(0.0, back - logits),
        "logits": logits,
    }


def _optimizer(settings: dict[str, Any], shape: Shape, training: dict[str, Any], width: int) -> float:
    """Return the bytes of an optimizer's state, for matrices of which the adapter's rank is the smaller side."""
    rank = settings["adapter"].get("r") or shape.hidden
    optimizer = OPTIMIZERS[training.get("optim", DEFAULT_OPTIMIZER)]
    if optimizer.factored:
        return optimizer.state_bytes((rank, -(-shape.adapter // rank)), width)
    return optimizer.state_bytes((shape.adapter,), width)


def _layer(shape: Shape, width: int) -> float:
    """Return the bytes that a block keeps of one position: its frozen weights keep none of their inputs.

    Two norms keep their input in float32; attention its queries, keys, values and result; a gated MLP three
    intermediate widths.
    """
    attention = 2 * shape.hidden + 2 * shape.values
    return 2 * 4 * shape.hidden + width * (attention + 3 * shape.intermediate)


def _inputs(shape: Shape, width: int) -> float:
    """Return the bytes of a position that a block also keeps because its weights are trained: their inputs."""
    return width * (5 * shape.hidden + shape.intermediate)


def _read(adapter: dict[str, Any], shape: Shape, width: int) -> float:
    """Return the bytes of a position that adapters keep in all blocks: what they read, and what is between factors.

    Over a half-precision base each keeps a float32 copy of its own; otherwise those of one input share it. Dropout
    keeps a mask, and gives each its own copy.
    """
    dropout = any(float(value or 0) > 0 for name, value in adapter.items() if name.endswith("dropout"))
    inputs = shape.reach.inputs if width < 4 or dropout else shape.reach.distinct
    return 4.0 * (inputs + shape.reach.between + (shape.reach.inputs if dropout else 0))


def _logits(positions: float, shape: Shape, piece: int) -> float:
    """Return the bytes of a loss over the supervised positions.

    The logits and their gradient are in the base's own type (the gradient of float16 in float32). Their logarithms are
    float32, piece by piece, next to a copy of the piece where the base is narrower.
    """
    words, width = positions * shape.supervised * shape.vocabulary, BYTES[shape.dtype]
    gradient = 4 if shape.dtype == "float16" else width
    return words * (width + gradient) + min(words, piece) * (8 if width < 4 else 4)


def weight_bytes(quantization: dict[str, Any] | None, shape: Shape, width: int) -> float:
    """Return the bytes of a base's weights.

    Quantized: bits and scales for the linear layers of its blocks, its own type for the rest. A checkpoint that was
    quantized before takes what its files do.
    """
    if shape.model.settings.get("quantization_config"):
        return float(shape.model.bytes)
    if quantization is None:
        return float(shape.model.parameters * width)
    bits, scales = weight_bits(quantization, 8 * width)
    return (shape.model.parameters - shape.linear) * width + shape.linear * (bits + scales) / 8
