"""All that a state knows of one node: its history for `lora show`, every row and file for `lora state show`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.files.run_directory import Unfinished, unfinished
from lorafile.state import Acceptance, Attempt, Node, State
from lorafile.state.names import Named, recorded_nodes
from lorafile.state.records import COLUMNS, CURVE


@dataclass(frozen=True)
class History:
    """One node as state knows it.

    :ivar studies: the studies that declare it now
    :ivar settings: section -> settings, as they were hashed; empty where no attempt is recorded and none runs
    :ivar inputs: role -> (key, address) of what it reads
    :ivar curve: a row for each optimizer step, of the newest finished attempt, or of the run that is not finished
    :ivar unfinished: how far a run has come that trains now, or that was interrupted
    """

    key: str
    kind: str
    address: str
    studies: list[str]
    version: int | None
    settings: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    attempts: list[Attempt]
    curve: list[dict[str, Any]]
    unfinished: Unfinished | None

    @property
    def standing(self) -> str:
        """How the node stands: running, the outcome of its newest attempt, or that there was none."""
        if self.unfinished is not None and self.unfinished.live:
            return "running"
        if self.attempts:
            return self.attempts[-1].outcome
        return "interrupted" if self.unfinished else "not run yet"


def history(state: State, named: Named) -> History:
    """Return what state knows of a node."""
    key = named.key
    recorded, attempts = state.node(key), state.latest([key]).get(key, [])
    open_run = None if attempts and attempts[-1].finished else unfinished(state.running(key))
    about = open_run.about if open_run else {}
    curve = attempts[-1].outputs.get(CURVE) if attempts else None
    stored_curve = list(state.objects.rows(curve)) if curve and state.objects.has(curve) else []
    nodes = recorded_nodes(state)
    addresses = {node.key: node.address for node in reversed(nodes)}
    declaring = {node.study for node in (named, *nodes) if node.key == key and node.declared}
    return History(
        key=key,
        kind=named.kind,
        address=named.address,
        studies=sorted(declaring),
        version=recorded.version if recorded else None,
        settings=recorded.settings if recorded else about.get("settings", {}),
        inputs={role: (read, addresses.get(read, "")) for role, read in (recorded.inputs if recorded else {}).items()},
        attempts=attempts,
        curve=open_run.rows if open_run else stored_curve,
        unfinished=open_run,
    )


@dataclass(frozen=True)
class StoredFile:
    """A file of an attempt.

    :ivar standing: `here`, `missing`, `remote` where only the state's remote has it, or `collected` where garbage
        collection took it
    """

    name: str
    digest: str
    bytes: int
    path: Path
    standing: str


@dataclass(frozen=True)
class AttemptDetails:
    """An attempt with its files; `removed` says when and why it counts no more."""

    number: int
    attempt: Attempt
    files: list[StoredFile]
    removed: str


@dataclass(frozen=True)
class NodeDetails:
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
    attempts: list[AttemptDetails]
    stands_for: list[Acceptance]
    replaced: Acceptance | None
    running: Path | None


def node_details(state: State, named: Named) -> NodeDetails:
    """Return all of a node."""
    key, node = named.key, state.node(named.key)
    addresses = dict(state.rows("SELECT key, address FROM attempts ORDER BY id"))
    accepted = state.acceptances()
    readers = state.rows("SELECT n.key FROM nodes n, json_each(n.inputs) i WHERE i.value = ?", key)
    running = state.running(key)
    return NodeDetails(
        key=key,
        kind=named.kind,
        address=named.address,
        node=node,
        declared=state.rows("SELECT study, address FROM declarations WHERE key = ?", key),
        inputs={role: (k, addresses.get(k, "")) for role, k in (node.inputs if node else {}).items()},
        read_by=[(k, addresses.get(k, "")) for (k,) in readers],
        attempts=_attempts(state, key),
        stands_for=[acceptance for acceptance in accepted.values() if acceptance.old == key],
        replaced=accepted.get(key),
        running=running if running.is_dir() else None,
    )


def _attempts(state: State, key: str) -> list[AttemptDetails]:
    names = ", ".join(f"a.{name}" for name in COLUMNS)
    rows = state.rows(
        f"SELECT {names}, e.settings, r.since, r.reason, a.id FROM attempts a "  # noqa: S608
        "JOIN environments e ON e.digest = a.environment LEFT JOIN removals r ON r.attempt = a.id "
        "WHERE a.key = ? ORDER BY a.id",
        key,
    )
    attempts = []
    for *values, environment, since, reason, number in rows:
        columns: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
        columns |= {name: json.loads(columns[name]) for name in ("figures", "reads")}
        files = _files(state, number)
        outputs, size = {file.name: file.digest for file in files}, sum(file.bytes for file in files)
        attempt = Attempt(**columns, environment=json.loads(environment), outputs=outputs, bytes=size)
        attempts.append(AttemptDetails(number, attempt, files, f"{since}: {reason}" if since else ""))
    return attempts


def _files(state: State, attempt: int) -> list[StoredFile]:
    rows = state.rows(
        "SELECT o.name, o.digest, o.bytes, c.digest IS NOT NULL FROM outputs o "
        "LEFT JOIN collected c ON c.digest = o.digest WHERE o.attempt = ? ORDER BY o.name",
        attempt,
    )
    files = []
    for name, digest, size, collected in rows:
        remote = not state.objects.is_here(digest) and state.objects.is_remote(digest)
        here = "remote" if remote else "here" if state.objects.has(digest) else ""
        standing = here or ("collected" if collected else "missing")
        files.append(StoredFile(name, digest, size, state.objects.path(digest), standing))
    return files
