"""What comes from another state, or from a bundle, checked before any of it is taken."""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.state import Objects, State
from lorafile.state.integrity.leftovers import is_digest
from lorafile.state.integrity.rows_check import AttemptRow, IndexRows, damaged_rows, read_rows
from lorafile.state.records import seal
from lorafile.state.transfer.bundle import OBJECTS, WRONG, Line, Member, members, read_bundle_index
from lorafile.state.transfer.exporter import index_lines

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_RUNS_CODE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".so", ".npy", ".joblib")
_OURS = ("digests.bin",)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LONGEST, _LONGEST_SETTINGS = 1 << 20, 1 << 24
_LARGEST_SIZE = 1 << 60
_ATTEMPT = tuple(column.name for column in fields(AttemptRow))


@dataclass
class Incoming:
    """Rows from elsewhere.

    :ivar rows: as an index has them; `declarations` and `acceptances` in the order of their columns
    :ivar objects: each digest, and the bytes that are to have it; each has to be read before the next
    :ivar removals, withdrawals, remote: what only a remote's bundles say: (seal, since, reason) of attempts that count
        no more, (old, new, since, withdrawn) of acceptances that were ended, digest -> bytes of objects next to them
    """

    source: Path
    rows: IndexRows = field(default_factory=IndexRows)
    declarations: list[tuple[str, str, str, str]] = field(default_factory=list)
    acceptances: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    objects: Iterable[tuple[str, Member]] = ()
    removals: list[tuple[str, str, str]] = field(default_factory=list)
    withdrawals: list[tuple[str, str, str, str]] = field(default_factory=list)
    remote: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def open_source(source: Path) -> Iterator[Incoming]:
    """Open a bundle, or a state's directory, with its rows checked; its objects are still to be proven.

    :raises LoraError: when it is neither, damaged, or not to be trusted; nothing was taken of it then
    """
    if source.is_dir():
        yield _from_state(source)
        return
    if not source.is_file():
        raise LoraError(
            f"There is no file {source}. Pass a bundle from `lora state export`, or the directory of a state."
        )
    with source.open("rb") as stream:
        files = members(stream)
        with refuse_malformed(source):
            about, lines = read_bundle_index(files)
            incoming = Incoming(source)
            for line in lines:
                _take(incoming, line)
            check(incoming)
            incoming.objects = _objects_of_bundle(files, about)
        yield incoming


@contextlib.contextmanager
def refuse_malformed(source: Path) -> Iterator[None]:
    """Turn whatever is wrong with what is read into a LoraError that names its source."""
    try:
        yield
    except WRONG as error:
        why = str(error) if type(error) is ValueError else f"a row of its index is malformed ({type(error).__name__})"
        raise LoraError(f"{source} cannot be imported: {why}. Nothing was imported from it.") from error


def _from_state(directory: Path) -> Incoming:
    if not (directory / "state.db").is_file():
        raise LoraError(f"{directory} is not a state: it has no state.db.")
    state, incoming = State.read(directory), Incoming(directory)
    rows = read_rows(state)
    attempts = [row for number, row in sorted(rows.attempts.items()) if number not in rows.removals]
    with refuse_malformed(directory):
        for line in index_lines(state, rows, set(rows.nodes), attempts):
            _take(incoming, line)
        check(incoming)
    incoming.objects = _objects_of_state(state.objects, {digest for digest, _ in incoming.rows.outputs.values()})
    return incoming


def _objects_of_state(objects: Objects, digests: set[str]) -> Iterator[tuple[str, Member]]:
    for digest in sorted(filter(objects.has, digests)):
        with objects.fetch(digest).open("rb") as stream:
            yield digest, Member(digest, os.fstat(stream.fileno()).st_size, stream)


def _objects_of_bundle(files: Iterator[Member], about: dict[str, Any]) -> Iterator[tuple[str, Member]]:
    count = 0
    for member in files:
        digest = member.name.removeprefix(OBJECTS)
        if member.name != OBJECTS + digest or not is_digest(digest):
            raise ValueError(f'"{member.name[:80]}" is not an object')
        count += 1
        yield digest, member
    if count != about["objects"]:
        raise ValueError(f"it is truncated: it has {count} of {about['objects']} objects")


