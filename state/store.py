"""The store of finished work: attempts, their outcomes, and the files that they left."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lorafile.files.atomic import ignore_in_git
from lorafile.files.digests import text_digest
from lorafile.state.errors import check_rows, translate_errors
from lorafile.state.index_file import (
    BACKUP,
    back_up,
    connect,
    drop_checksum,
    has_log,
    is_surely_as_closed,
    write_checksum,
)
from lorafile.state.lock import writer_lock
from lorafile.state.objects import Objects
from lorafile.state.read_transaction import (
    Read,
    ReadRows,
    ReadTransaction,
    all_rows,
    check_directory,
    read_index,
    retry_if_changed,
)
from lorafile.state.records import (
    COLUMNS,
    CURVE,
    EQUAL_DATA,
    NOTHING,
    Acceptance,
    Attempt,
    Node,
    curve_steps,
    parse_objects,
    read_columns,
    seal_of,
)
from lorafile.state.stored_files import Differing, looking_at_files
from lorafile.state.tables import SCHEMA_VERSION

_FEW = 1000  # keys that are looked up by the index
_PLACE = Attempt._fields.index("environment")
_transactions: ContextVar[dict[Path, ReadTransaction]] = ContextVar("transactions")  # that are open here, by index


class State:
    """A state as its readers see it; `State.write` opens it for one writer.

    :param proven: whether the index is compared with its checksum before anything that was read of it counts
    :param transaction: what everything is read from; without one each query is of the moment when it is asked
    """

    def __init__(self, directory: Path, proven: bool = True, transaction: ReadTransaction | None = None) -> None:
        check_directory(directory)
        self.directory, self._proven, self._transaction = directory, proven, transaction
        self.objects = Objects(directory / "objects")

    @classmethod
    def read(cls, directory: Path) -> "State":
        """Return a state to read from; one that does not exist yet is empty. Nothing is written, nothing is locked.

        :raises StateError: when it is damaged, or made by a newer version
        """
        state = cls(directory)
        state.rows("SELECT 1 FROM sqlite_master LIMIT 1")
        return state

    @classmethod
    def snapshot(cls, directory: Path, read: "Callable[[State], Read]") -> Read:
        """Return what is read of a state, all of it as it was at one moment, whatever an apply records meanwhile.

        Nothing is written, nothing is locked. What asks for the same state inside gets the same moment. Where a writer
        began on an index that had no log, all is read again: `read` does nothing but read, or settles the state first.

        :raises StateError: when it is damaged, or made by a newer version
        """
        check_directory(directory)
        database = directory.absolute() / "state.db"
        already_open = _transactions.get({})
        if database in already_open:
            return read(cls(directory, transaction=already_open[database]))

        def read_once() -> Read:
            with translate_errors(directory):
                transaction = retry_if_changed(database, lambda: ReadTransaction(database))
            token = _transactions.set({**already_open, database: transaction})
            state = cls(directory, transaction=transaction)
            try:
                content = read(state)
            except Exception:
                state.settle()  # its error goes before whatever a damaged index led to
                raise
            else:
                state.settle()
                return content
            finally:
                _transactions.reset(token)
                transaction.close()

        return retry_if_changed(database, read_once)

    @classmethod
    @contextlib.contextmanager
    def write(cls, directory: Path, lock_timeout: float = 0.0) -> Iterator["WritableState"]:
        """Open a state as its only writer; it is made, or brought to this version's schema, where needed."""
        check_directory(directory)
        with contextlib.ExitStack() as stack:
            with translate_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                ignore_in_git(directory)
                stack.enter_context(writer_lock(directory, lock_timeout))
                state = stack.enter_context(contextlib.closing(WritableState(directory)))
            yield state

    def settle(self) -> None:
        """Wait until what was read, and will be read of the same moment, is known to be what was stored.

        :raises StateError: when it is not
        """
        if self._transaction is not None:
            with translate_errors(self.directory):
                self._transaction.settle()

    def looking_at_files(self) -> "contextlib.AbstractContextManager[Differing]":
        """Look at all stored files, in a process of its own, while other work goes on.

        What is yielded waits for the digests of those that are not here as they were stored; it returns None where they
        have to be looked at otherwise: while another process writes.
        """
        if self._transaction is None or not self._transaction.is_immutable:
            return contextlib.nullcontext(lambda: None)
        return looking_at_files(self.directory / "state.db", self.objects.root)

    def running(self, key: str) -> Path:
        """Return where a run that is not finished keeps what it has, for as long as it is not."""
        return self.directory / "running" / key

    def begun(self) -> set[str]:
        """Return the keys of runs of which something is kept although they are not finished."""
        try:
            return {directory.name for directory in (self.directory / "running").iterdir()}
        except FileNotFoundError:
            return set()

    def collected(self) -> set[str]:
        """Return the digests of what garbage collection took: it is made again when a node reads it."""
        return {digest for (digest,) in self.rows("SELECT digest FROM collected")}

    def latest(self, keys: Iterable[str] | None = None, forecasts: bool = True) -> dict[str, list[Attempt]]:
        """Return key -> its attempts, oldest first, for some keys or for all; what was removed is left out.

        :param forecasts: whether the forecasts of the attempts are read, too
        """
        chosen = None if keys is None else set(keys)
        few = None if chosen is None or len(chosen) > _FEW else [*chosen]  # else it is faster to read all of them
        of_keys = "WHERE key IN (SELECT value FROM json_each(?1))" if few is not None else ""
        of_attempts = f"WHERE attempt IN (SELECT id FROM attempts {of_keys})" if of_keys else ""  # noqa: S608
        of_environments = f"WHERE digest IN (SELECT environment FROM attempts {of_keys})" if of_keys else ""  # noqa: S608
        columns = f"{', '.join(COLUMNS[:7])}, environment, {', '.join(COLUMNS[7:])}, id"
        attempts: dict[str, list[Attempt]] = {}
        with check_rows(self.directory):
            environment_columns, output_columns, forecast_columns, attempt_columns = self.query(
                f"SELECT digest, settings FROM environments {of_environments}",  # noqa: S608
                f"SELECT attempt, name, digest, bytes FROM outputs {of_attempts}",  # noqa: S608
                f"SELECT attempt, forecast FROM forecasts {of_attempts}{'' if forecasts else ' LIMIT 0'}",  # noqa: S608
                f"SELECT {columns} FROM attempts {of_keys or 'WHERE true'} "  # noqa: S608
                "AND id NOT IN (SELECT attempt FROM removals) ORDER BY id",
                values=() if few is None else (json.dumps(few),),
                read=read_columns,
            )
            forecast_of = {number: made for batch in forecast_columns for number, made in zip(*batch, strict=True)}
            environments = {
                digest: about for batch in environment_columns for digest, about in zip(*batch, strict=True)
            }
            outputs: dict[int, dict[str, str]] = {}
            sizes: dict[int, int] = {}
            for batch in output_columns:
                for number, name, digest, size in zip(*batch, strict=True):
                    if number in outputs:
                        outputs[number][name] = digest
                        sizes[number] += size
                    else:
                        outputs[number], sizes[number] = {name: digest}, size
            for batch in attempt_columns:
                *about, numbers = batch
                about[_PLACE] = [environments[digest] for digest in about[_PLACE]]
                stored = [
                    [table.get(number, empty) for number in numbers]
                    for table, empty in ((outputs, NOTHING), (sizes, 0), (forecast_of, NOTHING))
                ]
                for attempt in map(Attempt._make, zip(*about, *stored, strict=True)):
                    if chosen is None or attempt.key in chosen:
                        attempts.setdefault(attempt.key, []).append(attempt)
        return attempts

    def finished(self, kind: str) -> list[tuple[Node, str]]:
        """Return every node of a kind that is finished, each with the address that it was done under last."""
        rows, ended = self.query(
            "SELECT key, kind, version, settings, inputs FROM nodes WHERE kind = ?1",
            "SELECT key, address FROM attempts WHERE kind = ?1 AND outcome IN ('done', 'diverged') "
            "AND id NOT IN (SELECT attempt FROM removals) ORDER BY id",
            values=(kind,),
        )
        addresses: dict[str, str] = dict(ended)
        rows = [row for row in rows if row[0] in addresses]
        with check_rows(self.directory):
            settings, inputs = (parse_objects([row[at] for row in rows]) for at in (3, 4))
            nodes = [Node(*row[:3], *made) for row, *made in zip(rows, settings, inputs, strict=True)]
        return [(node, addresses[node.key]) for node in nodes]

    def node(self, key: str) -> Node | None:
        """Return what a key is made of; None where no attempt at it is recorded."""
        rows = self.rows("SELECT key, kind, version, settings, inputs FROM nodes WHERE key = ?", key)
        with check_rows(self.directory):
            return _node(rows[0]) if rows else None

    def declared(self, study: str, but: Container[str] = ()) -> dict[str, tuple[str, str]]:
        """Return address -> (key, kind) of what a study declared when it was last applied, without some keys."""
        if but:  # mostly there is nothing else; then addresses need not be read
            keys = self.rows("SELECT key FROM declarations WHERE study = ?", study)
            if not [key for (key,) in keys if key not in but]:
                return {}
        rows = self.rows("SELECT address, key, kind FROM declarations WHERE study = ?", study)
        return {address: (key, kind) for address, key, kind in rows if key not in but}

    def removed(self) -> dict[str, str]:
        """Return key -> when and why its newest attempt was removed, for all that have no other left."""
        rows = self.rows(
            "SELECT a.key, r.since, r.reason FROM removals r JOIN attempts a ON a.id = r.attempt WHERE NOT EXISTS "
            "(SELECT 1 FROM attempts b WHERE b.key = a.key AND b.id NOT IN (SELECT attempt FROM removals)) "
            "ORDER BY r.attempt"
        )
        return {key: f"removed on {since[:10]}: {reason}" for key, since, reason in rows}

    def acceptances(self) -> dict[str, Acceptance]:
        """Return key -> the result that is used in its place, as far as that result is there."""
        rows = self.rows(
            "SELECT old, new, kind, reason, since FROM acceptances "
            "WHERE withdrawn IS NULL AND old IN (SELECT key FROM results) ORDER BY id"
        )
        equal = {acceptance.new: acceptance for acceptance in self.equal_data()}
        return equal | {row[1]: Acceptance(*row) for row in rows}

    def equal_data(self) -> list[Acceptance]:
        """Return which `prepare` nodes are one with another, as far as that is not recorded yet.

        They left the same bytes and the same figures. Of several the one stands for all that results were made from,
        or else the first; one that results were made from stands for itself, and so does one whose acceptance was
        withdrawn.
        """
        groups = [group for group in self._prepared_alike() if len(group) > 1]
        settled = {key for (key,) in self.rows("SELECT new FROM acceptances")} if groups else set()
        equal = []
        for group in groups:
            read = {key for key in group if self.rows("SELECT 1 FROM nodes WHERE inputs LIKE ? LIMIT 1", f"%{key}%")}
            open_keys = [key for key in group if key not in settled]
            first = next((key for key in open_keys if key in read), next(iter(open_keys), ""))
            others = [key for key in open_keys if key not in read and key != first]
            equal += [Acceptance(first, key, "prepare", EQUAL_DATA, group[key]) for key in others]
        return equal

    def _prepared_alike(self) -> list[dict[str, str]]:
        """Return the finished `prepare` nodes (key -> since when) in groups that left the same bytes and figures."""
        left: dict[str, tuple[int, str, list[str]]] = {}  # key -> its newest attempt, when, and what that left
        for number, key, since, figures, name, digest in self.rows(
            "SELECT a.id, a.key, a.started, a.figures, o.name, o.digest FROM outputs t JOIN attempts a "
            "ON t.name = 'tokens.safetensors' AND a.id = t.attempt JOIN outputs o ON o.attempt = a.id "
            "WHERE a.kind = 'prepare' AND a.outcome = 'done' AND a.id NOT IN (SELECT attempt FROM removals) "
            "ORDER BY a.id, o.name"
        ):
            if key not in left or left[key][0] != number:
                left[key] = (number, since, [figures])
            left[key][2].extend((name, digest))
        groups: dict[tuple[str, ...], dict[str, str]] = {}
        for key, (_, since, content) in left.items():
            groups.setdefault(tuple(content), {})[key] = since
        return list(groups.values())

    def trained_on(self, part: str, own: str, content: str) -> str | None:
        """Return the digest of model files that finished training read, and that hold the same as others.

        :param part: `weights`, `config` or `tokenizer`
        :param own: digest of the others; None is returned where something was trained on these
        :param content: digest of what they hold, as `Attempt.reads` has it
        """
        if self.rows("SELECT 1 FROM nodes WHERE kind = 'train' AND settings LIKE ? LIMIT 1", f"%{own}%"):
            return None
        rows = self.rows(
            "SELECT json_extract(n.settings, '$.model.' || ?) FROM results r JOIN nodes n ON n.key = r.key "
            "WHERE r.kind = 'train' AND r.reads LIKE ? ORDER BY r.id LIMIT 1",
            part,
            f"%{content}%",
        )
        return rows[0][0] if rows else None

    def with_inputs(self, keys: Iterable[str]) -> set[str]:
        """Return keys with those of all that their nodes were made from."""
        query = """
            WITH RECURSIVE needed(key) AS (
                SELECT value FROM json_each(?)
                UNION SELECT i.value FROM needed JOIN nodes n ON n.key = needed.key, json_each(n.inputs) i
            ) SELECT key FROM needed
        """
        return {key for (key,) in self.rows(query, json.dumps(list(keys)))}

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of one query on the tables and views of docs/state.md."""
        return self.query(query, values=values)[0]

    def query(self, *queries: str, values: tuple[Any, ...] = (), read: ReadRows = all_rows) -> list[list[Any]]:
        """Return the rows of each query, all as they were at one moment.

        :param read: what takes them from a cursor
        """
        with translate_errors(self.directory):
            if self._transaction is not None:
                return self._transaction.query(queries, values, read)
            return read_index(self.directory / "state.db", queries, values, self._proven, read)


def _node(row: Any) -> Node:
    key, kind, version, settings, inputs = row
    return Node(key, kind, version, json.loads(settings), json.loads(inputs))


class WritableState(State):
    """A state with its one writer.

    :ivar db: the index; what is written there stands in this package
    """

    def __init__(self, directory: Path) -> None:
        from sqlite_utils import Database

        from lorafile.state.migrations import migrations

        check_directory(directory)
        (directory / "objects").mkdir(exist_ok=True)
        database = directory / "state.db"
        read_index(database, ())  # refuses a newer schema before anything is touched
        drop_checksum(directory)
        connection = connect(database)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        super().__init__(directory)
        self.db = Database(connection)
        migrations.apply(self.db)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def record(self, node: Node, attempt: Attempt, files: dict[str, Path]) -> Attempt:
        """Store an attempt: its files first, its row last, so that a row never points at bytes that are not there."""
        with translate_errors(self.directory):
            stored = {name: self.objects.put(file) for name, file in files.items()}
            steps = curve_steps(files[CURVE]) if CURVE in files else []
            with self.db.atomic():
                number = self._write(node, attempt, stored)
                rows = [(number, *row) for row in steps]
                self.db.conn.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", rows)
        outputs = {name: digest for name, (digest, _) in stored.items()}
        return attempt._replace(outputs=outputs, bytes=sum(size for _, size in stored.values()))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make what is recorded meanwhile one transaction: all of it is on the disk when this ends, or none of it."""
        with translate_errors(self.directory), self.db.atomic():
            yield

    def declare(self, study: str, addresses: dict[str, tuple[str, str]]) -> None:
        """Note what a study declares now: address -> (key, kind)."""
        with translate_errors(self.directory), self.db.atomic():
            self.db.table("declarations").delete_where("study = ?", [study])
            rows = [{"study": study, "address": a, "key": key, "kind": kind} for a, (key, kind) in addresses.items()]
            self.db.table("declarations").insert_all(rows)

    def close(self) -> None:
        """Close the index with its log folded in, so that it opens on read-only media, and keep a copy of it."""
        with contextlib.suppress(sqlite3.DatabaseError):  # a reader is still looking; the next close folds it in
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        changed = self.db.conn.total_changes
        with translate_errors(self.directory):
            self.db.close()
            if not has_log(self.directory / "state.db"):
                write_checksum(self.directory)
                if changed or not is_surely_as_closed(self.directory / BACKUP):
                    back_up(self.directory)

    def query(self, *queries: str, values: tuple[Any, ...] = (), read: ReadRows = all_rows) -> list[list[Any]]:
        """Return the rows of each query, with what this writer has written."""
        return [read(self.db.execute(query, values)) for query in queries]

    def _write(self, node: Node, attempt: Attempt, stored: dict[str, tuple[str, int]]) -> int:
        environment = json.dumps(attempt.environment, sort_keys=True)
        environment_digest = text_digest(environment)
        self.db.table("environments").insert({"digest": environment_digest, "settings": environment}, ignore=True)
        settings, inputs = json.dumps(node.settings, sort_keys=True), json.dumps(node.inputs, sort_keys=True)
        row = {"key": node.key, "kind": node.kind, "version": node.version, "settings": settings, "inputs": inputs}
        self.db.table("nodes").insert(row, ignore=True)
        values = {name: getattr(attempt, name) for name in COLUMNS}
        values |= {name: json.dumps(values[name], sort_keys=True) for name in ("figures", "reads")}
        self.db.table("attempts").insert({**values, "environment": environment_digest})
        (number,) = self.db.execute("SELECT max(id) FROM attempts").fetchone()
        rows = [(number, name, digest, size) for name, (digest, size) in stored.items()]
        self.db.conn.executemany("INSERT INTO outputs VALUES (?, ?, ?, ?)", rows)
        self.db.execute("INSERT INTO seals VALUES (?, ?)", (number, seal_of(self.db.conn, number)))
        if attempt.forecast:
            forecast = json.dumps(attempt.forecast, sort_keys=True)
            self.db.execute("INSERT INTO forecasts VALUES (?, ?)", (number, forecast))
        self.db.conn.executemany("DELETE FROM collected WHERE digest = ?", [(row[2],) for row in rows])
        return int(number)
