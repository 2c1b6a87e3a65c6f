"""The remote's lock: a lease that its holder renews, made of files that are never overwritten by others.

`lock/<n>` says who holds the lock; creating it is taking it. `lock/<n>.beat` is rewritten while its holder lives,
and `lock/<n>.done` once it has ended, or was told to. The lock is free where the highest number is done, or was renewed
longer than a lease ago: both times are the server's, so that no clock here counts.
"""

import contextlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from lorafile.errors import StateError
from lorafile.state.lock import who_runs_this
from lorafile.state.remote.bucket import QUICK, Bucket, Entry, LostLock
from lorafile.units import duration, utc_now

LEASE, BEAT = 60.0, 15.0  # seconds
_POLL_SECONDS = 1.0
_KEPT = 20  # locks whose files stay
_LONGEST = 100  # characters of a command that are shown
lock_mode: ContextVar[str] = ContextVar("lock_mode", default="lease")  # `none` where --state-lock says so
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who took the lock: `id` is drawn, and tells two that are alike."""

    user: str
    host: str
    pid: int
    command: str
    since: str
    id: str

    @classmethod
    def of(cls, content: bytes | None) -> "Holder | None":
        """Return what a lock's file says; None where it is malformed, for its number counts all the same."""
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            values = json.loads(content or b"")
            texts = {name: _printable(values[name]) for name in ("user", "host", "command", "since", "id")}
            return cls(pid=int(values["pid"]), **texts)
        return None

    def __str__(self) -> str:
        return f"{self.user} on {self.host} since {self.since} (process {self.pid}: {self.command})"


@dataclass(frozen=True)
class LockStatus:
    """The lock as a listing shows it.

    :ivar number: the highest that was taken; 0 before the first
    :ivar last_beat: when its holder last gave a sign of life, by the server's clock
    """

    number: int
    done: bool = True
    last_beat: datetime | None = None
    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, bucket: Bucket) -> "LockStatus":
        """Look at the lock."""
        entries = [entry for entry in bucket.entries("lock/") if _number(entry)]
        number = max((_number(entry) for entry in entries), default=0)
        own = {entry.path.rpartition("/")[2]: entry for entry in entries if _number(entry) == number}
        beats = [entry.modified for entry in own.values()]
        return cls(number, not own or f"{number}.done" in own, max(beats, default=None), tuple(entries))

    def silent(self, now: datetime) -> float:
        """Return for how many seconds its holder has given no sign of life."""
        return (now - self.last_beat).total_seconds() if self.last_beat else float("inf")

    def is_free(self, now: datetime) -> bool:
        """Return whether it can be taken at a moment of the server's clock."""
        return self.done or self.silent(now) > LEASE

    def holder(self, bucket: Bucket) -> Holder | None:
        """Return who took it."""
        return Holder.of(bucket.read(f"lock/{self.number}")) if self.number else None


class RemoteLock:
    """The lock as its holder has it; a thread renews it, and notices when another process has taken it.

    :ivar number: of this lock, part of the names of the bundles that are sent under it
    """

    def __init__(self, bucket: Bucket, number: int, holder: Holder) -> None:
        self.bucket, self.number, self.holder = bucket, number, holder
        self.on_lost: Callable[[], None] | None = None
        self._ended, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lora-remote-lock", daemon=True)

    def __enter__(self) -> "RemoteLock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Free the lock, unless it is another's by now; one that cannot be freed ends with its lease."""
        self._ended.set()
        self._thread.join()
        if not self._lost.is_set():
            with contextlib.suppress(StateError):
                self.bucket.create(f"lock/{self.number}.done", _text({"ended": utc_now(), "id": self.holder.id}))

    def check(self, bucket: Bucket | None = None) -> None:
        """Make sure that this process still holds the lock.

        :param bucket: to ask with, where it is not the lock's own
        :raises LostLock: when it does not; Unreachable: when the remote does not answer
        """
        status = LockStatus.of(bucket or self.bucket)
        if status.number == self.number and not status.done:
            return
        self._lost.set()
        if status.number == self.number:
            raise LostLock(
                f"The lock of {self.bucket.url} was released by `lora state unlock` during this command. {_KEEPS}"
            )
        taker = status.holder(self.bucket)
        raise LostLock(
            f"This command did not renew its lock for over {LEASE:g} s, and the lock of {self.bucket.url} was taken "
            f"by {taker or 'another process'}. {_KEEPS}"
        )

    @property
    def lost(self) -> bool:
        """Whether it is known to be lost."""
        return self._lost.is_set()

    def _renew(self) -> None:
        quick = Bucket.open(self.bucket.url, QUICK)  # a request that hangs is given up before the lease ends
        while not self._ended.wait(BEAT):
            try:
                quick.write(f"lock/{self.number}.beat", _text({"at": utc_now()}))
                self.check(quick)
            except LostLock:
                if self.on_lost:
                    self.on_lost()
                return
            except Exception as error:  # the network: the next beat may come through
                _log.debug("The lock could not be renewed: %s", error)


