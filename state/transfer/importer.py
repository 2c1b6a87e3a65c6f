"""`lora state import`: what is there already stays, everything is proven, and nothing is taken by halves."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.state import State, WritableState
from lorafile.state.errors import translate_errors
from lorafile.state.integrity.leftovers import is_digest
from lorafile.state.integrity.rows_check import AttemptRow, read_rows
from lorafile.state.ledger import Arrival, Arrivals, merge
from lorafile.state.transfer.incoming import Incoming, distrust, opened


@dataclass
class Merged:
    """What an import has brought.

    :ivar attempts: that are new here; `known`: that were here already; `kept`: left out, since this state has a result
    :ivar objects, bytes: of files that are new here
    """

    source: Path
    attempts: int = 0
    known: int = 0
    kept: int = 0
    objects: int = 0
    bytes: int = 0
    studies: list[str] = field(default_factory=list)


def import_state(source: Path, directory: Path, lock_timeout: float = 0.0) -> Merged:
    """Merge a bundle, or another state's directory, into a state.

    :raises LoraError: when it is damaged or hostile; nothing was taken of it then
    """
    with opened(source) as incoming, State.write(directory, lock_timeout) as state:
        merged = Merged(source)
        new, wanted = _choose(incoming, state, merged)
        with translate_errors(directory):
            workshop = Path(tempfile.mkdtemp(prefix="importing-", dir=directory))
            try:
                with distrust(source):
                    brought = _prove(incoming, wanted, workshop, merged)
                for digest in brought:
                    state.objects.adopt(workshop / digest, digest)
            finally:
                shutil.rmtree(workshop, ignore_errors=True)
        merged.studies = merge(state, _arrivals(incoming, new, brought))
        return merged


def _arrivals(incoming: Incoming, new: list[AttemptRow], brought: list[str]) -> Arrivals:
    rows = incoming.rows
    files: dict[int, list[tuple[str, str, int]]] = {}
    for (number, name), (digest, size) in rows.outputs.items():
        files.setdefault(number, []).append((name, digest, size))
    keys, environments = {row.key for row in new}, {row.environment for row in new}
    return Arrivals(
        nodes=[(key, *row) for key, row in rows.nodes.items() if key in keys],
        environments=[(digest, text) for digest, text in rows.environments.items() if digest in environments],
        attempts=[
            Arrival(
                tuple(row.values[:-1]),
                row.environment,
                files.get(row.id, []),
                rows.seals[row.id],
                incoming.forecasts.get(row.id),
            )
            for row in new
        ],
        declarations=incoming.declarations,
        acceptances=incoming.acceptances,
        restored=brought,
    )


def _choose(incoming: Incoming, state: WritableState, merged: Merged) -> tuple[list[AttemptRow], set[str]]:
    """Return the attempts that are new here, and the digests of the objects that are needed."""
    here, rows = read_rows(state), incoming.rows
    counting = {seal for number, seal in here.seals.items() if number not in here.removals}
    finished = {_slot(*row) for row in state.rows("SELECT key, kind, device FROM results")}
    new: list[AttemptRow] = []
    needed: set[int] = set()
    for number, row in sorted(rows.attempts.items()):
        if rows.seals[number] in counting:
            merged.known += 1
            needed.add(number)
        elif _slot(row.key, row.kind, row.device) in finished:
            merged.kept += 1
        else:
            new.append(row)
            needed.add(number)
    merged.attempts = len(new)
    wanted = {digest for (number, _), (digest, _) in rows.outputs.items() if number in needed}
    return new, {digest for digest in wanted if not state.objects.has(digest)}


def _slot(key: str, kind: str, device: str) -> tuple[str, str]:
    """Return what there is one result of: a node, or a profile on a device."""
    return key, device if kind == "profile" else ""


def _prove(incoming: Incoming, wanted: set[str], workshop: Path, merged: Merged) -> list[str]:
    """Copy every object that is wanted, prove all of them, and return what was copied.

    :raises ValueError: when one is not what its digest says, or nothing names it
    """
    named = dict(incoming.rows.outputs.values())
    brought: list[str] = []
    seen: set[str] = set()
    for digest, copy in incoming.objects:
        if not is_digest(digest) or digest not in named:
            raise ValueError(f"the object {digest[:12]}… belongs to nothing in it")
        if digest in seen:
            raise ValueError(f"the object {digest[:12]}… is in it twice")
        seen.add(digest)
        found, size = _copied(copy, workshop / digest if digest in wanted else None)
        if found != digest or size != named[digest]:
            raise ValueError(f"the object {digest[:12]}… is damaged: its bytes are not the ones that were stored")
        if digest in wanted:
            brought.append(digest)
            merged.objects += 1
            merged.bytes += size
    return brought


def _copied(copy: Callable[[Callable[[bytes], object]], str], to: Path | None) -> tuple[str, int]:
    size = 0

    def count(content: bytes) -> None:
        nonlocal size
        size += len(content)

    if to is None:
        return copy(count), size
    with to.open("wb") as stream:

        def write(content: bytes) -> None:
            count(content)
            stream.write(content)

        found = copy(write)
        stream.flush()
        os.fsync(stream.fileno())
    return found, size
