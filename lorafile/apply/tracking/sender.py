"""Sends runs to one tracker, from a thread, through a process of its own: nothing that it does holds an apply up."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorafile.apply.tracking.destinations import Destination, Sent, SentLog
from lorafile.apply.tracking.tracker import RunRecord
from lorafile.errors import LoraError

_SILENCE_SECONDS = 90.0  # in which a tracker should have taken a run
_SLOW_SECONDS = 10.0  # a refusal that took so long is the tracker's fault, not the run's
_RETRY_SECONDS = 300.0  # after which a tracker that failed is tried again, while an apply goes on
_END_SECONDS = 2.0  # that a process has to go when it is killed
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}  # unless the user says otherwise

Curve = list[dict[str, Any]]
Describe = Callable[[str, Sent | None], tuple[RunRecord, Curve, Sent] | None]
"""Returns, for a run's key and what the tracker has of it, what to send and what to remember of it; None where the
tracker has all there is. It is called from the sender's thread."""


class Sender:
    """Takes the keys of runs that have something new, and sends each as it is when its turn comes.

    :ivar problem: why the tracker does not have everything; empty where nothing went wrong
    :ivar sent: the keys of the runs that it took
    """

    def __init__(self, destination: Destination, state: Path, describe: Describe) -> None:
        self.destination, self.problem, self.sent = destination, "", set[str]()
        self._log, self._describe = SentLog(state, destination), describe
        self._output = state / "tracking" / f"{destination.tracker}.log"
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting, self._refused = set[str](), set[str]()
        self._retry_at = 0.0
        self._may_send, self._done = threading.Event(), threading.Event()
        self._may_send.set()
        self._starting, self._abandoned = threading.Lock(), False
        self._process: subprocess.Popen[str] | None = None
        threading.Thread(target=self._run, name=f"lora-{destination.tracker}", daemon=True).start()

    @property
    def left(self) -> int:
        """Return how many runs wait to be sent, or were refused."""
        return len(self._waiting | self._refused)

    def add(self, key: str) -> None:
        """Let a run be sent; one that waits already is sent once, as it is then."""
        if key not in self._waiting:
            self._waiting.add(key)
            self._queue.put(key)

    def pause(self, paused: bool) -> None:
        """Begin nothing for a while: something is measured that shall have the machine to itself."""
        (self._may_send.clear if paused else self._may_send.set)()

    def end(self) -> None:
        """Let what waits be the last."""
        self._queue.put(None)
        self._may_send.set()

    def wait(self, seconds: float | None) -> bool:
        """Return whether all is done within so many seconds; without a number as long as the tracker takes runs."""
        return self._done.wait(seconds)

    def abandon(self, why: str) -> None:
        """Leave what is not done; the process ends at once."""
        with self._starting:
            self._abandoned, self.problem = True, self.problem or why
            if self._process is not None:
                _kill(self._process)
        self._done.wait(2 * _END_SECONDS)

    def _run(self) -> None:
        try:
            for key in iter(self._queue.get, None):
                self._may_send.wait()
                if self._abandoned:
                    break
                self._waiting.discard(key)
                try:
                    problem = self._send(key)
                except Exception as error:  # whatever it is, it is no reason to lose a run
                    known = isinstance(error, (LoraError, OSError, ValueError))  # its curve is damaged
                    problem = str(error) if known else f"{type(error).__name__}: {error}"
                self.problem = self.problem or problem
                (self._refused.add if problem else self._refused.discard)(key)
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()  # it ends by itself when nothing more comes
                self._process.wait(_SILENCE_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass  # it does not
        finally:
            self._end_process()
            self._done.set()

    def _send(self, key: str) -> str:
        """Send a run that has something new; return why the tracker did not take it."""
        described = self._describe(key, self._log.get(key))
        if described is None:
            return ""
        began = time.monotonic()
        if began < self._retry_at:
            return self.problem
        record, curve, sent = described
        if problem := self._exchange({"record": asdict(record), "curve": curve}):
            if self._process is None or time.monotonic() - began > _SLOW_SECONDS:
                self._end_process()
                self._retry_at = time.monotonic() + _RETRY_SECONDS
            return problem
        self._log.add(key, sent)
        self.sent.add(key)
        if self._retry_at:  # it failed before, and works again
            self._retry_at = 0.0
            for other in self._refused - {key}:
                self.add(other)
        return ""

    def _exchange(self, request: dict[str, Any]) -> str:
        """Let the process take a run, and return what it answers; one that ends, or is silent too long, is ended."""
        lines = json.dumps(request) + "\n"
        if self._process is None:
            self._process = self._start()
            lines = json.dumps(self.destination.options) + "\n" + lines
        process, answer, began = self._process, "", time.monotonic()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        watchdog = threading.Timer(_SILENCE_SECONDS, _kill, [process])
        watchdog.start()
        with contextlib.suppress(OSError):  # it has closed its end
            process.stdin.write(lines)
            process.stdin.flush()
            answer = process.stdout.readline()
        watchdog.cancel()
        try:
            return str(json.loads(answer)["problem"])
        except (ValueError, KeyError, TypeError):
            silent = time.monotonic() - began >= _SILENCE_SECONDS
            problem = f"it took nothing for {_SILENCE_SECONDS:g} s" if silent else _how_it_ended(process)
        self._end_process()
        return problem

    def _start(self) -> "subprocess.Popen[str]":
        """Start the process; it stands apart from the terminal, so that Ctrl-C is ours to handle."""
        self._output.parent.mkdir(exist_ok=True)
        with self._starting, self._output.open("wb") as output:
            if self._abandoned:
                raise LoraError("it was stopped")
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "lorafile.apply.tracking.tracker", self.destination.tracker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=self.destination.folder,
                env={**_QUIET, **os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,
                encoding="utf-8",
            )
            return self._process

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            _kill(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()


def _kill(process: "subprocess.Popen[str]") -> None:
    """End a process, and what it has started, at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _how_it_ended(process: "subprocess.Popen[str]") -> str:
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return "it closed its line"
    return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended by itself, with {code}"