_KEEPS = "Nothing more is sent. Finished results are kept here; the next command here that takes the lock sends them."


def acquire(bucket: Bucket, timeout: float = 0.0) -> RemoteLock:
    """Take the lock; wait for it up to a number of seconds, and say at once, as a log record, for whom.

    :raises StateError: when another process holds it, with who, or when the backend ignores conditions
    """
    server_now = _probe(bucket)
    began, asked = time.monotonic(), False
    deadline = began + timeout
    while True:
        now = datetime.fromtimestamp(server_now.timestamp() + time.monotonic() - began, UTC)
        status = LockStatus.of(bucket)
        if status.is_free(now) and (lock := _take(bucket, status)):
            return lock
        if time.monotonic() >= deadline:
            raise StateError(f"{_in_use(bucket, now)} {_remedy(bucket, timeout)}")
        if not asked:
            _log.info("%s Waiting, %g s at most.", _in_use(bucket, now), timeout)
            asked = True
        time.sleep(min(_POLL_SECONDS, max(deadline - time.monotonic(), 0.01)))


def _take(bucket: Bucket, status: LockStatus) -> RemoteLock | None:
    """Try to take the number that follows; None where another process was faster."""
    number, holder = status.number + 1, Holder(**who_runs_this(), id=secrets.token_hex(16))
    if not bucket.create(f"lock/{number}", _text(asdict(holder))):
        return None
    after = LockStatus.of(bucket)  # who listed long ago may have created a number whose files were cleared away
    written = after.holder(bucket)
    if after.number != number or written is None or written.id != holder.id:
        return None
    bucket.delete([entry.path for entry in after.entries if _number(entry) <= number - _KEPT])
    return RemoteLock(bucket, number, holder)


def free(bucket: Bucket, status: LockStatus) -> None:
    """Free the lock that a process was seen to hold, who then stops at the next bundle."""
    by = str(Holder(**who_runs_this(), id=""))
    bucket.create(f"lock/{status.number}.done", _text({"ended": utc_now(), "by": by}))


def describe(status: LockStatus, bucket: Bucket) -> str:
    """Return who holds the lock, and since when there was no sign of life; its last seconds are the server's."""
    holder = status.holder(bucket) or "another process"
    beat = f"{status.last_beat:%Y-%m-%d %H:%M:%S} UTC" if status.last_beat else "unknown"
    return f"{bucket.url} is locked by {holder}; last heartbeat {beat}"


def _in_use(bucket: Bucket, now: datetime) -> str:
    status = LockStatus.of(bucket)
    holder = status.holder(bucket) or "another process"
    ago = duration(max(status.silent(now), 0)) if status.last_beat else "unknown"
    return f"The state {bucket.url} is in use by {holder}; its last heartbeat was {ago} ago."


def _remedy(bucket: Bucket, timeout: float) -> str:
    longer = " a longer" if timeout else ""
    return (
        f"Wait for it with{longer} --lock-timeout: a lock without a heartbeat for {LEASE:g} s is released. If that "
        f"process is gone, run: lora state unlock {bucket.url}"
    )


def _probe(bucket: Bucket) -> datetime:
    """Make sure that the backend refuses to create what is there; return the time by its clock.

    :raises StateError: when it overwrites instead
    """
    name = f"lock/probe-{secrets.token_hex(8)}"
    try:
        refused = bucket.create(name, b"first") and not bucket.create(name, b"second")
        now = bucket.modified(name)
    finally:
        with contextlib.suppress(StateError):
            bucket.delete([name])
    if not refused:
        raise StateError(
            f"{bucket.url} overwrote a file despite a conditional write, so two commands could write at once. Use a "
            "service with conditional writes (If-None-Match), or ensure that only one command writes at a time and "
            "pass --state-lock none; the report will mention this."
        )
    return now


def _number(entry: Entry) -> int:
    """Return the number of a lock's file; 0 for what is none."""
    name = entry.path.rpartition("/")[2].partition(".")[0]
    return int(name) if name.isascii() and name.isdigit() and len(name) < 19 else 0


def _printable(text: Any) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"


def _text(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, sort_keys=True) + "\n").encode()
