"""`lora state show`: all that the index has of one node, with every attempt and every file of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.state import Acceptance, Attempt, Node, State
from lorafile.state.names import Named
from lorafile.state.rows import COLUMNS


@dataclass(frozen=True)
class StoredFile:
    """A file of an attempt.

    :ivar standing: `here`, `missing`, or `collected` where garbage collection took it
    """

    name: str
    digest: str
    bytes: int
    path: Path
    standing: str


@dataclass(frozen=True)
class StoredAttempt:
    """An attempt with its files; `removed` says when and why it counts no more."""

    number: int
    attempt: Attempt
    files: list[StoredFile]
    removed: str


@dataclass(frozen=True)
class Stored:
    """All of a node.

    :ivar declared: (study, address) of each study that declares it
    :ivar inputs: role -> (key, address)
    :ivar stands_for, replaced: acceptances that use its result for another, or another's result for it
    :ivar read_by: (key, address) of what reads it
    """

    key: str
    kind: str
    address: str
    node: Node | None
    declared: list[tuple[str, str]]
    inputs: dict[str, tuple[str, str]]
    read_by: list[tuple[str, str]]
    attempts: list[StoredAttempt]
    stands_for: list[Acceptance]
    replaced: Acceptance | None
    running: Path | None


def stored(state: State, found: Named) -> Stored:
    """Return all of a node."""
    key, node = found.key, state.node(found.key)
    addresses = dict(state.rows("SELECT key, address FROM attempts ORDER BY id"))
    accepted = state.acceptances()
    readers = state.rows("SELECT n.key FROM nodes n, json_each(n.inputs) i WHERE i.value = ?", key)
    running = state.running(key)
    return Stored(
        key=key,
        kind=found.kind,
        address=found.address,
        node=node,
        declared=state.rows("SELECT study, address FROM declarations WHERE key = ?", key),
        inputs={role: (k, addresses.get(k, "")) for role, k in (node.inputs if node else {}).items()},
        read_by=[(k, addresses.get(k, "")) for (k,) in readers],
        attempts=_attempts(state, key),
        stands_for=[one for one in accepted.values() if one.old == key],
        replaced=accepted.get(key),
        running=running if running.is_dir() else None,
    )


def _attempts(state: State, key: str) -> list[StoredAttempt]:
    columns = ", ".join(f"a.{name}" for name in COLUMNS)
    rows = state.rows(
        f"SELECT {columns}, e.settings, r.since, r.reason, a.id FROM attempts a "  # noqa: S608
        "JOIN environments e ON e.digest = a.environment LEFT JOIN removals r ON r.attempt = a.id "
        "WHERE a.key = ? ORDER BY a.id",
        key,
    )
    found = []
    for *values, environment, since, reason, number in rows:
        known: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
        known |= {name: json.loads(known[name]) for name in ("figures", "reads")}
        files = _files(state, number)
        outputs, size = {file.name: file.digest for file in files}, sum(file.bytes for file in files)
        attempt = Attempt(**known, environment=json.loads(environment), outputs=outputs, bytes=size)
        found.append(StoredAttempt(number, attempt, files, f"{since}: {reason}" if since else ""))
    return found


def _files(state: State, attempt: int) -> list[StoredFile]:
    rows = state.rows(
        "SELECT o.name, o.digest, o.bytes, c.digest IS NOT NULL FROM outputs o "
        "LEFT JOIN collected c ON c.digest = o.digest WHERE o.attempt = ? ORDER BY o.name",
        attempt,
    )
    files = []
    for name, digest, size, collected in rows:
        standing = "here" if state.objects.has(digest) else "collected" if collected else "missing"
        files.append(StoredFile(name, digest, size, state.objects.path(digest), standing))
    return files
