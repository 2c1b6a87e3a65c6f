"""Sends runs to one tracker, through a process of its own, so that nothing a library does holds up the apply."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lorafile.apply.tracking.destinations import Destination, Sent, SentLog
from lorafile.apply.tracking.tracker import RunRecord
from lorafile.errors import LoraError

_SILENCE_SECONDS = 90.0  # in which a tracker should have taken a run
_SLOW_SECONDS = 10.0  # a refusal that took so long is the tracker's fault, not the run's
_RETRY_SECONDS = 300.0  # after which a tracker that failed is tried again, while an apply goes on
_END_SECONDS = 2.0  # that a process has to go when it is killed
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}  # unless the user says otherwise

Describe = Callable[[str, Sent | None], tuple[RunRecord, Sent] | None]
"""Given a run's key and what the tracker already has, return what to send and what to remember; None if it has
everything."""


class Sender:
    """Takes the keys of runs that have something new, and sends each as it is when its turn comes.

    Its methods are called in one event loop, which it shares with the other trackers' senders.

    :ivar problem: why the tracker does not have everything; empty where nothing went wrong
    :ivar sent: the keys of the runs that it took
    """

    def __init__(self, destination: Destination, state: Path, describe: Describe, may_send: asyncio.Event) -> None:
        self.destination, self.problem, self.sent = destination, "", set[str]()
        self._log, self._describe, self._may_send = SentLog(state, destination), describe, may_send
        self._output = state / "tracking" / f"{destination.tracker}.log"
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._waiting, self._refused = set[str](), set[str]()
        self._retry_at = 0.0
        self._process: Process | None = None

    @property
    def left(self) -> int:
        """Return how many runs wait to be sent, or were refused."""
        return len(self._waiting | self._refused)

    def add(self, key: str) -> None:
        """Let a run be sent; one that waits already is sent once, as it is then."""
        if key not in self._waiting:
            self._waiting.add(key)
            self._queue.put_nowait(key)

    def end(self) -> None:
        """Let what waits be the last."""
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Send what is added, up to the end; where this is cancelled, the process ends at once."""
        try:
            while (key := await self._queue.get()) is not None:
                await self._may_send.wait()
                self._waiting.discard(key)
                self._refused.add(key)  # until it is taken
                problem = await self._send(key)
                self.problem = self.problem or problem
                if not problem:
                    self._refused.discard(key)
            if self._process is not None:  # it ends by itself when nothing more comes
                await asyncio.wait_for(self._process.communicate(b""), _SILENCE_SECONDS)
        except (OSError, TimeoutError):
            pass  # it does not
        finally:
            await self._end_process()

    async def _send(self, key: str) -> str:
        """Send a run that has something new; return why the tracker did not take it."""
        try:
            described = self._describe(key, self._log.get(key))
            if described is None:
                return ""
            began = time.monotonic()
            if began < self._retry_at:
                return self.problem
            record, sent = described
            if problem := await self._exchange(record):
                if self._process is None or time.monotonic() - began > _SLOW_SECONDS:
                    await self._end_process()
                    self._retry_at = time.monotonic() + _RETRY_SECONDS
                return problem
            self._log.add(key, sent)
        except (LoraError, OSError, ValueError) as error:  # its curve is damaged
            return str(error)
        except Exception as error:  # whatever it is, it is no reason to lose a run
            return f"{type(error).__name__}: {error}"
        self.sent.add(key)
        if self._retry_at:  # it failed before, and works again
            self._retry_at = 0.0
            for other in self._refused - {key}:
                self.add(other)
        return ""

    async def _exchange(self, record: RunRecord) -> str:
        """Let the process take a run, and return what it answers; one that ends, or is silent too long, is ended."""
        lines = json.dumps(asdict(record)) + "\n"
        if self._process is None:
            self._process = await self._start()
            lines = json.dumps(self.destination.options) + "\n" + lines
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                with contextlib.suppress(OSError):  # it has closed its end
                    process.stdin.write(lines.encode())
                    await process.stdin.drain()
                answer = await process.stdout.readline()
            return str(json.loads(answer)["problem"])
        except TimeoutError:
            problem = f"it accepted nothing for {_SILENCE_SECONDS:g} s"
        except (ValueError, KeyError, TypeError):
            problem = await _how_it_ended(process)
        await self._end_process()
        return problem

    async def _start(self) -> Process:
        """Start the process in a session of its own, so that Ctrl-C does not reach it."""
        self._output.parent.mkdir(exist_ok=True)
        with self._output.open("wb") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "lorafile.apply.tracking.tracker", self.destination.tracker),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                cwd=self.destination.folder,
                env={**_QUIET, **os.environ, "PYTHONSAFEPATH": "1"},
                start_new_session=True,
            )

    async def _end_process(self) -> None:
        """End the process, and what it has started, at once."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.communicate(b""), _END_SECONDS)  # its pipes are closed, too


async def _how_it_ended(process: Process) -> str:
    try:
        code = await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        return "it closed its connection"
    return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it exited with code {code}"
