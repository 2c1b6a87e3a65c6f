"""The check of names of data that may mean two things: a well-known set, and a directory of that name."""

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

from lorafile.specs.catalogue import PREFIX, catalogue
from lorafile.specs.configurations import inner_tables
from lorafile.specs.error_messages import Problems
from lorafile.specs.positions import Path


def check_data_names(raw: dict[str, Any], file: File, problems: Problems) -> None:
    """Refuse a name of the catalogue that something next to the spec has, too: neither may be meant.

    :param file: where the spec stands
    """
    for place, name in _paths(raw):
        if isinstance(name, str) and name in catalogue() and (file.parent / name).exists():
            message = (
                f'"{name}" is a data set of the catalogue and also stands next to the spec; write "./{name}" for what '
                f'stands here, or "{PREFIX}{name}" for the data set'
            )
            problems.add(place, message)


def _paths(raw: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield every path of data in a raw document, and its place."""
    yield from _path_in(raw, ())
    for index, block in inner_tables(raw, "sweep"):
        for place, values in _path_in(block, ("sweep", index)):
            yield from (
                ((*place, number), value) for number, value in enumerate(values if isinstance(values, list) else ())
            )
        for number, row in inner_tables(block, "configurations"):
            yield from _path_in(row, ("sweep", index, "configurations", number))


def _path_in(table: dict[str, Any], place: Path) -> Iterator[tuple[Path, Any]]:
    data = table.get("data")
    if isinstance(data, dict) and "path" in data:
        yield (*place, "data", "path"), data["path"]
