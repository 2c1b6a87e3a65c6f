"""`lora state import`: what is there already stays, everything is proven, and nothing is taken by halves."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.files.atomic import sync
from lorafile.state import State, WritableState
from lorafile.state.errors import translate_errors
from lorafile.state.integrity.leftovers import is_digest
from lorafile.state.integrity.rows_check import AttemptRow, read_rows
from lorafile.state.records import COLUMNS, CURVE, curve_steps
from lorafile.state.transfer.incoming import Incoming, open_source, refuse_malformed
from lorafile.units import utc_now


@dataclass
class ImportSummary:
    """What an import has brought.

    :ivar attempts: that are new here; `present`: here already; `kept`: left out, since this state has a result
    :ivar objects, bytes: of files that are new here
    """

    source: Path
    attempts: int = 0
    present: int = 0
    kept: int = 0
    objects: int = 0
    bytes: int = 0
    studies: list[str] = field(default_factory=list)


def import_state(source: Path, directory: Path, lock_timeout: float = 0.0) -> ImportSummary:
    """Merge a bundle, or another state's directory, into a state.

    :raises LoraError: when it is damaged or hostile; nothing was taken of it then
    """
    with open_source(source) as incoming, State.write(directory, lock_timeout) as state:
        merged = ImportSummary(source)
        new, missing = _choose(incoming, state, merged)
        brought = bring_objects(incoming, state, missing, merged)
        merged.studies = _record_all(state, incoming, new, brought)
        return merged


def bring_objects(incoming: Incoming, state: State, missing: set[str], merged: ImportSummary) -> list[str]:
    """Store the objects that are missing here, once all that came are proven; return their digests.

    :raises LoraError: when one is not what its digest says, or nothing names it; nothing is stored then
    """
    with translate_errors(state.directory):
        workshop = Path(tempfile.mkdtemp(prefix="importing-", dir=state.directory))
        try:
            with refuse_malformed(incoming.source):
                brought = _prove(incoming, missing, workshop, merged)
            for digest in brought:
                state.objects.adopt(workshop / digest, digest)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    return brought


def _record_all(state: WritableState, incoming: Incoming, new: list[AttemptRow], brought: list[str]) -> list[str]:
    """Record attempts that are new here, with what they refer to, all or nothing; return the studies that are new.

    What a study that is known here declares stays as it is, and so does what is accepted in the place of a key.

    :param brought: digests of the objects that came
    """
    with translate_errors(state.directory), state.db.atomic():
        run = state.db.conn.executemany
        record_attempts(state, incoming, new, brought)
        studies = {study for (study,) in state.rows("SELECT DISTINCT study FROM declarations")}
        declarations = [row for row in incoming.declarations if row[0] not in studies]
        run("INSERT OR IGNORE INTO declarations VALUES (?, ?, ?, ?)", declarations)
        run(
            "INSERT INTO acceptances (old, new, kind, reason, since) SELECT ?, ?, ?, ?, ? WHERE ? IN "
            "(SELECT key FROM results) AND ? NOT IN (SELECT new FROM acceptances WHERE withdrawn IS NULL)",
            [(*row, row[0], row[1]) for row in incoming.acceptances],
        )
    return sorted({row[0] for row in declarations})


def record_attempts(state: WritableState, incoming: Incoming, new: list[AttemptRow], brought: Iterable[str]) -> None:
    """Record attempts that are new here, with their nodes and environments, as a part of a transaction."""
    rows, run = incoming.rows, state.db.conn.executemany
    keys, environments = {row.key for row in new}, {row.environment for row in new}
    files = rows.files()
    used = [row for row in rows.environments.items() if row[0] in environments]
    run("INSERT OR IGNORE INTO environments VALUES (?, ?)", used)
    nodes = [(key, *row) for key, row in rows.nodes.items() if key in keys]
    run("INSERT OR IGNORE INTO nodes VALUES (?, ?, ?, ?, ?)", nodes)
    for row in new:
        _record(state, row, files.get(row.id, []), rows.seals[row.id], rows.forecasts.get(row.id))
    run("DELETE FROM collected WHERE digest = ?", [(digest,) for digest in brought])


def _record(
    state: WritableState, row: AttemptRow, files: list[tuple[str, str, int]], seal: str, forecast: str | None
) -> None:
    marks = ", ".join("?" * (len(COLUMNS) + 1))
    run, many = state.db.conn.execute, state.db.conn.executemany
    query = f"INSERT INTO attempts ({', '.join(COLUMNS)}, environment) VALUES ({marks})"  # noqa: S608
    number = run(query, row.values).lastrowid
    many("INSERT INTO outputs VALUES (?, ?, ?, ?)", [(number, *file) for file in files])
    run("INSERT INTO seals VALUES (?, ?)", (number, seal))
    if forecast is not None:
        run("INSERT INTO forecasts VALUES (?, ?)", (number, forecast))
    for name, digest, size in files:
        if state.objects.has(digest):
            run("DELETE FROM collected WHERE digest = ?", (digest,))
            steps = curve_steps(state.objects.path(digest)) if name == CURVE else []
            many("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", [(number, *step) for step in steps])
        else:  # it was never brought here
            run("INSERT OR IGNORE INTO collected VALUES (?, ?, ?)", (digest, size, utc_now()))


def _choose(incoming: Incoming, state: WritableState, merged: ImportSummary) -> tuple[list[AttemptRow], set[str]]:
    """Return the attempts that are new here, and the digests of the objects that are needed."""
    here, rows = read_rows(state), incoming.rows
    counting = {seal for number, seal in here.seals.items() if number not in here.removals}
    finished = {slot_of(*row) for row in state.rows("SELECT key, kind, device FROM results")}
    new: list[AttemptRow] = []
    needed: set[int] = set()
    for number, row in sorted(rows.attempts.items()):
        if rows.seals[number] in counting:
            merged.present += 1
            needed.add(number)
        elif slot_of(row.key, row.kind, row.device) in finished:
            merged.kept += 1
        else:
            new.append(row)
            needed.add(number)
    merged.attempts = len(new)
    digests = {digest for (number, _), (digest, _) in rows.outputs.items() if number in needed}
    return new, {digest for digest in digests if not state.objects.has(digest)}


def slot_of(key: str, kind: str, device: str) -> tuple[str, str]:
    """Return what there is one result of: a node, or a profile on a device."""
    return key, device if kind == "profile" else ""


def _prove(incoming: Incoming, missing: set[str], workshop: Path, merged: ImportSummary) -> list[str]:
    """Copy every object that is missing here, prove all of them, and return what was copied.

    :raises ValueError: when one is not what its digest says, or nothing names it
    """
    named = dict(incoming.rows.outputs.values())
    brought: list[str] = []
    seen: set[str] = set()
    for digest, member in incoming.objects:
        if not is_digest(digest) or digest not in named:
            raise ValueError(f"the object {digest[:12]}… belongs to nothing in it")
        if digest in seen:
            raise ValueError(f"the object {digest[:12]}… is in it twice")
        seen.add(digest)
        is_new = digest in missing
        with (workshop / digest if is_new else Path(os.devnull)).open("wb") as stream:
            copied_digest = member.copy(stream.write)
        if copied_digest != digest or member.size != named[digest]:
            raise ValueError(f"the object {digest[:12]}… is damaged: it differs from what was stored")
        if is_new:
            sync(workshop / digest)
            brought.append(digest)
            merged.objects += 1
            merged.bytes += member.size
    return brought
