"""sha256 of files, texts and JSON, as hex digits."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def file_digest(file: Path, on_read: Callable[[int], None] | None = None) -> str:
    """Return the digest of a file's bytes.

    :param on_read: called with the number of bytes of each read
    """
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while content := stream.read(_CHUNK):
            digest.update(content)
            if on_read is not None:
                on_read(len(content))
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """Return the digest of a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_digest(value: Any, sort_keys: bool = False) -> str:
    """Return the digest of a value as `json.dumps` writes it; not RFC 8785, which keys are made of (state/keys.py)."""
    return text_digest(json.dumps(value, sort_keys=sort_keys))
