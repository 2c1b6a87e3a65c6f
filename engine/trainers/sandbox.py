"""Runs a program for a worker, stops it, and leaves nothing of it behind: `python sandbox.py JOB.json`.

A process of its own, which imports the standard library alone. It ends the program on SIGTERM, or
when the worker dies; it adopts whatever the program leaves running and ends that, too; it keeps the beginning and the
end of what the program prints; it counts the memory of all of its processes. JOB names `command`, `directory`,
`environment`, `readable`, `writable`, `log`, `status`, `stop_seconds`, `worker`.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

_PARENT_DEATH_SIGNAL, _ADOPT_ORPHANS = 1, 36  # of prctl(2)
_LOGGED = 1 << 20  # bytes that are kept of what a program prints: so many of its beginning, and of its end
_POLL_SECONDS = 0.1
_MEASURE_SECONDS = 1.0
_NOT_STARTED = 127


class _Log:
    """What a program prints: its beginning in a file, its end in memory until the end."""

    def __init__(self, file: Path) -> None:
        self._stream = file.open("wb")
        self._tail = bytearray()
        self._left_out = 0
        self._written = 0

    def add(self, content: bytes) -> None:
        """Take a piece of output."""
        now = content[: max(0, _LOGGED - self._written)]
        self._stream.write(now)
        self._stream.flush()
        self._written += len(now)
        self._tail += content[len(now) :]
        if len(self._tail) > 2 * _LOGGED:
            self._left_out += len(self._tail) - _LOGGED
            del self._tail[:-_LOGGED]

    def close(self) -> None:
        """Write the end."""
        excess = max(0, len(self._tail) - _LOGGED)
        if left_out := self._left_out + excess:
            self._stream.write(f"\n… {left_out} bytes left out …\n".encode())
        self._stream.write(self._tail[excess:])
        self._stream.close()


class Sandbox:
    """One program and all of its processes."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.stopping = self.killed = False
        self._deadline = float("inf")
        self._peak = 0
        self._measured = 0.0

    def run(self) -> dict[str, Any]:
        """Run the program to its end; return how it ended."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _prctl(_ADOPT_ORPHANS, 1)
        _prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != self.job["worker"]:  # it died before we asked to be told
            self.stopping = True
        ours, its = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the program can be told
        self._child = self._start(its)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(its)
        if self.stopping and self._deadline == float("inf"):
            self._terminate()
        log = _Log(Path(self.job["log"]))
        code = self._watch(ours, log)
        survivors = self._end_survivors()
        _drain(ours, log)
        log.close()
        return {
            "code": code,
            "stopped": self.stopping,
            "killed": self.killed,
            "survivors": survivors,
            "peak_bytes": self._peak,
        }

    def _start(self, output: int) -> int:
        child = os.fork()
        if child:
            return child
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            _prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(self.job["directory"])
            if self.job["readable"] is not None:
                import landlock  # type: ignore[import-not-found]  # next to this file

                landlock.restrict(self.job["readable"], self.job["writable"])
            command = self.job["command"]
            os.execvpe(command[0], command, self.job["environment"])  # noqa: S606  (this process is what is replaced)
        except OSError as error:
            os.write(2, f"{self.job['command'][0]} cannot be started: {error.strerror}\n".encode())
        finally:
            os._exit(_NOT_STARTED)

    def _stop(self, _number: int, _frame: object) -> None:
        if not self.stopping:
            self.stopping = True
            if hasattr(self, "_child"):
                self._terminate()

    def _terminate(self) -> None:
        """Ask the program to stop; from now on its time is limited."""
        self._deadline = time.monotonic() + self.job["stop_seconds"]
        _signal_group(self._child, signal.SIGTERM)

    def _watch(self, output: int, log: _Log) -> int:
        """Wait for the end of the program; return its exit code, or minus the signal that ended it."""
        os.set_blocking(output, False)
        while True:
            ended, status = os.waitpid(self._child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > self._deadline and not self.killed:
                self.killed = True
                _signal_group(self._child, signal.SIGKILL)
            if time.monotonic() - self._measured > _MEASURE_SECONDS:
                self._measured = time.monotonic()
                self._peak = max(self._peak, sum(map(_memory, descendants(os.getpid()))))
            ready, _, _ = select.select([output], [], [], _POLL_SECONDS)
            if ready and not _take(output, log):
                time.sleep(_POLL_SECONDS)  # its end was closed, and it goes on

    def _end_survivors(self) -> int:
        """End whatever the program left running; return how many processes that were."""
        seen: set[int] = set()
        for _ in range(100):
            _reap()
            left = descendants(os.getpid())
            if not left:
                break
            seen.update(left)
            for process in left:
                _signal(process, signal.SIGKILL)
            time.sleep(_POLL_SECONDS / 10)
        return len(seen)


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":  # elsewhere orphans are not adopted, and a dead worker is not noticed
        return
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _signal_group(child: int, number: int) -> None:
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        _signal(child, number)  # it has not made its session yet


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def _reap() -> None:
    """Take note of the end of adopted processes."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _take(output: int, log: _Log) -> bool:
    """Pass on what was printed; return whether there can be more."""
    try:
        content = os.read(output, 1 << 16)
    except BlockingIOError:
        return True
    log.add(content)
    return bool(content)


def _drain(output: int, log: _Log) -> None:
    """Take what is left in the pipe after all that wrote to it are gone."""
    while select.select([output], [], [], 0)[0] and _take(output, log):
        continue


def descendants(root: int) -> list[int]:
    """Return the processes below one that still run."""
    parents: dict[int, list[int]] = {}
    there = Path("/proc").iterdir() if sys.platform == "linux" else iter(())
    for process in (entry for entry in there if entry.name.isdigit()):
        try:
            text = (process / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(process.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _memory(process: int) -> int:
    """Return the bytes of a process in memory; what it shares with others is divided among them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    except (OSError, ValueError, IndexError):
        return 0


def main(file: str) -> None:
    """Run the job in a file, and write how it ended."""
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    status = Sandbox(job).run()
    whole = Path(job["status"])
    part = whole.with_suffix(".part")
    part.write_text(json.dumps(status), encoding="utf-8")
    part.replace(whole)


if __name__ == "__main__":
    main(sys.argv[1])
