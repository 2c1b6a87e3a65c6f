"""The names, types and shapes of a checkpoint's tensors, from the headers of its weight files."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from lorafile.errors import NodeError

_LARGEST = 2**62


@dataclass(frozen=True)
class Header:
    """One tensor of a safetensors file, as its header tells: type, shape, and where its bytes are."""

    file: Path
    dtype: str
    shape: list[int]
    start: int
    stop: int


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
                    raise ValueError(f"its header does not match its tensor {name[:80]}")
                tensors[name] = Header(file, row["dtype"], row["shape"], start, stop)
        return tensors
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NodeError(f"model.path: {file} is not a safetensors file: {error}.") from error
