"""JSON files, read with distrust, and compressed JSON lines: predictions, examples, curves. Imports no torch."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lorafile.errors import NodeError, named


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write compressed JSON lines; equal rows give equal bytes."""
    with file.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
        for row in rows:
            packed.write(json.dumps(row, ensure_ascii=False, sort_keys=True).encode() + b"\n")


def read_lines(file: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the rows of compressed JSON lines.

    :raises NodeError: when these are none
    """
    try:
        with named(file), gzip.open(file, "rt", encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)
    except (gzip.BadGzipFile, zlib.error, EOFError, ValueError, RecursionError) as error:
        raise NodeError(f"{file} is damaged: it does not contain compressed JSON lines ({error}).") from error


def read_json(file: Path) -> Any:
    """Return what a JSON file holds.

    :raises OSError: when it cannot be read
    :raises ValueError: when it is no file, such as a device without end, no JSON, or nested too deeply to be read
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is no file")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
