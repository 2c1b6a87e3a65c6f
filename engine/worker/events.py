"""What a worker says to the process that applies. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from lorafile.engine.request import PackSizes, Result


@dataclass(frozen=True)
class Event:
    """What a worker says.

    `started`, `progress` and `ended` (with what came of it) of a node; `width` when it has measured how many adapters
    go together, and gives back the replicates beyond; `stored?` and `idle` when its work is done; `alive` every few
    seconds, whatever it does.
    """

    what: str
    key: str = ""
    progress: dict[str, Any] | None = None
    done: Result | None = None
    directory: str = ""
    started: str = ""
    seconds: float = 0.0
    environment: dict[str, Any] | None = None
    widths: PackSizes | None = None
