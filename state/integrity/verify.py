"""`lora state verify`: every object against its digest, every row of the index against what it should be."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.errors import StateError
from lorafile.files.digests import file_digest
from lorafile.files.run_directory import CHECKPOINT, DamagedCheckpoint, read_manifest
from lorafile.state import State
from lorafile.state.errors import disk_failure, translate_errors
from lorafile.state.index_file import (
    BACKUP,
    CHECKSUM,
    check_checksum,
    has_log,
    ignored_transactions,
    is_as_closed,
    is_database,
)
from lorafile.state.integrity.leftovers import leftovers, lying, running
from lorafile.state.integrity.rows_check import Rows, damaged_rows, read_rows

_THREADS = max(4, os.cpu_count() or 1)  # hashing leaves the interpreter free, and disks answer several at once
_UNREAD = ("disk I/O error", "unable to open")  # what SQLite says of a disk, not of a file
_CHANGED = "is not what was stored"
_PORTION, _PORTION_BYTES = 256, 16 << 20


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was stored.

    :ivar where: `index`, or the file; `attempts`: those whose results it takes away
    """

    where: str
    told: str
    attempts: tuple[int, ...] = ()
    digest: str = ""


@dataclass
class Verified:
    """What came of a look at everything.

    :ivar index: what is wrong with the index as a file, or with its rows; `objects`: damaged and missing ones
    :ivar unreadable: what the disk does not give back; its bytes may be there, so that no repair touches objects here
    :ivar notes: what is no damage, and goes with gc or with the next apply
    """

    checked: int = 0
    bytes: int = 0
    rows: int = 0
    collected: int = 0
    index: list[Damage] = field(default_factory=list)
    objects: list[Damage] = field(default_factory=list)
    unreadable: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    @property
    def damages(self) -> list[Damage]:
        """All that is not as it was stored, or cannot be looked at."""
        return [*self.index, *self.objects, *self.unreadable]


def verify(directory: Path, tell: Callable[[int, int], None] | None = None) -> Verified:
    """Look at every object and every row; writes nothing.

    :param tell: called with the bytes that are checked, and those that there are
    :raises StateError: when there is no state, or a newer version made it
    """
    if not (directory / "state.db").exists() and not (directory / "objects").is_dir():
        raise StateError(f"There is no state in {directory}. Name another with --state.")
    state, found = State(directory, proven=False), Verified()
    rows = _index(state, found)
    _objects(state, rows, found, tell)
    _notes(state, found)
    return found


def _index(state: State, found: Verified) -> Rows | None:
    """Check the index; return its rows, or None where they cannot be read."""
    try:
        with translate_errors(state.directory):
            check_checksum(state.directory / "state.db")
    except StateError as error:
        if not isinstance(error.__cause__, sqlite3.DatabaseError):
            raise
        if not has_log(state.directory / "state.db"):
            found.index.append(Damage("index", f"state.db: {error.__cause__}"))
    try:
        wrong = [row[0] for row in state.rows("PRAGMA integrity_check(10)")]
        rows = read_rows(state)
    except StateError as error:
        if not isinstance(error.__cause__, sqlite3.DatabaseError) or any(s in str(error.__cause__) for s in _UNREAD):
            raise  # what cannot be read now is no damage yet, and no reason to make a new index
        found.index.append(Damage("index", f"state.db cannot be read: {error.__cause__}"))
        return None
    if unread := [told for told in wrong if "error code=" in told]:
        raise disk_failure(state.directory, f"{state.directory / 'state.db'}: {unread[0]}")
    with translate_errors(state.directory):
        lost = ignored_transactions(state.directory / "state.db")
    if lost > 1:
        found.index.append(Damage("index", f"state.db-wal: the last {lost} of what was recorded cannot be read"))
    elif lost:
        found.notes.append("the last entry of state.db-wal is not whole: a process was killed while it recorded it")
    found.rows = rows.count
    found.index += [Damage("index", f"SQLite says: {told}") for told in wrong if told != "ok"]
    found.index += [Damage("index", told) for told in damaged_rows(rows)]
    return rows