def _take(incoming: Incoming, line: Line) -> None:
    """Take a row in; a row of a table that a newer version added is left out."""
    rows, values = incoming.rows, line.values
    if line.table == "environments":
        digest, settings = values
        rows.environments[digest] = settings
    elif line.table == "nodes":
        key, kind, version, settings, inputs = values
        rows.nodes[key] = (kind, version, settings, inputs)
    elif line.table == "attempts":
        attempt = AttemptRow(**{name: values[name] for name in _ATTEMPT})
        rows.attempts[attempt.id] = attempt
        files = [(name, digest, size) for name, digest, size in values["outputs"]]
        rows.outputs |= {(attempt.id, name): (digest, size) for name, digest, size in files}
        rows.seals[attempt.id] = values["seal"] or seal(attempt.values, files)  # version 1 had none
        if values.get("forecast") is not None:
            json.loads(values["forecast"])
            rows.forecasts[attempt.id] = values["forecast"]
    elif line.table == "declarations":
        study, address, key, kind = values
        incoming.declarations.append((study, address, key, kind))
    elif line.table == "acceptances":
        old, new, kind, reason, since = values
        incoming.acceptances.append((old, new, kind, reason, since))
    elif line.table == "removals":
        seal_digest, since, reason = values
        incoming.removals.append((seal_digest, since, reason))
    elif line.table == "withdrawals":
        old, new, since, withdrawn = values
        incoming.withdrawals.append((old, new, since, withdrawn))
    elif line.table == "remote":
        digest, size = values
        incoming.remote[digest] = size


def check(incoming: Incoming) -> None:
    """Check every row by its digest, its key or its seal, and every name by what a name may be.

    :raises ValueError: at the first that is not what it should be
    """
    rows = incoming.rows
    for digest, settings in rows.environments.items():
        _check_texts((digest, settings))
        if not isinstance(json.loads(settings), dict):
            raise ValueError("an environment is malformed")
    for key, (kind, version, settings, inputs) in rows.nodes.items():
        _check_texts((settings, inputs), _LONGEST_SETTINGS)
        if not is_digest(key) or type(version) is not int or not re.fullmatch(r"[a-z-]{1,40}", kind):
            raise ValueError(f'"{str(key)[:80]}" is not a node')
        if not 0 < version < _LONGEST or not all(is_digest(read) for read in json.loads(inputs).values()):
            raise ValueError(f"the node {key[:12]}… reads something that is not a node")
    for row in rows.attempts.values():
        _check_texts(value for name, value in row.__dict__.items() if name not in ("id", "seconds"))
        if type(row.id) is not int or type(row.seconds) is not float or not math.isfinite(row.seconds):
            raise ValueError(f"attempt {row.id} is malformed")
        if math.copysign(1, row.seconds) < 0:  # and SQLite would store a negative zero as another number
            raise ValueError(f"attempt {row.id} has a negative duration")
        if "\n" in row.study + row.address + row.device + row.started:
            raise ValueError(f"attempt {row.id} has a multi-line name")
    for (_, name), (digest, size) in rows.outputs.items():
        if not _FILE.fullmatch(name) or (name.endswith(_RUNS_CODE) and name not in _OURS):
            raise ValueError(f'"{name[:80]}" is not a valid name for a file of a result')
        if not is_digest(digest) or type(size) is not int or not 0 <= size < _LARGEST_SIZE:
            raise ValueError(f"the file {name} is malformed")
    nodes, environments, attempts = damaged_rows(rows)
    wrong = [f"the node {key[:12]}…: {why}" for key, why in nodes.items()]
    wrong += [f"the environment {digest[:12]}…" for digest in environments]
    wrong += [f"attempt {number}: {why}" for number, why in attempts.items()]
    if wrong:
        raise ValueError(f"a row of its index is damaged: {wrong[0]}")
    for values in (*incoming.declarations, *incoming.acceptances, *incoming.removals, *incoming.withdrawals):
        _check_texts(values)
    if incoming.remote.items() - set(rows.outputs.values()):
        raise ValueError("it lists an object of the remote that is not a file of its results")
    if not all(is_digest(declared[2]) for declared in incoming.declarations):
        raise ValueError("a declaration refers to something that is not a node")
    if not all(is_digest(key) for accepted in incoming.acceptances for key in accepted[:2]):
        raise ValueError("an acceptance refers to something that is not a node")


def _check_texts(values: Iterable[Any], longest: int = _LONGEST) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{json.dumps(value)[:60]} is not text")
        if len(value) > longest or _CONTROL.search(value):
            raise ValueError(f"a text in it is too long or has control characters: {_CONTROL.sub('?', value[:60])}")
