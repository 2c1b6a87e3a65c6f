"""Which texts of held-out rows tell that other data hold the same rows. Imports no torch."""

from collections.abc import Iterator
from typing import Any

from lorafile.engine.data.examples import split_rows
from lorafile.engine.data.files import data_file

_DISTINCT = 16  # characters: a shorter text, such as a class or a number, may be in any row


def held_out_texts(splits: dict[str, Any]) -> dict[str, str]:
    """Return text -> split of everything that held-out rows say and no training row does.

    :param splits: split -> `files`, `rows`, `sample_by`, as a `prepare` node reads them
    """
    trained = set(_texts(splits["train"])) if "train" in splits else set()
    held = {split: place for split, place in splits.items() if split != "train"}
    return {text: split for split, place in held.items() for text in _texts(place) if text not in trained}


def _texts(place: dict[str, Any]) -> Iterator[str]:
    files = [data_file(file) for file in place["files"]]
    for _, row in split_rows(place["rows"], files, place["sample_by"]):
        yield from texts_of(row)


def texts_of(row: Any) -> list[str]:
    """Return the long texts of a row, those of its messages too, or its longest; case and spacing are evened out."""
    found: list[str] = []
    waiting = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(" ".join(value.split()).casefold())
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return [text for text in found if len(text) >= _DISTINCT] or [max(found, key=len)] if found else []
