"""`lora state push`, `pull` and `gc` of a remote."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lorafile.errors import LoraError
from lorafile.state.gc import FreedObjects, Garbage
from lorafile.state.integrity.leftovers import is_digest
from lorafile.state.objects import Objects
from lorafile.state.remote.session import Remote, locked
from lorafile.state.transfer.importer import ImportSummary, import_state

_SPARED = timedelta(days=7)  # the age of an object from which no command can still be about to name it
_AT_ONCE = 8  # downloads


@dataclass(frozen=True)
class Pushed:
    """What a push has sent.

    :ivar merged: what another state than the remote's own local one brought
    """

    attempts: int
    merged: ImportSummary | None


@dataclass(frozen=True)
class PulledObjects:
    """What a pull has brought into a remote's own local state: the files that only the remote had."""

    objects: int
    bytes: int


def push(remote: Remote, source: Path, lock_timeout: float = 0.0) -> Pushed:
    """Send what a state has and its remote, or another one, has not.

    :param source: the remote's own local state, or any other, which is merged as `lora state import` does
    :raises StateError: when the lock is another's, or something could not be sent
    """
    with locked(remote.directory, lock_timeout) as session:
        merged = None
        if source.absolute() != remote.directory.absolute():
            merged = import_state(source, remote.directory, lock_timeout)
        if session is not None:
            session.finish()
    return Pushed(session.sender.sent if session else 0, merged)


def pull(remote: Remote, target: Path, lock_timeout: float = 0.0) -> ImportSummary | PulledObjects:
    """Bring all of a remote here, files included.

    :param target: the remote's own local state, which lacks nothing then; or any other, into which it is merged
    :raises LoraError: when something cannot be had
    """
    if target.absolute() != remote.directory.absolute():
        if not (remote.directory / "state.db").exists():
            raise LoraError(f"There is nothing to pull: {remote.url} has no results.")
        return import_state(remote.directory, target, lock_timeout)
    objects = Objects(remote.directory / "objects")
    missing = sorted(digest for digest in remote.knowledge.objects if not objects.is_here(digest))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(objects.fetch, missing))
    return PulledObjects(len(missing), sum(remote.knowledge.objects[digest] for digest in missing))


def garbage(remote: Remote) -> Garbage:
    """Return the objects of a remote that no bundle names, and that are older than a week."""
    before = datetime.now(UTC) - _SPARED
    freed, kept = dict[str, int](), list[int]()
    for entry in remote.bucket.entries("objects/"):
        digest = entry.path.rpartition("/")[2]
        if is_digest(digest) and digest not in remote.knowledge.objects and entry.modified < before:
            freed[digest] = entry.bytes
        else:
            kept.append(entry.bytes)
    why = "in no bundle, and older than a week"
    group = FreedObjects("objects", why, tuple(sorted(freed)), sum(freed.values()))
    return Garbage([group] if freed else [], [], 0, (len(kept), sum(kept)), freed)


def sweep(remote: Remote, lock_timeout: float = 0.0) -> Garbage:
    """Take these objects away, under the remote's lock; return what went.

    :raises StateError: when the lock is another's, or a bundle is damaged, since what it names is not known
    """
    with locked(remote.directory, lock_timeout):
        waste = garbage(remote)
        remote.bucket.delete([f"objects/{digest[:2]}/{digest}" for digest in waste.sizes])
        return waste
