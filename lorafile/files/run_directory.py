"""The directory of an unfinished run: its curve so far and its last checkpoint. Imports no torch.

One directory for each key, which survives a killed apply:

- `curve.jsonl`: a line about the run, then a row for each optimizer step. The process that trains it holds its lock.
- `checkpoint.json`: where the run can go on from, with its own digest; it names the file that holds the tensors.
- `step-<n>.safetensors`: the tensors. An older one is removed only when `checkpoint.json` names the newer.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from lorafile.files.atomic import sync
from lorafile.files.digests import text_digest

CURVE, CHECKPOINT = "curve.jsonl", "checkpoint.json"
_FLUSH_SECONDS = 1.0


class DamagedCheckpoint(Exception):
    """A checkpoint cannot be used; the message says why."""


@dataclass(frozen=True)
class Unfinished:
    """The progress of an unfinished run.

    :ivar about: its key, address, settings, and number of steps
    :ivar rows: its curve so far, a row for each optimizer step; where it trains on another machine, for some of them
    :ivar checkpoint: the step that it would go on from; 0 where there is none
    :ivar live: a process trains it now
    """

    about: dict[str, Any]
    rows: list[dict[str, Any]]
    checkpoint: int
    live: bool

    @property
    def step(self) -> int:
        """The last step that is known; the curve is about a second behind."""
        return max(int(self.rows[-1].get("step", 0)) if self.rows else 0, self.checkpoint)

    @property
    def steps(self) -> int:
        """How many optimizer steps the run has in all."""
        return int(self.about["steps"])


class CurveFile:
    """The live curve of a run, locked while it trains so that two processes never train one run at once."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._stream: TextIO = (directory / CURVE).open("a+", encoding="utf-8")
        self._next = 0.0

    def locked(self) -> bool:
        """Try to take the lock of the run; the system frees the lock of a dead process.

        Where the file system has no locks, the state's own lock has to do.
        """
        try:
            fcntl.flock(self._stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        return True

    def fileno(self) -> int:
        """Return what holds the lock: a process that inherits it holds the lock, too."""
        return self._stream.fileno()

    def holder(self) -> str:
        """Return a description of the process that trains the run, as far as it is known."""
        self._stream.seek(0)
        try:
            about = json.loads(self._stream.readline())
            host, pid = str(about["host"]), int(about["pid"])
        except (ValueError, KeyError, TypeError):
            return "another process"
        if host != socket.gethostname():
            return f"process {pid} on {host}"
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            state = ""
        return f"process {pid}{', which is stopped,' if state in ('T', 't') else ''}"

    def begin(self, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Start the curve file: a line about the run and its process, then the steps that are known."""
        about = about | {"host": socket.gethostname(), "pid": os.getpid()}
        self._stream.truncate(0)
        self._stream.write("".join(json.dumps(row) + "\n" for row in (about, *rows)))
        self._stream.flush()

    def add(self, row: dict[str, Any]) -> None:
        """Add a step; it can be read about a second later at most."""
        self._stream.write(json.dumps(row) + "\n")
        if time.monotonic() >= self._next:
            self._stream.flush()
            self._next = time.monotonic() + _FLUSH_SECONDS

    def __enter__(self) -> "CurveFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the lock."""
        with contextlib.suppress(OSError):  # a full disk; the curve of a run that ended is written elsewhere, too
            self._stream.close()


def unfinished(directory: Path) -> Unfinished | None:
    """Return how far a run has come, or None where nothing of it is here; a line that is half written is left out."""
    try:
        stream = (directory / CURVE).open(encoding="utf-8")
    except OSError:
        return None
    with stream:
        live = _is_locked(stream)
        lines = stream.read().split("\n")[:-1]
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # torn by a crash of the machine; what follows cannot be separated
            break
    if not rows or "steps" not in rows[0]:
        return None
    try:
        step = int(read_manifest(directory)["step"])
    except (DamagedCheckpoint, OSError):  # what is wrong is said where a run goes on from it
        step = 0
    return Unfinished(rows[0], rows[1:], step, live)


def _is_locked(stream: TextIO) -> bool:
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    fcntl.flock(stream.fileno(), fcntl.LOCK_UN)
    return False


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Write the manifest of a checkpoint atomically."""
    text = json.dumps(content)
    temporary = directory / f".{CHECKPOINT}"
    temporary.write_text(json.dumps({"digest": text_digest(text), "content": text}), encoding="utf-8")
    sync(temporary)
    temporary.replace(directory / CHECKPOINT)
    sync(directory)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint.

    :raises DamagedCheckpoint: when there is none, or when it is not what was written
    :raises OSError: when the disk does not give it back; it may be whole
    """
    try:
        whole = json.loads((directory / CHECKPOINT).read_text(encoding="utf-8"))
        text, digest = whole["content"], whole["digest"]
        if text_digest(text) != digest:
            raise DamagedCheckpoint("its bytes are not the ones that were written")
        content: dict[str, Any] = json.loads(text)
    except FileNotFoundError as error:
        raise DamagedCheckpoint("there is none") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint("it cannot be read") from error
    return content
