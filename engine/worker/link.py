"""The line from a worker to the process that applies: what is told, now and then, and whether a stop was asked for."""

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from lorafile.engine.request import Report, Stopped
from lorafile.engine.worker.events import Event

_REPORT_SECONDS = 0.25
BEAT_SECONDS = 5.0  # between two signs of life
ALIVE = Event("alive")


class Line:
    """A worker's connection, over which its work and its heartbeat both send.

    The heartbeat is a thread of its own, so that it goes on while the work computes or waits: a worker that sends none
    is frozen, or gone.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._sending = connection, threading.Lock()
        self.poll, self.recv = connection.poll, connection.recv

    def send(self, message: object) -> None:
        """Send something.

        :raises OSError: when the other end is gone
        """
        with self._sending:
            self._connection.send(message)

    def beat(self) -> None:
        """Send a sign of life now, and one every few seconds until the other end is gone."""
        self.send(ALIVE)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            try:
                self.send(ALIVE)
            except OSError:  # the work notices it, too
                return


class Link:
    """Tells what happens while some work is done.

    :ivar finishing: whether the other end asked to begin no further replicate
    :ivar stopped: whether it asked for a stop, or is gone; from then on every report says so
    """

    def __init__(self, line: Line, ending: Callable[[], bool]) -> None:
        self._line, self._ending = line, ending
        self.finishing = self.stopped = False

    def send(self, event: Event) -> None:
        """Tell the applying process something.

        :raises OSError: when it is gone
        """
        self._line.send(event)

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
            while self._line.poll():
                word = self._line.recv()
                self.finishing |= word == "finish"
                self.stopped |= word == "stop"
        except (OSError, EOFError):  # the applying process is gone: keep what there is, and end
            self.stopped = True

    def _pass_on(self, key: str, progress: dict[str, Any]) -> None:
        try:
            self.send(Event("progress", key, progress))
        except OSError:
            self.stopped = True
