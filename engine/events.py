"""What a worker says to the process that applies. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from lorafile.engine.request import Done


@dataclass(frozen=True)
class Event:
    """What a worker says: `started`, `progress`, `ended` (with what came of the node), `stored?`, or `idle`."""

    what: str
    key: str = ""
    progress: dict[str, Any] | None = None
    done: Done | None = None
    directory: str = ""
    started: str = ""
    seconds: float = 0.0
    environment: dict[str, Any] | None = None
