"""The store of finished work: what was tried, what came of it, and the bytes that it left."""

import contextlib
import errno
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from lorafile.errors import StateError
from lorafile.state.lock import writer_lock
from lorafile.state.objects import Objects

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Attempt:
    """One try at a node and what came of it."""

    key: str
    kind: str
    outcome: str
    message: str = ""
    started: str = ""
    seconds: float = 0.0
    device: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, dict[str, str]] = field(default_factory=dict)  # role -> file name -> digest
    study: str = ""
    address: str = ""
    outputs: dict[str, str] = field(default_factory=dict)  # file name -> digest
    bytes: int = 0

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: diverged is a result, too."""
        return self.outcome in ("done", "diverged")


@dataclass(frozen=True)
class Node:
    """What a key is made of."""

    key: str
    kind: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]


class State:
    """A state that is open for reading; `State.write` opens it for one writer."""

    def __init__(self, directory: Path, connection: sqlite3.Connection | None) -> None:
        self.directory = directory
        self.objects = Objects(directory / "objects")
        self._connection = connection

    @classmethod
    def read(cls, directory: Path) -> "State":
        """Open a state as it stands; one that does not exist yet is empty. Nothing is written, nothing is locked."""
        database = directory / "state.db"
        if not database.exists():
            if directory.exists() and not directory.is_dir():
                raise StateError(f"{directory} is not a directory, so it cannot be a state. Name another with --state.")
            return cls(directory, None)
        with _explained(directory):
            return cls(directory, _connect_to_read(database))

    @classmethod
    @contextlib.contextmanager
    def write(cls, directory: Path, lock_timeout: float = 0.0) -> Iterator["WritableState"]:
        """Open a state as its only writer; it is made, or brought to this version's schema, where needed."""
        with _explained(directory):
            directory.mkdir(parents=True, exist_ok=True)
            with writer_lock(directory, lock_timeout), contextlib.closing(WritableState(directory)) as state:
                yield state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        if self._connection is not None:
            self._connection.close()

    def latest(self, keys: Iterable[str] | None = None) -> dict[str, list[Attempt]]:
        """Return key -> its attempts, oldest first, for some keys or for all."""
        wanted = None if keys is None else set(keys)
        found: dict[str, list[Attempt]] = {}
        if self._connection is None:
            return found
        environments = dict(self._rows("SELECT digest, settings FROM environments"))
        outputs: dict[int, dict[str, str]] = {}
        sizes: dict[int, int] = {}
        for attempt, name, digest, size in self._rows("SELECT attempt, name, digest, bytes FROM outputs"):
            outputs.setdefault(attempt, {})[name] = digest
            sizes[attempt] = sizes.get(attempt, 0) + size
        for row in self._rows(f"SELECT id, environment, {', '.join(_COLUMNS)} FROM attempts ORDER BY id"):  # noqa: S608
            number, environment, *values = row
            record = dict(zip(_COLUMNS, values, strict=True))
            if wanted is None or record["key"] in wanted:
                record |= {name: json.loads(record[name]) for name in ("figures", "reads")}
                record["environment"] = json.loads(environments[environment])
                attempt = Attempt(**record, outputs=outputs.get(number, {}), bytes=sizes.get(number, 0))
                found.setdefault(record["key"], []).append(attempt)
        return found

    def nodes(self, kind: str) -> list[Node]:
        """Return every known node of a kind."""
        if self._connection is None:
            return []
        rows = self._rows("SELECT key, kind, version, settings, inputs FROM nodes WHERE kind = ?", kind)
        return [Node(key, kind, version, json.loads(settings), json.loads(inputs)) for key, kind, version, settings, inputs in rows]

    def declared(self, study: str) -> dict[str, tuple[str, str]]:
        """Return address -> (key, kind) of what a study declared when it was last applied."""
        if self._connection is None:
            return {}
        rows = self._rows("SELECT address, key, kind FROM declarations WHERE study = ?", study)
        return {address: (key, kind) for address, key, kind in rows}

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        assert self._connection is not None  # noqa: S101
        with _explained(self.directory):
            return self._connection.execute(sql, values).fetchall()


