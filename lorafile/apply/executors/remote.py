"""A worker on another machine, as the loop holds it: messages as JSON, files by digest, and two deadlines."""

import contextlib
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from lorafile.apply.executors.base import Loss, WorkerHandle
from lorafile.apply.executors.content import ContentIndex
from lorafile.apply.executors.wire import (
    Checkpointed,
    Delivered,
    Files,
    Hello,
    Leaving,
    Letter,
    LogTail,
    Missing,
    Order,
    WorkerDied,
    decode,
    encode,
)
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import (
    Command,
    Message,
    NodeEnd,
    NodeProgress,
    NodeStart,
    PackMeasured,
    Status,
    Work,
)
from lorafile.files.run_directory import CHECKPOINT, CurveFile, unfinished

SILENT_SECONDS = 30.0  # without a sign of life an agent is lost


class Gone(Exception):
    """An agent is not there any more; the message says why."""


class Transport(Protocol):
    """How an engine reaches an agent; nothing of it waits."""

    def send(self, text: str) -> None:
        """Send a message."""

    def receive(self) -> list[str] | None:
        """Return what came since the last call; None where there was no sign of life.

        :raises Gone: when the agent is not there any more
        """

    def fetch(self, digest: str, size: int, target: Path) -> bool:
        """Bring a file here; return whether it is here, with the bytes that it should have.

        :raises Gone: when it cannot be brought
        """

    def supply(self, digests: list[str]) -> None:
        """Send files to the agent."""

    def release(self, key: str) -> None:
        """Note that the files of a node are stored."""

    def log(self) -> str:
        """Return the end of the agent's own log, as far as it can be read from here."""

    def close(self) -> None:
        """End the agent; from then on nothing that it does counts."""


