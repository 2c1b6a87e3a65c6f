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
from lorafile.state import Objects, State
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
from lorafile.state.integrity.leftovers import leftovers, list_objects, unfinished_runs
from lorafile.state.integrity.rows_check import IndexRows, describe_damage, read_rows

_THREADS = max(4, os.cpu_count() or 1)  # hashing leaves the interpreter free, and disks answer several at once
_UNREAD = ("disk I/O error", "unable to open")  # what SQLite says of a disk, not of a file
_CHANGED = "differs from what was stored"
_PORTION, _PORTION_BYTES = 256, 16 << 20


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was stored.

    :ivar where: `index`, or the file; `told`: what is wrong, in words
    :ivar attempts: those whose results it takes away
    """

    where: str
    told: str
    attempts: tuple[int, ...] = ()
    digest: str = ""


@dataclass
class Verification:
    """What a look at everything has shown.

    :ivar index: what is wrong with the index as a file, or with its rows; `objects`: damaged and missing ones
    :ivar unreadable: what the disk does not give back; its bytes may be there, so that no repair touches objects here
    :ivar notes: what is no damage, and goes with gc or with the next apply
    """

    checked: int = 0
    bytes: int = 0
    rows: int = 0
    collected: int = 0
    index: list[Problem] = field(default_factory=list)
    objects: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    @property
    def damages(self) -> list[Problem]:
        """All that is not as it was stored, or cannot be looked at."""
        return [*self.index, *self.objects, *self.unreadable]


def verify(directory: Path, tell: Callable[[int, int], None] | None = None) -> Verification:
    """Look at every object and every row; writes nothing.

    :param tell: called with the bytes that are checked, and those that there are
    :raises StateError: when there is no state, or a newer version made it
    """
    if not (directory / "state.db").exists() and not (directory / "objects").is_dir():
        raise StateError(f"There is no state in {directory}. Pass another directory with --state.")
    state, result = State(directory, proven=False), Verification()
    _check_objects(state.objects, _check_index(state, result), result, tell)
    _check_other_files(directory, result)
    return result


def _check_index(state: State, result: Verification) -> IndexRows | None:
    """Check the index; return its rows, or None where they cannot be read."""
    database = state.directory / "state.db"
    try:
        with translate_errors(state.directory):
            check_checksum(database)
    except StateError as error:
        if not isinstance(error.__cause__, sqlite3.DatabaseError):
            raise
        if not has_log(database):
            result.index.append(Problem("index", f"state.db: {error.__cause__}"))
    try:
        answers = [row[0] for row in state.rows("PRAGMA integrity_check(10)")]
        rows = read_rows(state)
    except StateError as error:
        if any(s in str(error.__cause__) for s in _UNREAD):
            raise  # what cannot be read now is no damage yet, and no reason to make a new index
        if not isinstance(error.__cause__, sqlite3.DatabaseError) and not result.index:
            raise  # of a damaged index, the version of its schema is not to be believed either
        result.index.append(Problem("index", f"state.db cannot be read: {error.__cause__ or error}"))
        return None
    if unread := [answer for answer in answers if "error code=" in answer]:
        raise disk_failure(state.directory, f"{database}: {unread[0]}")
    with translate_errors(state.directory):
        ignored = ignored_transactions(database)
    if ignored > 1:
        result.index.append(Problem("index", f"state.db-wal: the last {ignored} of the records cannot be read"))
    elif ignored:
        result.notes.append("the last entry of state.db-wal is incomplete: a process was killed while writing it")
    result.rows = rows.count
    result.index += [Problem("index", f"SQLite says: {answer}") for answer in answers if answer != "ok"]
    result.index += [Problem("index", sentence) for sentence in describe_damage(rows)]
    return rows


def _check_objects(
    objects: Objects, rows: IndexRows | None, result: Verification, tell: Callable[[int, int], None] | None
) -> None:
    """Check every object's bytes, and that every object that counts is here."""
    listing, owners = list_objects(objects), _owners(rows or IndexRows())
    sizes = listing.objects
    result.checked, result.bytes, done = len(sizes), sum(sizes.values()), 0
    for digest, wrong in _hash_all(objects, sizes):
        done += sizes[digest]
        if tell:
            tell(done, result.bytes)
        if wrong:
            problems = result.objects if wrong == _CHANGED else result.unreadable
            problems.append(_object_problem(objects, digest, owners, wrong))
    absent = owners.keys() - sizes.keys()
    remote = {digest for digest in absent if objects.is_remote(digest)}
    result.notes += [f"{len(remote)} objects exist only in the remote and were not read"] if remote else []
    for digest in sorted(absent - remote):
        if rows is not None and digest in rows.collected:
            result.collected += 1
        else:
            result.objects.append(_object_problem(objects, digest, owners, "is missing"))
    unnamed = len(sizes.keys() - {digest for digest, _ in rows.outputs.values()}) if rows else 0
    result.notes += [f"{unnamed} objects are not referenced"] if unnamed else []
    result.notes += [f"{path} was never finished" for path in listing.temporary]
    result.notes += [f"{path} is not an object and was not written by lorafile" for path in listing.strange]


