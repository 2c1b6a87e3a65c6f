"""What takes long before a plan is there: reading, hashing, walking. A terminal asks what it is, and how far."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Task:
    """Something that may take long.

    :ivar total: of what is `done` so far, in `unit`; 0 where it is not known
    """

    what: str
    total: int = 0
    unit: str = "bytes"
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def advance(self, count: int) -> None:
        """Say that so much more is done."""
        self.done += count


_running: list[Task] = []
on_end: list[Callable[[], None]] = []  # who wants to know at once that something is over


@contextlib.contextmanager
def task(what: str, total: int = 0, unit: str = "bytes") -> Iterator[Task]:
    """Let something that may take long be seen while it runs."""
    running = Task(what, total, unit)
    _running.append(running)
    try:
        yield running
    finally:
        _running.remove(running)
        for tell in on_end:
            tell()


def current() -> Task | None:
    """Return what runs now, the innermost of several; None where nothing does."""
    return _running[-1] if _running else None