def _objects(state: State, rows: Rows | None, found: Verified, tell: Callable[[int, int], None] | None) -> None:
    """Check every object's bytes, and that every object that counts is here."""
    here = lying(state.objects)
    owners: dict[str, list[tuple[int, str]]] = {}
    for (attempt, name), (digest, _) in rows.outputs.items() if rows else ():
        if attempt in rows.attempts and attempt not in rows.removals:  # type: ignore[union-attr]
            owners.setdefault(digest, []).append((attempt, f"{name} of {rows.attempts[attempt].address}"))  # type: ignore[union-attr]
    whole, done = sum(here.objects.values()), 0
    for digest, what in _hashed(state, here.objects):
        done += here.objects[digest]
        if tell:
            tell(done, whole)
        if what:
            wrong = found.objects if what == _CHANGED else found.unreadable
            wrong.append(_damage(state, digest, owners, what))
    taken = rows.collected if rows else set()
    for digest in sorted(owners.keys() - here.objects.keys()):
        if digest in taken:
            found.collected += 1
        else:
            found.objects.append(_damage(state, digest, owners, "is missing"))
    found.checked, found.bytes = len(here.objects), whole
    unnamed = len(here.objects.keys() - {digest for digest, _ in rows.outputs.values()}) if rows else 0
    found.notes += [f"{unnamed} objects are named by nothing"] if unnamed else []
    found.notes += [f"{path} was never finished" for path in here.temporary]
    found.notes += [f"{path} is no object, and not from here" for path in here.strange]


def _damage(state: State, digest: str, owners: dict[str, list[tuple[int, str]]], told: str) -> Damage:
    mine = owners.get(digest, [])
    of = ", ".join(name for _, name in mine[:3]) or "an object that no result needs"
    more = f" and {len(mine) - 3} more" if len(mine) > 3 else ""
    attempts = tuple(attempt for attempt, _ in mine)
    return Damage(str(state.objects.path(digest)), f"{of}{more} {told}", attempts, digest)


def _hashed(state: State, sizes: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield for each object what is wrong with its bytes: nothing where they are those that were stored."""

    def wrong(digest: str) -> str:
        try:
            return "" if file_digest(state.objects.path(digest)) == digest else _CHANGED
        except FileNotFoundError:  # whoever collects garbage took it a moment ago
            return ""
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    def told(digests: list[str]) -> list[tuple[str, str]]:
        return [(digest, wrong(digest)) for digest in digests]

    with ThreadPoolExecutor(_THREADS) as pool:
        for some in pool.map(told, _portions(sizes)):
            yield from some


def _portions(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yield objects in portions, so that a thread is not asked for each small one."""
    portion, size = list[str](), 0
    for digest in sorted(sizes):
        portion.append(digest)
        size += sizes[digest]
        if len(portion) == _PORTION or size > _PORTION_BYTES:
            yield portion
            portion, size = [], 0
    yield portion


def _notes(state: State, found: Verified) -> None:
    try:
        for told in _beside_index(state.directory):
            found.notes.append(f"{told}: `lora state verify --repair` makes it anew")
    except OSError as error:
        told = f"{BACKUP}, the copy of the index, cannot be held against it: {error.strerror or error}"
        found.unreadable.append(Damage(str(error.filename), told))
    found.notes += [f"{path} was left by a process that was killed" for path in leftovers(state.directory)]
    for path in running(state.directory).values():
        if (path / CHECKPOINT).exists():
            try:
                read_manifest(path)
            except DamagedCheckpoint as damage:
                found.notes.append(f"the checkpoint in {path} will not be used: {damage}")
            except OSError as error:
                found.notes.append(f"the disk does not give back the checkpoint in {path}: {error.strerror}")


def _beside_index(directory: Path) -> Iterator[str]:
    """Yield what is wrong with the checksum and the copy of the index; neither holds anything that it has not."""
    copy, closed = directory / BACKUP, not has_log(directory / "state.db")
    if closed and not (directory / CHECKSUM).exists():
        yield f"{CHECKSUM}, the checksum of the index, is missing"
    if not copy.exists():
        if closed:
            yield f"{BACKUP}, the copy of the index, is missing"
    elif not (is_as_closed(copy) if (directory / CHECKSUM).exists() else is_database(copy)):
        yield f"{BACKUP}, the copy of the index, is damaged, or of an earlier time"
