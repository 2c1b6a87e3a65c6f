"""JSON files that somebody else may have written: read with distrust. Imports no torch."""

import json
from pathlib import Path
from typing import Any


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
