"""The line from a worker to the process that applies: what is told, now and then, and whether a stop was asked for."""

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from lorafile.engine.events import Event
from lorafile.engine.request import Report, Stopped

_REPORT_SECONDS = 0.25


class Link:
    """Tells what happens while some work is done.

    :ivar finishing: whether the other end asked to begin no further replicate
    :ivar stopped: whether it asked for a stop, or is gone; from then on every report says so
    """

    def __init__(self, connection: Connection, ending: Callable[[], bool]) -> None:
        self._connection, self._ending = connection, ending
        self.finishing = self.stopped = False

    def send(self, event: Event) -> None:
        """Tell the applying process something.

        :raises OSError: when it is gone
        """
        self._connection.send(event)

    def report(self, key: str) -> Report:
        """Return what a node is to report to: progress is passed on now and then, its end and words always."""
        due = 0.0

        def tell(progress: dict[str, Any]) -> None:
            nonlocal due
            now = time.monotonic()
            last = "step" in progress and progress["step"] == progress.get("steps")
            if now >= due or last or "note" in progress:
                due = now + _REPORT_SECONDS
                if progress:
                    self._pass_on(key, progress)
                self.heed()
            if self.stopped or self._ending():
                self.stopped = True
                raise Stopped

        return tell

    def heed(self) -> None:
        """Take in what the other end asks for."""
        try:
            while self._connection.poll():
                word = self._connection.recv()
                self.finishing |= word == "finish"
                self.stopped |= word == "stop"
        except (OSError, EOFError):  # the applying process is gone: keep what there is, and end
            self.stopped = True

    def _pass_on(self, key: str, progress: dict[str, Any]) -> None:
        try:
            self.send(Event("progress", key, progress))
        except OSError:
            self.stopped = True
