"""How a Slurm job and the applying process speak: by files in a directory that both see.

`STORAGE/objects/` has files by digest, and `STORAGE/states/<state>/` what belongs to one state:

- `driver`: rewritten every few seconds while an apply listens
- `away/<key>.json`: what a worker has finished and no apply has recorded yet; `<key>-checkpoint.json` likewise
- `workers/<name>/`: a worker's spool: `orders.jsonl` and `events.jsonl`, to which one side appends and from which the
  other reads whole lines; `claim`, made by the one job that serves it; `closed`, once the driver has given it up
"""

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.apply.executors.wire import (
    Checkpointed,
    Delivered,
    Leaving,
    Letter,
    WireError,
    WorkerDied,
    decode,
    encode,
)
from lorafile.engine.worker.channel import Status, Work
from lorafile.files.digests import text_digest

BEAT_SECONDS = 5.0  # between two signs of life of either side


@dataclass(frozen=True)
class Area:
    """What belongs to one state in a storage."""

    storage: Path
    root: Path

    @classmethod
    def of(cls, storage: Path, state: Path) -> "Area":
        """Return the area of a state."""
        return cls(storage, storage / "states" / text_digest(str(state.resolve()))[:16])

    @property
    def workers(self) -> Path:
        """The directory of the workers' spools."""
        return self.root / "workers"

    @property
    def away(self) -> Path:
        """The directory of what is finished and not recorded yet."""
        return self.root / "away"

    def make(self) -> None:
        """Make the directories."""
        for directory in (self.workers, self.away):
            directory.mkdir(parents=True, exist_ok=True)

    def put_away(self, letter: Delivered | Checkpointed) -> None:
        """Keep what a worker has finished until an apply has recorded it."""
        write_whole(self.away / f"{away_name(letter)}.json", encode(letter))

    def take_away(self) -> dict[str, Letter]:
        """Return what is kept, by name; what cannot be read is left out."""
        letters: dict[str, Letter] = {}
        for file in sorted(self.away.glob("*.json")):
            with contextlib.suppress(WireError, OSError):
                letters[file.stem] = decode(file.read_text(encoding="utf-8"))
        return letters

    def forget(self, name: str) -> None:
        """Remove what is recorded."""
        (self.away / f"{name}.json").unlink(missing_ok=True)


def away_name(letter: Delivered | Checkpointed) -> str:
    """Return the name under which something finished is kept."""
    return letter.end.key if isinstance(letter, Delivered) else f"{letter.key}-checkpoint"


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a reader sees all of it, or what stood there before."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(file)


class LineReader:
    """Reads the whole lines that another process appends to a file."""

    def __init__(self, file: Path) -> None:
        self._file, self._offset = file, 0
        self._first: list[str] = []

    def put_back(self, lines: list[str]) -> None:
        """Have lines read again."""
        self._first = lines

    def read(self) -> list[str]:
        """Return the lines that came since the last call."""
        before, self._first = self._first, []
        return before + self._read()

    def _read(self) -> list[str]:
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._offset)
                content = stream.read()
        except OSError:  # it is not there yet, or the file system is away for a moment
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode().splitlines()


@dataclass(frozen=True)
class Spool:
    """The directory of one worker."""

    root: Path

    @property
    def orders(self) -> Path:
        """The file of the worker's orders."""
        return self.root / "orders.jsonl"

    @property
    def events(self) -> Path:
        """The file of what the worker says."""
        return self.root / "events.jsonl"

    @property
    def job_file(self) -> Path:
        """The file with the id of the job that was submitted for it."""
        return self.root / "job"

    def claim(self, about: dict[str, Any]) -> bool:
        """Take the spool for one job; return whether no other has it: a job may be started twice."""
        try:
            handle = os.open(self.root / "claim", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as stream:
            json.dump(about, stream)
        return not self.closed

    @property
    def claimed(self) -> bool:
        """Whether a job serves it."""
        return (self.root / "claim").exists()

    @property
    def closed(self) -> bool:
        """Whether the driver has given the worker up."""
        return (self.root / "closed").exists()

    def close(self) -> None:
        """Give the worker up: the agent that serves it ends, and nothing that it says counts."""
        (self.root / "closed").touch()

    @staticmethod
    def append(file: Path, text: str) -> None:
        """Add a line."""
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"{text}\n")


@dataclass(frozen=True)
class InHand:
    """What a worker has in hand, by its spool.

    :ivar works: what it was given and has not ended; what it does now comes first
    :ivar said: the lines that it said of it
    :ivar gone: whether it has said that it ends
    """

    works: list[Work]
    said: list[str]
    gone: bool


def in_hand(orders: list[str], events: list[str]) -> InHand:
    """Return what a worker has in hand.

    :raises WireError: when another version of lorafile wrote the spool
    """
    works = [letter for letter in map(decode, orders) if isinstance(letter, Work)]
    letters = list(map(decode, events))
    ends = [number for number, letter in enumerate(letters) if letter is Status.IDLE or isinstance(letter, WorkerDied)]
    gone = any(isinstance(letter, Leaving) for letter in letters)
    return InHand(works[len(ends) :], events[ends[-1] + 1 :] if ends else events, gone)


class Listener:
    """Knows how long the other side has been silent, by a file that it rewrites; clocks of machines may differ."""

    def __init__(self, file: Path) -> None:
        self._file, self._content, self._since = file, "", time.monotonic()

    def silent_seconds(self) -> float:
        """Return for how long the file has been what it is."""
        with contextlib.suppress(OSError):
            content = self._file.read_text(encoding="utf-8")
            if content != self._content:
                self._content, self._since = content, time.monotonic()
        return time.monotonic() - self._since
