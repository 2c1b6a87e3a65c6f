"""Sending what only the local state has: objects first, then the bundle that names them."""

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.errors import StateError
from lorafile.state import State
from lorafile.state.errors import translate_errors
from lorafile.state.remote.bucket import Bucket, LostLock
from lorafile.state.remote.changes import Changes, unsent
from lorafile.state.remote.knowledge import Knowledge
from lorafile.state.remote.lock import RemoteLock

MOST_ATTEMPTS, EVERY_SECONDS = 200, 30.0
_AT_ONCE = 4  # uploads
_log = logging.getLogger(__name__)


@dataclass
class Sender:
    """Sends bundles under one lock.

    :ivar lock: None where none was asked for; then a bundle's name is made of the time
    """

    bucket: Bucket
    state: State
    knowledge: Knowledge
    lock: RemoteLock | None
    number: int = 0  # of the highest lock that was taken, where there is none
    sent: int = 0
    _sequence: int = field(default=0, init=False)

    def send(self) -> int:
        """Send all that the remote does not have; return how many attempts that were.

        :raises LostLock: when the lock is another's by now; Unreachable: when the rest has to wait
        """
        total, more = 0, True
        while more:
            changes = unsent(self.state, self.knowledge, MOST_ATTEMPTS)
            if changes.lines:
                self._send(changes)
            total, more = total + changes.attempts, changes.more and changes.attempts > 0
        self.sent += total
        return total

    def _send(self, changes: Changes) -> None:
        new = [digest for digest in changes.outside if digest not in self.knowledge.objects]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._upload, new))
        directory = self.state.directory
        with translate_errors(directory), tempfile.TemporaryDirectory(prefix="exporting-", dir=directory) as folder:
            file = Path(folder) / "bundle.tar"
            changes.write(self.state, file)
            name = self._create(file.read_bytes())
        self.knowledge.add_bundle(name, changes.facts, changes.outside, changes.declared)

    def _upload(self, digest: str) -> None:
        self.bucket.upload(f"objects/{digest[:2]}/{digest}", self.state.objects.proven(digest))

    def _create(self, content: bytes) -> str:
        """Create the next bundle and return its name."""
        if self.lock is None:
            name = f"bundles/{self.number}-{time.time_ns() // 1000}.tar"
            self.bucket.write(name, content)
            return name
        self.lock.check()
        name = f"bundles/{self.lock.number}-{self._sequence}.tar"
        self._sequence += 1
        if not self.bucket.create(name, content):
            raise StateError(
                f"{self.bucket.url}/{name} already exists and was not written from here. Run the command again."
            )
        return name


class Sending:
    """Sends in a thread, while an apply works: every 30 s, or as soon as 200 attempts wait.

    :param on_lost: called once, from the thread, when the lock is known to be lost
    """

    def __init__(self, sender: Sender, on_lost: Callable[[], None]) -> None:
        self._sender, self._on_lost = sender, on_lost
        self._due, self._ended, self._waiting = threading.Event(), threading.Event(), 0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="lora-remote-sender", daemon=True)

    def __enter__(self) -> "Sending":
        if self._sender.lock is not None:
            self._sender.lock.on_lost = self._on_lost
            if self._sender.lock.lost:
                self._on_lost()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the bundle that is being sent; what is left goes with the last one."""
        self._ended.set()
        self._due.set()
        self._thread.join()

    def count(self) -> None:
        """Note that one more attempt is recorded."""
        self._waiting += 1
        if self._waiting >= MOST_ATTEMPTS:
            self._due.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._due.wait(EVERY_SECONDS)
            if self._ended.is_set():
                return
            self._due.clear()
            self._waiting = 0
            try:
                self._sender.send()
                self.failure = None
            except LostLock:
                self._on_lost()
                return
            except StateError as error:  # it is tried again; the last one is not
                if self.failure is None:
                    _log.warning("%s The apply continues; results are sent when the remote responds again.", error)
                self.failure = error
            except Exception as error:  # told when the last bundle fails in the same way
                self.failure = error