def _owners(rows: IndexRows) -> dict[str, list[tuple[int, str]]]:
    """Return digest -> the attempts that count and have it among their files, and what it is of each."""
    owners: dict[str, list[tuple[int, str]]] = {}
    for (attempt, name), (digest, _) in rows.outputs.items():
        is_digest = isinstance(digest, str)  # else the seal of the attempt says so
        if is_digest and attempt in rows.attempts and attempt not in rows.removals:
            owners.setdefault(digest, []).append((attempt, f"{name} of {rows.attempts[attempt].address}"))
    return owners


def _object_problem(objects: Objects, digest: str, owners: dict[str, list[tuple[int, str]]], wrong: str) -> Problem:
    uses = owners.get(digest, [])
    of = ", ".join(name for _, name in uses[:3]) or "an object that no result needs"
    more = f" and {len(uses) - 3} more" if len(uses) > 3 else ""
    return Problem(str(objects.path(digest)), f"{of}{more} {wrong}", tuple(attempt for attempt, _ in uses), digest)


def _hash_all(objects: Objects, sizes: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield for each object what is wrong with its bytes: nothing where they are those that were stored."""

    def check(digest: str) -> str:
        try:
            return "" if file_digest(objects.path(digest)) == digest else _CHANGED
        except FileNotFoundError:  # garbage collection took it a moment ago
            return ""
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    with ThreadPoolExecutor(_THREADS) as pool:
        for portion in pool.map(lambda digests: [(digest, check(digest)) for digest in digests], _portions(sizes)):
            yield from portion


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


def _check_other_files(directory: Path, result: Verification) -> None:
    try:
        for wrong in _checksum_and_copy(directory):
            result.notes.append(f"{wrong}: `lora state verify --repair` recreates it")
    except OSError as error:
        wrong = f"{BACKUP}, the copy of the index, cannot be compared with it: {error.strerror or error}"
        result.unreadable.append(Problem(str(error.filename), wrong))
    result.notes += [f"{path} was left by a killed process" for path in leftovers(directory)]
    for path in unfinished_runs(directory).values():
        if (path / CHECKPOINT).exists():
            try:
                read_manifest(path)
            except DamagedCheckpoint as damage:
                result.notes.append(f"the checkpoint in {path} will not be used: {damage}")
            except OSError as error:
                result.notes.append(f"the checkpoint in {path} cannot be read from the disk: {error.strerror}")


def _checksum_and_copy(directory: Path) -> Iterator[str]:
    """Yield what is wrong with the checksum and the copy of the index; neither holds anything that it has not."""
    copy, closed = directory / BACKUP, not has_log(directory / "state.db")
    if closed and not (directory / CHECKSUM).exists():
        yield f"{CHECKSUM}, the checksum of the index, is missing"
    if not copy.exists():
        if closed:
            yield f"{BACKUP}, the copy of the index, is missing"
    elif not (is_as_closed(copy) if (directory / CHECKSUM).exists() else is_database(copy)):
        yield f"{BACKUP}, the copy of the index, is damaged or out of date"