class WritableState(State):
    """A state with its one writer."""

    def __init__(self, directory: Path) -> None:
        from sqlite_utils import Database

        from lorafile.state.schema import migrations

        (directory / "objects").mkdir(exist_ok=True)
        database = directory / "state.db"
        if database.exists():
            _connect_to_read(database).close()  # refuses a newer schema before anything is touched
        connection = sqlite3.connect(database)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        super().__init__(directory, connection)
        self._db = Database(connection)
        migrations.apply(self._db)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def record(self, node: Node, attempt: Attempt, files: dict[str, Path]) -> Attempt:
        """Store an attempt: its files first, its row last, so that a row never points at bytes that are not there."""
        with _explained(self.directory):
            stored = {name: self.objects.put(file) for name, file in files.items()}
            with self._db.atomic():
                self._write(node, attempt, stored)
        outputs = {name: digest for name, (digest, _) in stored.items()}
        return Attempt(**{**attempt.__dict__, "outputs": outputs, "bytes": sum(size for _, size in stored.values())})

    def declare(self, study: str, addresses: dict[str, tuple[str, str]]) -> None:
        """Note what a study declares now: address -> (key, kind)."""
        with _explained(self.directory), self._db.atomic():
            self._db["declarations"].delete_where("study = ?", [study])
            rows = [{"study": study, "address": a, "key": key, "kind": kind} for a, (key, kind) in addresses.items()]
            self._db["declarations"].insert_all(rows)

    def close(self) -> None:
        """Close the index with its log folded in, so that it opens on read-only media."""
        with contextlib.suppress(sqlite3.OperationalError):  # a reader is still looking; the next close folds it in
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        super().close()

    def _write(self, node: Node, attempt: Attempt, stored: dict[str, tuple[str, int]]) -> None:
        environment = json.dumps(attempt.environment, sort_keys=True)
        digest = hashlib.sha256(environment.encode()).hexdigest()
        self._db["environments"].insert({"digest": digest, "settings": environment}, ignore=True)
        settings, inputs = json.dumps(node.settings, sort_keys=True), json.dumps(node.inputs, sort_keys=True)
        row = {"key": node.key, "kind": node.kind, "version": node.version, "settings": settings, "inputs": inputs}
        self._db["nodes"].insert(row, ignore=True)
        values = {name: getattr(attempt, name) for name in _COLUMNS}
        values |= {name: json.dumps(values[name], sort_keys=True) for name in ("figures", "reads")}
        number = self._db["attempts"].insert({**values, "environment": digest}).last_pk
        rows = [{"attempt": number, "name": name, "digest": d, "bytes": size} for name, (d, size) in stored.items()]
        self._db["outputs"].insert_all(rows)


_COLUMNS = ("key", "kind", "outcome", "message", "started", "seconds", "device", "figures", "reads", "study", "address")


def _connect_to_read(database: Path) -> sqlite3.Connection:
    wal = database.with_name(database.name + "-wal")
    # Without a log the file is all there is, so that a state on read-only media can be opened; with one it must be read.
    mode = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(database))}?{mode}", uri=True)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        connection.close()
        raise StateError(
            f"The state {database.parent} was written by a newer lorafile (schema {version}; this one knows up to "
            f"{SCHEMA_VERSION}). Nothing was changed. Update with: pip install --upgrade lorafile"
        )
    return connection


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what the disk and SQLite say into sentences."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            raise StateError(_full(directory)) from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise StateError(_unwritable(directory, str(error))) from error
        raise StateError(
            f"The index {directory / 'state.db'} cannot be read: {error}. Nothing was changed. Restore it from a copy, "
            "or move the directory away to begin a new state."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateError(_full(directory)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StateError(_unwritable(directory, error.strerror or str(error))) from error
        raise


def _full(directory: Path) -> str:
    return (
        f"The disk of the state {directory} is full. Everything that had finished is kept; free some space and run the "
        "same command again."
    )


def _unwritable(directory: Path, why: str) -> str:
    return f"The state {directory} cannot be written: {why}. Change its permissions, or name another with --state or LORA_STATE."
