"""Sends runs to one tracker, from a thread, through a process of its own: nothing that it does holds an apply up."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from lorafile.apply.tracking.destinations import Destination
from lorafile.apply.tracking.records import Record
from lorafile.apply.tracking.sent_log import Memory, Sent
from lorafile.errors import LoraError

_SILENCE_SECONDS = 90.0  # in which a tracker should have taken a run
_AGAIN_SECONDS = 300.0  # after which one that failed is tried again, while an apply goes on
_END_SECONDS = 2.0  # that a process has to go when it is killed
_POLL_SECONDS = 0.1
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}  # unless the user says otherwise
_REFUSALS, _SLOW_SECONDS = 3, 10.0  # refusals in a row, or a refusal that took so long: it is the tracker, not the run


class Teller(Protocol):
    """Somebody who knows what there is to tell of a run; asked from another thread."""

    def record(self, key: str, before: Sent | None) -> tuple[Record, Sent] | None:
        """Return what a tracker is told of a run, and what to remember of it; None where it has nothing to tell."""

    def curve(self, key: str) -> list[dict[str, Any]]:
        """Return the curve of a run."""


class _Failed(Exception):
    """A tracker takes nothing now, and why."""


class _Refused(Exception):
    """One run could not be told or was not taken, and why; another one may be."""


class Sender:
    """Takes the keys of runs that have something new, and sends each as it is when its turn comes.

    :ivar problem: why the tracker does not have everything; empty where nothing went wrong
    :ivar sent: the keys of the runs that it took
    """

    def __init__(self, destination: Destination, state: Path, teller: Teller) -> None:
        self.destination, self.problem, self.sent = destination, "", set[str]()
        self.memory = Memory(state, destination)
        self.log = state / "tracking" / f"{destination.tracker}.log"
        self._teller = teller
        self._waiting: dict[str, None] = {}  # in the order in which they came
        self._aside: dict[str, None] = {}  # what was refused; tried again when it has something new, or the next time
        self._refusals = 0
        self._news = threading.Condition()
        self._ending = self._abandoned = self._paused = False
        self._not_before = 0.0
        self._child: subprocess.Popen[bytes] | None = None  # the thread's alone
        self._answers = b""
        self._done = threading.Event()  # and not Thread.join, after whose interruption Python 3.11 takes it for ended
        threading.Thread(target=self._run, name=f"lora-{destination.tracker}", daemon=True).start()

    @property
    def left(self) -> int:
        """Return how many runs wait to be sent, or were refused."""
        return len({**self._waiting, **self._aside})

    def add(self, key: str) -> None:
        """Let a run be sent; one that waits already is sent once, as it is then."""
        with self._news:
            self._waiting[key] = None
            self._news.notify()

    def pause(self, paused: bool) -> None:
        """Begin nothing for a while: something is measured that shall have the machine to itself."""
        with self._news:
            self._paused = paused
            self._news.notify()

    def end(self) -> None:
        """Let what waits be the last."""
        with self._news:
            self._ending, self._paused = True, False
            self._news.notify()

    def wait(self, seconds: float | None) -> bool:
        """Return whether all is done within so many seconds; without a number as long as the tracker takes runs."""
        return self._done.wait(seconds)

    def abandon(self, why: str) -> None:
        """Leave what is not done; the process ends at once."""
        with self._news:
            self._abandoned = True
            self._fail(why)
            self._news.notify()
        self._done.wait(2 * _END_SECONDS)

    def _run(self) -> None:
        try:
            while (key := self._next()) is not None:
                began = time.monotonic()
                try:
                    self._send(key)
                    self._refusals = 0
                except _Refused as error:
                    self._put_aside(key, str(error))
                    if time.monotonic() - began > _SLOW_SECONDS:
                        self._refusals = _REFUSALS
                except Exception as error:  # whatever it is, it is no reason to lose a run
                    self._put_aside(
                        key, str(error) if isinstance(error, _Failed) else f"{type(error).__name__}: {error}"
                    )
                    self._refusals = _REFUSALS
                if self._refusals >= _REFUSALS:
                    self._not_before = time.monotonic() + _AGAIN_SECONDS
                    self._refusals = 0
                    self._end_child()
            self._finish_child()
        finally:
            self._end_child()
            self._done.set()

    def _next(self) -> str | None:
        """Wait for a run that is to be sent, and take it; None where there is none, and none will come."""
        with self._news:
            while not self._abandoned:
                pause = self._not_before - time.monotonic()
                if self._waiting and not self._paused and pause <= 0:
                    key = next(iter(self._waiting))
                    del self._waiting[key]
                    return key
                if self._ending:
                    break
                self._news.wait(pause if self._waiting and not self._paused else None)
            return None

    def _put_aside(self, key: str, why: str) -> None:
        self._refusals += 1
        self._aside[key] = None
        self._fail(why)

    def _fail(self, why: str) -> None:
        self.problem = self.problem or why

    def _send(self, key: str) -> None:
        before = self.memory.get(key)
        try:
            told = self._teller.record(key, before)
            if told is None or told[1] == before:
                self._aside.pop(key, None)
                return
            curve = self._teller.curve(key)
        except (LoraError, OSError, ValueError) as error:  # its curve is damaged
            raise _Refused(str(error)) from None
        if self._child is None:
            self._child = self._started()
            self._write(self.destination.options)
        self._write({"record": told[0], "curve": curve})
        answer = self._answer()
        if "problem" in answer:
            raise _Refused(str(answer["problem"]))
        self.memory.note(key, told[1])
        self.sent.add(key)
        self._aside.pop(key, None)

    def _started(self) -> subprocess.Popen[bytes]:
        """Start the process; it stands apart from the terminal, so that Ctrl-C is ours to handle."""
        self.log.parent.mkdir(exist_ok=True)
        self._answers = b""
        with self.log.open("wb") as log:
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "lorafile.apply.tracking.tracker_process", self.destination.tracker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.destination.folder,
                env={**_QUIET, **os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,
            )
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        return child

    def _write(self, content: dict[str, Any]) -> None:
        left = memoryview(json.dumps(content).encode() + b"\n")
        deadline = time.monotonic() + _SILENCE_SECONDS
        while left and self._child is not None and self._child.stdin is not None:
            self._look(deadline)
            handle = self._child.stdin.fileno()
            _, ready, _ = select.select([], [handle], [], _POLL_SECONDS)
            if ready:
                try:
                    left = left[os.write(handle, left) :]
                except BrokenPipeError:
                    raise _Failed(self._how_it_ended()) from None

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + _SILENCE_SECONDS
        while b"\n" not in self._answers and self._child is not None and self._child.stdout is not None:
            self._look(deadline)
            handle = self._child.stdout.fileno()
            ready, _, _ = select.select([handle], [], [], _POLL_SECONDS)
            if ready:
                found = os.read(handle, 1 << 16)
                if not found:
                    raise _Failed(self._how_it_ended())
                self._answers += found
        line, _, self._answers = self._answers.partition(b"\n")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise _Failed("it answered what is no answer") from None
        return answer

    def _look(self, deadline: float) -> None:
        """Break off where nobody waits any more, or where the process has been silent for too long."""
        if self._abandoned:
            raise _Failed("it was stopped")
        if time.monotonic() > deadline:
            raise _Failed(f"it took nothing for {_SILENCE_SECONDS:g} s")

    def _how_it_ended(self) -> str:
        assert self._child is not None  # noqa: S101
        try:
            code = self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its line"
        return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended by itself, with {code}"

    def _finish_child(self) -> None:
        """Let the process end by itself: it is told that nothing more comes."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            while self._child.poll() is None and not self._abandoned:
                time.sleep(0.02)

    def _end_child(self) -> None:
        """End the process, and what it has started, at once."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_SECONDS)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
