"""The rows of a local state that its remote does not have yet, and the bundle that carries them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.files.digests import text_digest
from lorafile.state import State
from lorafile.state.integrity.rows_check import IndexRows, damaged_rows
from lorafile.state.records import CURVE
from lorafile.state.remote.knowledge import Knowledge
from lorafile.state.tables import SCHEMA_VERSION
from lorafile.state.transfer.bundle import Line, write_bundle
from lorafile.state.transfer.exporter import attempt_lines

SMALL = 1 << 16  # bytes: what is larger stands next to the bundles, under its digest
_ROWS = {  # of the attempts whose numbers are a JSON list
    "nodes": """SELECT key, kind, version, settings, inputs FROM nodes WHERE key IN (
        SELECT key FROM attempts WHERE id IN (SELECT value FROM json_each(?1)))""",
    "environments": """SELECT digest, settings FROM environments WHERE digest IN (
        SELECT environment FROM attempts WHERE id IN (SELECT value FROM json_each(?1)))""",
    "attempts": "SELECT * FROM attempts WHERE id IN (SELECT value FROM json_each(?1))",
    "outputs": "SELECT attempt, name, digest, bytes FROM outputs WHERE attempt IN (SELECT value FROM json_each(?1))",
    "seals": "SELECT attempt, digest FROM seals WHERE attempt IN (SELECT value FROM json_each(?1))",
    "removals": "SELECT attempt FROM removals WHERE attempt IN (SELECT value FROM json_each(?1))",
    "collected": "SELECT digest FROM collected WHERE ?1 IS NULL",
    "forecasts": "SELECT attempt, forecast FROM forecasts WHERE attempt IN (SELECT value FROM json_each(?1))",
}
# What is said of attempts later, each row sent once. An attempt has another number in every state, and one seal.
_LATER = {
    "removals": "SELECT s.digest, r.since, r.reason FROM removals r JOIN seals s USING (attempt) ORDER BY s.attempt",
    "acceptances": "SELECT old, new, kind, reason, since FROM acceptances ORDER BY id",
    "withdrawals": "SELECT old, new, since, withdrawn FROM acceptances WHERE withdrawn IS NOT NULL ORDER BY id",
}


@dataclass
class Changes:
    """What one bundle is to carry.

    :ivar lines: rows in the order of a bundle; `facts`: their digests; `declared`: study -> digest of its declarations
    :ivar inside, outside: digest -> bytes of the files in the bundle, and of those under `objects/`
    :ivar more: whether attempts are left for another bundle
    """

    attempts: int = 0
    lines: list[Line] = field(default_factory=list)
    facts: set[str] = field(default_factory=set)
    declared: dict[str, str] = field(default_factory=dict)
    inside: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    more: bool = False

    def write(self, state: State, file: Path) -> None:
        """Write the bundle.

        :raises StateError: when an object is not what its digest says
        """
        about = {"schema": SCHEMA_VERSION, "attempts": self.attempts, "objects": len(self.inside)}
        objects = [(digest, state.objects.path(digest)) for digest in sorted(self.inside)]
        with file.open("wb") as out:
            write_bundle(out, self.lines, objects, about)


def unsent(state: State, knowledge: Knowledge, most: int) -> Changes:
    """Return what the remote does not have, as of one moment, with at most so many attempts, oldest first."""
    return State.snapshot(state.directory, lambda now: _unsent(now, knowledge, most))


def unsent_attempts(state: State, facts: set[str]) -> list[int]:
    """Return the numbers of the attempts that are in no bundle, oldest first."""
    rows = state.rows("SELECT attempt, digest FROM seals ORDER BY attempt")
    return [number for number, seal in rows if seal not in facts]


def _unsent(state: State, knowledge: Knowledge, most: int) -> Changes:
    numbers = unsent_attempts(state, knowledge.facts)
    changes = Changes(more=len(numbers) > most)
    if chosen := numbers[:most]:
        _add_attempts(changes, state, chosen, knowledge)
    if not changes.more:  # what is said of an attempt never goes before it
        for table, query in _LATER.items():
            _add_new(changes, table, [list(row) for row in state.rows(query)], knowledge.facts)
        _add_declarations(changes, state, knowledge)
    return changes


def _add_attempts(changes: Changes, state: State, numbers: list[int], knowledge: Knowledge) -> None:
    tables = state.query(*_ROWS.values(), values=(json.dumps(numbers),))
    rows = IndexRows.of_tables(dict(zip(_ROWS, tables, strict=True)))
    damaged = damaged_rows(rows)[2]
    attempts = [rows.attempts[number] for number in numbers if number not in damaged]  # `verify` names the others
    changes.attempts = len(attempts)
    changes.lines += attempt_lines(rows, {row.key for row in attempts}, attempts)
    changes.facts |= {rows.seals[row.id] for row in attempts}
    kept = {row.id for row in attempts}
    for (number, name), (digest, size) in sorted(rows.outputs.items()):
        if number not in kept:
            continue
        if digest in knowledge.objects:
            changes.outside[digest] = size
        elif state.objects.is_here(digest):
            (changes.inside if size <= SMALL or name == CURVE else changes.outside)[digest] = size
    for digest in changes.inside.keys() & changes.outside.keys():
        del changes.outside[digest]
    changes.lines += [Line("remote", list(item)) for item in sorted(changes.outside.items())]


def _add_new(changes: Changes, table: str, rows: list[list[Any]], facts: set[str]) -> None:
    for row in rows:
        digest = fact(table, row)
        if digest not in facts:
            changes.lines.append(Line(table, row))
            changes.facts.add(digest)


def _add_declarations(changes: Changes, state: State, knowledge: Knowledge) -> None:
    """Add all that a study declares where that is not what it declares there."""
    studies: dict[str, list[list[Any]]] = {}
    for row in state.rows("SELECT study, address, key, kind FROM declarations ORDER BY study, address"):
        studies.setdefault(row[0], []).append(list(row))
    for study, rows in studies.items():
        digest = fact("declarations", rows)
        if knowledge.notes.get(f"declared {study}") != digest:
            changes.lines += [Line("declarations", row) for row in rows]
            changes.declared[study] = digest


def fact(table: str, values: Any) -> str:
    """Return the digest under which a row is known to be in a remote."""
    return text_digest(json.dumps([table, values]))
