"""What a Slurm job runs: an agent that serves one spool until it is closed, or no apply listens any more.

python -m lorafile.apply.executors.slurm_job STORAGE AREA SPOOL LEAVE_SECONDS
"""

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from lorafile.apply.executors.agent import Agent, leave_on_signals
from lorafile.apply.executors.content import FileStore
from lorafile.apply.executors.spool import BEAT_SECONDS, Area, LineReader, Listener, Spool
from lorafile.apply.executors.wire import Checkpointed, Delivered, Files, Letter, encode
from lorafile.engine.worker.channel import Status
from lorafile.environment import most_threads
from lorafile.files.digests import file_digest
from lorafile.units import duration

_LOOK_SECONDS = 0.25  # between two looks at the shared file system
_KEPT_OUTCOMES = ("done", "diverged", "out-of-memory", "failed")


class SpoolOutlet:
    """Appends what an agent says to its event file; what is finished is kept until an apply has recorded it."""

    def __init__(self, area: Area, spool: Spool, store: FileStore) -> None:
        self._area, self._spool, self._store, self._lock = area, spool, store, threading.Lock()

    def emit(self, letter: Letter) -> None:
        """Append a message."""
        kept = isinstance(letter, Delivered) and letter.end.result.outcome in _KEPT_OUTCOMES
        if kept or isinstance(letter, Checkpointed):
            self._area.put_away(letter)  # type: ignore[arg-type]
        with self._lock:
            self._spool.append(self._spool.events, encode(letter))

    def publish(self, directory: Path, names: list[str]) -> Files:
        """Put files into the shared directory."""
        files: Files = {}
        for name in names:
            digest = file_digest(directory / name)
            self._store.put(directory / name, digest)
            files[name] = (digest, (directory / name).stat().st_size)
        return files

    def beat(self) -> None:
        """Give a sign of life every few seconds, whatever the agent does."""
        while not self._spool.closed:
            self.emit(Status.ALIVE)
            time.sleep(BEAT_SECONDS)


class SpoolAgent(Agent):
    """An agent that takes its orders from a spool.

    :param leave: it ends after so many seconds in which no apply listened
    """

    releases_itself = True

    def __init__(self, root: Path, area: Area, spool: Spool, leave: float) -> None:
        store = FileStore(area.storage)
        self.spool_outlet = SpoolOutlet(area, spool, store)
        super().__init__(root, store, self.spool_outlet, most_threads())
        self._spool, self._reader, self._driver = spool, LineReader(spool.orders), Listener(area.root / "driver")
        self._leave_seconds, self._looked_at = leave, 0.0

    def turn(self) -> None:
        """Look at the spool now and then; do what there is to do."""
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look()
        super().turn()

    def _look(self) -> None:
        if self._spool.closed:
            self.closed = True
            return
        if lines := self._reader.read():
            self.note_supplied()
        for line in lines:
            self.deliver(line)
        if self._driver.silent_seconds() > self._leave_seconds and not self.detached:
            self.leave(f"ended because no apply had connected for {duration(self._leave_seconds)}")


def main(storage: str, root: str, spool_directory: str, leave: str) -> None:
    """Serve a spool, if no other job has it."""
    job, restart = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")
    spool = Spool(Path(spool_directory))
    if spool.closed or not spool.claim({"job": job, "restart": restart, "node": socket.gethostname()}):
        print(f"Job {job} (restart {restart}) ends: its spool is closed or served by another job.")
        return
    where = Path(tempfile.mkdtemp(prefix="lorafile-agent-"))
    agent = SpoolAgent(where, Area(Path(storage), Path(root)), spool, float(leave))
    leave_on_signals(agent)
    threading.Thread(target=agent.spool_outlet.beat, name="heartbeat", daemon=True).start()
    try:
        agent.run()
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
