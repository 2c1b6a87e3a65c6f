"""The pool of a Ray cluster: an actor for each worker, a long poll for its messages, files by Ray's object store.

Ray restarts and repeats nothing by itself: the loop decides what is done again. Only texts and bytes travel.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.apply.executors.agent import Agent
from lorafile.apply.executors.base import Phase, WorkerHandle
from lorafile.apply.executors.content import LARGE, ContentIndex, FileStore
from lorafile.apply.executors.remote import Gone, RemoteWorker
from lorafile.apply.executors.wire import Files, Letter, encode
from lorafile.engine.worker.channel import Work
from lorafile.errors import LoraError, MissingExtra
from lorafile.files.digests import file_digest
from lorafile.plan.clusters.config import Cluster

START_SECONDS = 300.0  # until an actor's first sign of life: Ray may have to start a machine
_POLL_SECONDS = 2.0  # of a long poll; an empty answer is a sign of life
_AGENT = "agent-"  # how the directory of an agent's own begins
_PIECE = 1 << 25  # bytes of a file that travel at once
_KNOCK_SECONDS = 10.0  # until an address is taken for one at which nothing listens


class AgentActor:
    """An agent as a Ray actor. What it receives and sends are texts; files are bytes.

    :param threads: of the worker
    """

    def __init__(self, threads: int) -> None:
        home = _node_directory()
        self._root = Path(tempfile.mkdtemp(dir=home, prefix=_AGENT))
        os.chdir(self._root)  # the directory that the node was started in may be gone, and its processes begin in ours
        self._lock = _locked(self._root)  # until this process ends
        self._store = FileStore(home)
        self._store.remove_unread()
        self._said: list[str] = []  # what the other end is not known to have
        self._forgotten = 0  # how many messages it is known to have
        self._news = threading.Condition()
        self._early: dict[int, str] = {}  # messages that came before their turn
        self._taken = 0
        self._published: dict[str, Path] = {}
        self._agent = Agent(self._root, self._store, self, threads)
        threading.Thread(target=self._agent.run, daemon=True).start()

    def emit(self, letter: Letter) -> None:
        """Put a message where the next poll finds it."""
        with self._news:
            self._said.append(encode(letter))
            self._news.notify_all()

    def publish(self, directory: Path, names: list[str]) -> Files:
        """Remember files that the applying process will read."""
        files: Files = {}
        for each in names:
            file = directory / each
            digest = file_digest(file)
            self._published[digest] = file
            files[each] = (digest, file.stat().st_size)
        return files

    def send(self, number: int, text: str) -> None:
        """Take a message; calls of one moment run in any order, so that each has a number."""
        with self._news:
            self._early[number] = text
            while self._taken in self._early:
                self._agent.deliver(self._early.pop(self._taken))
                self._taken += 1

    def listen(self, known: int, seconds: float) -> list[str]:
        """Return what there is to say; wait for it up to some seconds.

        :param known: how many messages the other end has: an answer that did not come is given again
        """
        with self._news:
            del self._said[: known - self._forgotten]
            self._forgotten = known
            self._news.wait_for(lambda: self._said, seconds)
            return list(self._said)

    def read(self, digest: str, offset: int) -> bytes:
        """Return a piece of a file that was published."""
        with self._published[digest].open("rb") as stream:
            stream.seek(offset)
            return stream.read(_PIECE)

    def store(self, digest: str, offset: int, size: int, content: bytes) -> None:
        """Take a piece of a file."""
        self._store.add_piece(digest, offset, size, content)
        self._agent.note_supplied()


def _node_directory() -> Path:
    """Return where this user's agents on this node keep files; what ended agents left is removed.

    :raises PermissionError: when another user has made a directory of that name
    """
    home = Path(tempfile.gettempdir()) / f"lorafile-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise PermissionError(f"{home} belongs to another user.")
    for left in home.glob(f"{_AGENT}*"):
        with contextlib.suppress(OSError):  # its agent is there; or another agent removes it
            os.close(_locked(left))
            shutil.rmtree(left, ignore_errors=True)
    return home


def _locked(directory: Path) -> int:
    """Return a handle of a directory with the lock that its agent holds.

    :raises OSError: when another process has it
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


@dataclass
class Supplier:
    """The applying process's files in Ray's object store; one up to about 100 MB is put there once for all workers."""

    ray: Any
    index: ContentIndex
    _kept: dict[str, Any] = field(default_factory=dict)  # digest -> reference

    def pieces(self, digest: str) -> Iterator[tuple[int, int, Any]]:
        """Yield offset, size of the whole, and the reference of each piece of a file.

        :raises LoraError: when the file has gone
        """
        path = self.index.path_of(digest)
        size = path.stat().st_size
        if size <= LARGE:
            if digest not in self._kept:
                self._kept[digest] = self.ray.put(path.read_bytes())
            yield 0, size, self._kept[digest]
            return
        with path.open("rb") as stream:
            for offset in range(0, size, _PIECE):
                yield offset, size, self.ray.put(stream.read(_PIECE))


