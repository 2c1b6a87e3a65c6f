"""What a model's files hold, however they are written: digests that are the same after resharding or indenting."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lorafile.files.digests import file_digest, json_digest
from lorafile.lock.weights import Header

_CHUNK = 1 << 24


def tensors_digest(tensors: dict[str, Header], on_read: Callable[[int], None] | None = None) -> str:
    """Return the digest over the tensors of a checkpoint: name, type, shape and bytes of each.

    :param on_read: called with the number of bytes of each read
    """
    rows = [
        (name, header.dtype, header.shape, _bytes_digest(header, on_read)) for name, header in sorted(tensors.items())
    ]
    return json_digest(rows)


def tokenizer_digest(files: Iterable[Path]) -> str:
    """Return the digest over what a tokenizer's files say, without its chat template, which `prepare` alone reads.

    JSON counts without its white space; the order of its names stays, because it may mean something.
    """
    rows = [(file.name, _text_digest(file)) for file in sorted(files) if not file.name.startswith("chat_template")]
    return json_digest(rows)


def _bytes_digest(header: Header, on_read: Callable[[int], None] | None) -> str:
    digest, left = hashlib.sha256(), header.stop - header.start
    with header.file.open("rb") as stream:
        stream.seek(header.start)
        while left and (content := stream.read(min(left, _CHUNK))):
            digest.update(content)
            left -= len(content)
            if on_read is not None:
                on_read(len(content))
    return digest.hexdigest()


def _text_digest(file: Path) -> str:
    """Return the digest of a file, of JSON without white space; JSON that names one thing twice counts by its bytes."""
    if file.suffix != ".json":
        return file_digest(file)
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return file_digest(file)
    if file.name == "tokenizer_config.json" and isinstance(content, dict):
        content.pop("chat_template", None)
    return json_digest(content)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(names := dict(pairs)) != len(pairs):
        raise ValueError("a duplicate name")
    return names