class RemoteWorker(WorkerHandle):
    """A worker on another machine.

    :param name: of the worker, in messages
    :param staging: a directory of its own for files that come from it
    :param start_seconds: how long its first sign of life may take; None: as long as it likes
    """

    def __init__(
        self, name: str, transport: Transport, index: ContentIndex, staging: Path, start_seconds: float | None
    ) -> None:
        super().__init__()
        self.name, self.transport, self._index, self._staging = name, transport, index, staging
        self._start_seconds = start_seconds
        self._heard_at, self._heard = time.monotonic(), False
        self._letters: list[Letter] = []
        self._loss: Loss | None = None
        self._log = ""
        self.hello: Hello | None = None  # what it said first
        self._runs: dict[str, Path] = {}  # key -> where the applying process has its checkpoint
        self._requests: dict[str, Request] = {}  # of those
        self._curves: dict[str, CurveFile] = {}  # of what trains now
        self._started: set[str] = set()
        self._works_before = 0  # that it has to end before it is idle
        self._delivered: list[str] = []

    def send(self, message: Work | Command) -> None:
        """Send work, by content, or a command."""
        if isinstance(message, Work):
            requests = [request for replicate in message.replicates for request in replicate]
            self._runs |= {r.key: Path(r.paths["checkpoint"]) for r in requests if "checkpoint" in r.paths}
            self._requests |= {request.key: request for request in requests}
            message = self._index.refer(message)
        elif message is Command.RELEASE:
            for key in self._delivered:
                self.transport.release(key)
            self._delivered = []
            shutil.rmtree(self._staging, ignore_errors=True)
        self.transport.send(encode(message))

    def adopt(self, works: list[Work], runs: Path, begun: bool) -> None:
        """Take over a worker of an earlier apply with the work that it has in hand.

        :param runs: where the applying process has the checkpoints of runs
        :param begun: whether it has given a sign of life, so that it has to give more
        """
        self._heard = begun
        requests = [request for work in works for replicate in work.replicates for request in replicate]
        self._runs = {request.key: runs / request.key for request in requests if request.kind == "train"}
        self._requests = {request.key: request for request in requests}
        self._started = {request.key for request in requests}
        self._works_before = max(0, len(works) - 1)

    def events(self) -> list[Message]:
        """Return what it said since the last call, as far as the files are here that came with it."""
        messages: list[Message] = []
        try:
            texts = self.transport.receive()
            if texts is not None:
                self._heard_at, self._heard = time.monotonic(), True
                self._letters += [decode(text) for text in texts]
            while self._letters and self._loss is None:
                taken = self._take(self._letters[0])
                if taken is None:
                    break
                self._letters.pop(0)
                messages += taken
        except Gone as gone:
            self._loss = Loss(str(gone), by_its_work=False)
        return messages

    def lost(self) -> Loss | None:
        """Return how it was lost: its worker died of its work, or its machine went away."""
        allowed = SILENT_SECONDS if self._heard else self._start_seconds
        if self._loss is None and allowed is not None and time.monotonic() - self._heard_at > allowed:
            self._loss = Loss(f"({self.name}) did not respond for {allowed:g} s", by_its_work=False)
        return self._loss

    @property
    def has_begun(self) -> bool:
        """Whether it has given a sign of life."""
        return self._heard

    def log(self) -> str:
        """Return the end of what its libraries printed, as far as it came here."""
        return self._log or self.transport.log()

    def retract(self) -> None:
        """Take the work back that it was sent last; that it is idle afterwards says nothing of later work."""
        self._works_before += 1
        self.transport.send(encode(Command.FINISH))

    def renew(self) -> bool:
        """Have it begin its next work as a fresh process; its agent can, where it is still there."""
        if self._loss is not None and not self._loss.by_its_work:
            return False
        self._loss = None
        self.base = ""
        self.transport.send(encode(Order.RENEW))
        return True

    def close(self) -> None:
        """End the agent."""
        for key in list(self._curves):
            self._end_curve(key)
        self.transport.send(encode(Order.CLOSE))
        self.transport.close()
        if not self._delivered:  # else its last files may not be stored yet; the next apply removes them
            shutil.rmtree(self._staging, ignore_errors=True)

    def _take(self, letter: Letter) -> list[Message] | None:
        """Return what a message is to the loop; None where its files are not here yet."""
        match letter:
            case Delivered(end, files, _):
                return self._take_end(end, files)
            case Checkpointed(key, files):
                return [] if self._take_checkpoint(key, files) else None
            case Missing(digests):
                self.transport.supply(digests)
            case WorkerDied(why, exited, log):
                self._loss, self._log = Loss(why, exited=exited), log
            case Leaving(why, log):
                self._loss, self._log = Loss(f"({self.name}) {why}", by_its_work=False), log
            case LogTail(text):
                self._log = text
            case Status.IDLE if self._works_before:
                self._works_before -= 1
            case NodeStart() | NodeProgress() | PackMeasured() | Status():
                if isinstance(letter, NodeStart):
                    self._started.add(letter.key)
                elif isinstance(letter, NodeProgress):
                    with contextlib.suppress(OSError):  # to look at alone: what a run leaves travels by itself
                        self._extend_curve(letter.key, letter.progress)
                return [letter]
            case Hello():
                self.hello = letter
        return []

    def _take_end(self, end: NodeEnd, files: Files) -> list[Message] | None:
        directory = self._staging / end.key
        if not self._fetch(files, directory):
            return None
        self._log = end.log or self._log
        self._end_curve(end.key)
        self._started.discard(end.key)
        self._delivered.append(end.key)
        return [replace(end, directory=str(directory))]

    def _take_checkpoint(self, key: str, files: Files) -> bool:
        """Put a checkpoint where the next attempt looks for it; the file that names the others comes last."""
        run = self._runs.get(key)
        if run is None or key not in self._started:  # it has ended
            return True
        directory = self._staging / f"{key}-checkpoint"
        if not self._fetch(files, directory):
            return False
        self._end_curve(key)
        run.mkdir(parents=True, exist_ok=True)
        old = {file.name for file in run.iterdir()} - set(files)
        for name in sorted(files, key=lambda name: name == CHECKPOINT):
            (directory / name).replace(run / name)
        shutil.rmtree(directory)
        for name in old:
            (run / name).unlink(missing_ok=True)
        self.progressed.add(key)
        return True

    def _extend_curve(self, key: str, progress: dict[str, Any]) -> None:
        """Add what a run reports to its live curve, which `lora show` and `lora report --watch` read."""
        run, step = self._runs.get(key), progress.get("step")
        if run is None or step is None or key not in self._started:
            return
        if key not in self._curves:
            before = unfinished(run)
            file = CurveFile(run)
            if not file.locked():
                file.close()
                return
            about = {"key": key, "address": self._requests[key].address, "steps": progress["steps"]}
            rows = [row for row in before.rows if row["step"] < step] if before else []
            file.begin(about | {"settings": self._requests[key].settings}, rows)
            self._curves[key] = file
        unknown = {"epoch": None, "learning_rate": None, "grad_norm": None}
        self._curves[key].add({"step": step, "loss": progress["loss"]} | unknown)

    def _end_curve(self, key: str) -> None:
        if file := self._curves.pop(key, None):
            file.close()

    def _fetch(self, files: Files, directory: Path) -> bool:
        """Bring files here; return whether all are."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, (digest, size) in files.items():
            if "/" in name or name in ("", ".", ".."):
                raise Gone(f"({self.name}) sent a file named {name!r}")
            if not (directory / name).exists() and not self.transport.fetch(digest, size, directory / name):
                return False
        return True