class RayTransport:
    """How an actor is reached."""

    def __init__(self, ray: Any, actor: Any, supplier: Supplier) -> None:
        self._ray, self._actor, self._supplier = ray, actor, supplier
        self._known = 0  # messages that have come
        self._poll: Any = actor.listen.remote(0, _POLL_SECONDS)
        self._again_at = 0.0
        self._numbers = itertools.count()
        self._told: list[Any] = []  # messages that may still be on their way
        self._wanted: dict[str, Iterator[tuple[int, int, Any]]] = {}
        self._piece: Any = None  # that travels to the actor
        self._read: Any = None  # that is on its way from it

    @property
    def waiting(self) -> list[Any]:
        """What ends when there is something to do."""
        return [reference for reference in (self._poll, self._piece, self._read) if reference is not None]

    def send(self, text: str) -> None:
        """Send a message; whether it came shows later."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._told.append(self._actor.send.remote(next(self._numbers), text))

    def receive(self) -> list[str] | None:
        """Return the answer of the poll, and begin the next one."""
        self._check_told()
        self._supply_next()
        if self._poll is None:
            if time.monotonic() < self._again_at:
                return None
            self._poll = self._actor.listen.remote(self._known, _POLL_SECONDS)
        if not self._is_ready(self._poll):
            return None
        answer, self._poll = self._poll, None
        texts = self._get(answer)
        if texts is None:  # it cannot be reached just now: silence, not death
            self._again_at = time.monotonic() + 1
            return None
        self._known += len(texts)
        self._poll = self._actor.listen.remote(self._known, _POLL_SECONDS)
        return list(texts)

    def _check_told(self) -> None:
        """Look whether messages have come.

        :raises Gone: when one may not have: the actor would wait for it for ever
        """
        while self._told and self._is_ready(self._told[0]):
            try:
                self._ray.get(self._told.pop(0))
            except self._ray.exceptions.RayError as error:
                raise Gone(f"cannot receive its work: {_first_sentence(error)}") from error

    def fetch(self, digest: str, size: int, target: Path) -> bool:
        """Bring the next piece of a file here; return whether the file is whole."""
        part = target.with_name(f"{target.name}.part")
        with part.open("ab") as stream:
            if self._read is not None and self._is_ready(self._read):
                answer, self._read = self._read, None
                stream.write(self._get(answer) or b"")
            done = stream.tell()
        if done < size:
            if self._read is None:
                self._read = self._actor.read.remote(digest, done)
            return False
        if file_digest(part) != digest:
            part.unlink()
            raise Gone("sent a file that does not match its digest")
        part.replace(target)
        return True

    def supply(self, digests: list[str]) -> None:
        """Send files to the actor, one piece after another."""
        for digest in digests:
            if digest not in self._wanted and digest in self._supplier.index.files:
                self._wanted[digest] = self._supplier.pieces(digest)
        self._supply_next()

    def release(self, key: str) -> None:
        """Do nothing: the actor removes the files by itself."""

    def log(self) -> str:
        """Return nothing: a log comes with the messages."""
        return ""

    def close(self) -> None:
        """Kill the actor, with its worker."""
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(self._actor, no_restart=True)

    def _supply_next(self) -> None:
        while self._wanted and (self._piece is None or self._is_ready(self._piece)):
            if self._piece is not None:
                answer, self._piece = self._piece, None
                self._get(answer)
            digest, pieces = next(iter(self._wanted.items()))
            piece = next(pieces, None)
            if piece is None:
                del self._wanted[digest]
                continue
            offset, size, content = piece
            self._piece = self._actor.store.remote(digest, offset, size, content)

    def _is_ready(self, reference: Any) -> bool:
        ready, _ = self._ray.wait([reference], timeout=0)
        return bool(ready)

    def _get(self, reference: Any) -> Any:
        """Return what a call returned; None where the actor cannot be reached just now.

        :raises Gone: when it is dead
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.ActorUnavailableError:
            return None
        except (errors.RayActorError, errors.NodeDiedError, errors.ObjectLostError) as error:
            raise Gone(f"is gone with its actor: {_first_sentence(error)}") from error
        except errors.RayTaskError as error:
            raise Gone(f"could not continue: {_first_sentence(error)}") from error


def _first_sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200].rstrip(".")


