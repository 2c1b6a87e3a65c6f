"""Rows of stored objects, as analyses and views read them: one that is gone or damaged is named."""

from collections.abc import Iterator
from typing import Any

from lorafile.files.jsonl import read_lines
from lorafile.state import Objects
from lorafile.state.objects import reading


def stored_rows(objects: Objects, digest: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of an object.

    :raises StateError: when it was taken away since somebody looked, is damaged, or cannot be read
    """
    with reading(objects.path(digest)):
        rows = list(read_lines(objects.proven(digest)))
    yield from rows
