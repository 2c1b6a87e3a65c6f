"""What a local state knows of its remote: which bundles it has seen, and what they hold."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.errors import StateError

FILE = "remote.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS bundles (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass
class Knowledge:
    """The file `remote.db` of a local state; without it, every bundle is read once more.

    :ivar bundles: names of the bundles that were taken in, or were sent from here
    :ivar facts: digests of the rows that they hold: an attempt's seal, or the digest of another row
    :ivar objects: digest -> bytes of what lies under `objects/` there
    :ivar notes: `pulled`, the moment when the remote was listed last; study -> digest of what it declares there
    """

    directory: Path
    bundles: set[str] = field(default_factory=set)
    facts: set[str] = field(default_factory=set)
    objects: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path) -> "Knowledge":
        """Read what is known; nothing where there is no file yet."""
        knowledge = cls(directory)
        if (directory / FILE).exists():
            knowledge.reload()
        return knowledge

    def reload(self) -> None:
        """Read again what another process may have learned."""
        with self._database() as database:
            self.bundles = {name for (name,) in database.execute("SELECT name FROM bundles")}
            self.facts = {digest for (digest,) in database.execute("SELECT digest FROM facts")}
            self.objects = dict(database.execute("SELECT digest, bytes FROM objects"))
            self.notes = dict(database.execute("SELECT name, value FROM notes"))

    def add_bundle(
        self, name: str, facts: Iterable[str], objects: dict[str, int], declared: dict[str, str] | None = None
    ) -> None:
        """Note that a bundle's contents are both here and there.

        :param declared: study -> digest of what it declares
        """
        facts = set(facts)
        with self._database() as database:
            database.execute("INSERT OR IGNORE INTO bundles VALUES (?)", (name,))
            database.executemany("INSERT OR IGNORE INTO facts VALUES (?)", [(fact,) for fact in facts])
            database.executemany("INSERT OR IGNORE INTO objects VALUES (?, ?)", objects.items())
            notes = {f"declared {study}": digest for study, digest in (declared or {}).items()}
            database.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items())
        self.bundles.add(name)
        self.facts |= facts
        self.objects |= objects
        self.notes |= notes

    def note(self, name: str, value: str) -> None:
        """Write a note down."""
        with self._database() as database:
            database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))
        self.notes[name] = value

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.directory / FILE, timeout=30)) as database:
                database.executescript(_SCHEMA)
                with database:
                    yield database
        except sqlite3.Error as error:
            raise StateError(
                f"{self.directory / FILE} cannot be used: {error}. Free some space if the disk is full. If the "
                "file is damaged, delete it: it is recreated from the remote."
            ) from error
