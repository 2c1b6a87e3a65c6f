"""The inventory of a checkpoint from the headers of its weight files: linear layers with their true shapes.

A checkpoint that was quantized before holds packed tensors; the tensors next to them say which shapes they have.
"""

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lorafile.errors import NodeError

_LARGEST = 2**62
_WORD = 32  # bits of the integers that GPTQ, AWQ and compressed-tensors pack into
# How the names end of tensors that belong to a packed weight and are no weights themselves.
_COMPANIONS = (
    *(".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format"),  # bitsandbytes
    *(".qzeros", ".scales", ".g_idx"),  # GPTQ, AWQ
    *(".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx", ".weight_global_scale", ".input_scale"),
    *("_weight_scale", "_weight_zero_point"),  # torchao
)


@dataclass(frozen=True)
class Header:
    """One tensor of a safetensors file, as its header tells: type, shape, and where its bytes are."""

    file: Path
    dtype: str
    shape: list[int]
    start: int
    stop: int

    def read(self) -> bytes:
        """Return its bytes; meant for the few that describe another tensor."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.stop - self.start)


@dataclass(frozen=True)
class Inventory:
    """What a checkpoint holds.

    :ivar modules: linear layers inside its blocks: dotted name -> [out, in], however the layer stores its weight
    :ivar tensors: every other tensor (norms, biases, embeddings, head): dotted name -> shape
    :ivar parameters: how many weights there are, packed ones counted one by one
    """

    modules: dict[str, list[int]]
    tensors: dict[str, list[int]]
    parameters: int


def inventory(tensors: dict[str, Header], quantization: dict[str, Any] | None) -> Inventory:
    """Return what a checkpoint holds; embeddings and the output head stand outside of its numbered blocks.

    :param quantization: `quantization_config` of its config.json
    """
    shapes: dict[str, list[int]] = {}
    for name in tensors:
        module = _packed_module(name) if quantization else None
        if module is not None:
            shapes[f"{module}.weight"] = _shape(module, name, tensors, quantization or {})
        elif not quantization or not (name.endswith(_COMPANIONS) or ".quant_state." in name):
            shapes.setdefault(name, tensors[name].shape)
    linear = {name.removesuffix(".weight") for name, shape in shapes.items() if _is_linear(name, shape)}
    modules = {module: _true_shape(module, shapes) for module in sorted(linear)}
    others = {name: shape for name, shape in sorted(shapes.items()) if name.removesuffix(".weight") not in linear}
    return Inventory(modules, others, sum(prod(shape) for shape in shapes.values()))


def _true_shape(module: str, shapes: dict[str, list[int]]) -> list[int]:
    """Return [out, in]: GPT-2's Conv1D stores (in, out), and the length of its bias tells."""
    out, into = shapes[f"{module}.weight"]
    return [into, out] if shapes.get(f"{module}.bias") == [into] != [out] else [out, into]


def _is_linear(name: str, shape: list[int]) -> bool:
    module, _, kind = name.rpartition(".")
    return kind == "weight" and len(shape) == 2 and any(part.isdigit() for part in module.split("."))


def _packed_module(name: str) -> str | None:
    for ending in (".qweight", ".weight_packed", "._weight_qdata", ".weight_qdata"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    module, separator, _ = name.partition(".weight.quant_state.bitsandbytes__")
    return module if separator else None


def _shape(module: str, name: str, tensors: dict[str, Header], quantization: dict[str, Any]) -> list[int]:
    """Return the shape [out, in] of a packed weight.

    bitsandbytes writes it as JSON in its quantization state, compressed-tensors as numbers in another tensor. GPTQ
    packs along the input (in · bits / 32, out), AWQ along the output (in, out · bits / 32); torchao packs no 8 bits.
    """
    header = tensors[name]
    if ".quant_state." in name:
        return [int(size) for size in json.loads(header.read())["shape"]]
    if numbers := tensors.get(f"{module}.weight_shape"):
        return list(struct.unpack(f"<{prod(numbers.shape)}{'q' if numbers.dtype == 'I64' else 'i'}", numbers.read()))
    if name.endswith(".qweight"):
        packed = _WORD // int(quantization.get("bits") or quantization.get("w_bit") or 4)
        if quantization.get("quant_method") == "awq":
            return [header.shape[1] * packed, header.shape[0]]
        return [header.shape[1], header.shape[0] * packed]
    return header.shape


def headers(file: Path) -> dict[str, Header]:
    """Return the tensors of a safetensors file, without reading one.

    The format: 8 bytes with the header's length, little endian, then the header as JSON, then the tensors.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(100_000_000, file.stat().st_size):
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
            size = file.stat().st_size
        tensors = {}
        for name, row in header.items():
            if name != "__metadata__":
                start, stop = (8 + length + offset for offset in row["data_offsets"])
                whole = all(type(number) is int and 0 <= number < _LARGEST for number in (*row["shape"], start, stop))
                if not whole or not 8 + length <= start <= stop <= size or not isinstance(row["dtype"], str):
                    raise ValueError(f"its header does not fit its tensor {name[:80]}")
                tensors[name] = Header(file, row["dtype"], row["shape"], start, stop)
        return tensors
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NodeError(f"model.path: {file} is not a safetensors file: {error}.") from error