@dataclass
class RayPool:
    """Workers of a Ray cluster, each an actor.

    :ivar workers: at most; None: one for each device that the cluster has
    """

    cluster: Cluster
    staging: Path
    workers: int | None = None
    keeps_workers = True
    _index: ContentIndex = field(default_factory=ContentIndex)

    def __post_init__(self) -> None:
        self._ray = connect(self.cluster)
        self._supplier = Supplier(self._ray, self._index)
        self._options = self._actor_options()

    def limit(self, _phase: Phase) -> int:
        """Return how many workers there are at most: each has its device for itself, in every phase."""
        return self.workers or self.cluster.workers or self._places()

    def adopt(self) -> list[tuple[WorkerHandle, list[Work]]]:
        """Return nothing: workers end with the process that applies."""
        return []

    def start(self, phase: Phase, _workers: Sequence[WorkerHandle], _urgency: Callable[[], int]) -> RemoteWorker:
        """Ask Ray for an actor; where and when it starts is Ray's."""
        nodes = max(1, len(self._nodes()))
        cores = int(min((node["Resources"].get("CPU", 1) for node in self._nodes()), default=1))
        threads = int(self.cluster.ray.num_cpus or max(1, cores // -(-self.limit(phase) // nodes)))
        actor = self._ray.remote(AgentActor).options(**self._options).remote(threads)
        name = f"ray-{uuid.uuid4().hex[:8]}"
        transport = RayTransport(self._ray, actor, self._supplier)
        return RemoteWorker(name, transport, self._index, self.staging / name, START_SECONDS)

    def wait(self, workers: Sequence[WorkerHandle], seconds: float) -> None:
        """Return when a poll has an answer."""
        transports = [worker.transport for worker in workers if isinstance(worker, RemoteWorker)]
        waiting = [each for one in transports if isinstance(one, RayTransport) for each in one.waiting]
        if waiting:
            self._ray.wait(waiting, timeout=seconds)
        else:
            time.sleep(seconds)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]

    def _places(self) -> int:
        """Return how many actors the cluster has room for now: one for each device, or for each node without any."""
        gpus = self._options["num_gpus"]
        if not gpus:
            return max(1, len(self._nodes()))
        return max(1, int(self._ray.cluster_resources().get("GPU", 0) // gpus))

    def _actor_options(self) -> dict[str, Any]:
        table, devices = self.cluster.ray, self.cluster.device
        gpus = table.num_gpus
        if gpus is None:
            there = self._ray.cluster_resources().get("GPU", 0)
            gpus = (devices[0].gpus_per_worker if devices else 1) if there else 0
        return {
            "num_gpus": gpus,  # an actor that asks for none would see every GPU
            "num_cpus": 1 if table.num_cpus is None else table.num_cpus,
            "resources": table.resources or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 4,
            "scheduling_strategy": "SPREAD",
        }


def connect(cluster: Cluster) -> Any:
    """Return the library, connected to the cluster of which this machine is a node.

    :raises MissingExtra: where Ray is not installed
    :raises LoraError: when there is no such cluster
    """
    try:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # calls to a dead actor, which end in tracebacks
        import ray
    except ImportError:
        raise MissingExtra("lora apply --cluster", "ray", "ray") from None
    address = cluster.ray.address or os.environ.get("RAY_ADDRESS") or "auto"
    if address.startswith("ray://"):
        raise LoraError(
            f"{address} is a Ray Client address, which is not supported. Run lora on a node of the cluster with "
            'address = "HOST:6379", or submit it there: ray job submit -- lora apply … --yes'
        )
    _keep_stdout(ray)
    if not ray.is_initialized():
        _knock(address)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            # Ray puts the current directory before everything else on its workers' path: a peft.py there would be
            # imported. It gets the name of one that has gone by then.
            with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # ConnectionError, ValueError, RuntimeError, AuthenticationError, …
            raise _unreachable(address, _first_sentence(error)) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray's would end this process at once
    return ray


def _knock(address: str) -> None:
    """Check that something listens at an address of the form `host:port`; Ray itself would try for minutes.

    :raises LoraError: when nothing does
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, getattr(error, "strerror", None) or str(error).rstrip(".")) from None


def _unreachable(address: str, why: str) -> LoraError:
    return LoraError(
        f"No Ray cluster can be reached at {address}: {why}. Start one with `ray start`, or set its "
        "address in lora.toml (ray.address) or RAY_ADDRESS. If it requires a token, set RAY_AUTH_MODE and the token as "
        "on its nodes."
    )


def _keep_stdout(ray: Any) -> None:
    """Keep Ray from printing on stdout what became of its processes, between events in JSON; attempts record it.

    It has no setting for this: `log_to_driver` leaves the messages of its daemons out of account.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if worker is not None and hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *_, **__: None
