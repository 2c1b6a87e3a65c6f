"""Taking in what is new in a remote: bundles that were not seen yet, oldest first, each proven like any other."""

import json
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lorafile.errors import LoraError, StateError
from lorafile.state import WritableState
from lorafile.state.errors import translate_errors
from lorafile.state.integrity.rows_check import AttemptRow
from lorafile.state.remote.bucket import Bucket
from lorafile.state.remote.changes import fact, unsent_attempts
from lorafile.state.remote.knowledge import Knowledge
from lorafile.state.transfer.importer import ImportSummary, bring_objects, record_attempts, slot_of
from lorafile.state.transfer.incoming import Incoming, open_source
from lorafile.units import utc_now

FORMAT, FORMAT_VERSION = "lorafile-remote", "1.0"
_NAME = re.compile(r"bundles/(\d{1,18})-(\d{1,18})\.tar")
_AT_ONCE = 8  # downloads
_FINISHED = ("done", "diverged")
_ELSEWHERE = "finished by another apply, too, while the lock of the remote was another's"


@dataclass
class Pulled:
    """What a pull has brought: how many bundles and attempts, and the bundles that are damaged, with the reason."""

    bundles: int = 0
    attempts: int = 0
    damaged: tuple[str, ...] = ()


def unseen(bucket: Bucket, knowledge: Knowledge) -> list[str]:
    """Return the bundles that are new, in the order in which they were sent."""
    names = [entry.path for entry in bucket.entries("bundles/")]
    return sorted((name for name in names if _NAME.fullmatch(name) and name not in knowledge.bundles), key=_order)


def check_format(bucket: Bucket) -> bool:
    """Return whether a remote was made already.

    :raises StateError: when it is none, or a newer version made it
    """
    content = bucket.read("lora.json")
    if content is None:
        return False
    try:
        about = json.loads(content)
        name, version = about["format"], str(about["format_version"])
    except (ValueError, TypeError, KeyError, RecursionError):
        name, version = "", ""
    if name != FORMAT:
        raise StateError(f"{bucket.url} is not a state: its lora.json belongs to another program. Use another prefix.")
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise StateError(
            f"The state {bucket.url} was made by a newer lorafile (format {version}). Nothing was changed. "
            "Update with: pip install --upgrade lorafile"
        )
    return True


def take_all(bucket: Bucket, names: list[str], state: WritableState, knowledge: Knowledge) -> Pulled:
    """Take bundles in; of a damaged or hostile one nothing is, and the others are all the same."""
    pulled, damaged = Pulled(), []
    here = {seal for (seal,) in state.rows("SELECT digest FROM seals")}
    for name, file in _downloaded(bucket, names, state.directory):
        try:
            attempts = _take(name, file, state, knowledge, here)
        except StateError:
            raise  # the disk here
        except LoraError as error:
            reason = str(error).partition("cannot be imported: ")[2] or str(error)
            damaged.append(f"{bucket.url}/{name}: {reason}")
            continue
        pulled.bundles += 1
        pulled.attempts += attempts
    pulled.damaged = tuple(damaged)
    return pulled


def note_moment(knowledge: Knowledge) -> None:
    """Note that all that was in the remote a moment ago is here."""
    knowledge.note("pulled", utc_now())


def _downloaded(bucket: Bucket, names: list[str], directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield bundles as files, several of which are fetched at a time; each is gone when the next is asked for."""
    with (
        translate_errors(directory),
        tempfile.TemporaryDirectory(prefix="importing-", dir=directory) as folder,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        for start in range(0, len(names), _AT_ONCE):
            portion = names[start : start + _AT_ONCE]
            files = [Path(folder) / name.rpartition("/")[2] for name in portion]
            for name, file, _ in zip(portion, files, pool.map(bucket.download, portion, files), strict=True):
                yield name, file
                file.unlink()


def _take(name: str, file: Path, state: WritableState, knowledge: Knowledge, here: set[str]) -> int:
    """Take one bundle in, all of it or nothing; return how many attempts were new.

    :param here: the seals of all attempts that are in the state; those of the new ones are added
    """
    with open_source(file) as incoming:
        seals = incoming.rows.seals
        new = [row for number, row in sorted(incoming.rows.attempts.items()) if seals[number] not in here]
        missing = {digest for digest, _ in incoming.rows.outputs.values() if not state.objects.is_here(digest)}
        brought = bring_objects(incoming, state, missing, ImportSummary(file))
        knowledge.objects |= incoming.remote  # before rows are recorded that name them
        late = any(_order(name) < _order(seen) for seen in knowledge.bundles)
        with translate_errors(state.directory), state.db.atomic():
            twice = _finished_twice(state, incoming, new, knowledge, late)
            record_attempts(state, incoming, new, brought)
            _record_later(state, incoming, late, twice)
    facts = {*seals.values(), *_facts(incoming)}
    knowledge.add_bundle(name, facts, incoming.remote, {} if late else _declared(incoming))
    here |= set(seals.values())
    return len(new)


def _finished_twice(
    state: WritableState, incoming: Incoming, new: list[AttemptRow], knowledge: Knowledge, late: bool
) -> list[str]:
    """Return the seals of results that count no more, because two who did not know of each other finished the same.

    What stands earlier in the remote's order counts: what is not sent yet stands last, and a bundle that comes late,
    from a holder that had lost the lock, behind those that are here. So all come to the same result.
    """
    rows = [row for row in incoming.rows.attempts.values() if row.outcome in _FINISHED]
    theirs, arriving = {slot_of(row.key, row.kind, row.device): row for row in rows}, {row.id for row in new}
    own = set(unsent_attempts(state, knowledge.facts | set(incoming.rows.seals.values())))
    if not theirs or not (own or late):
        return []
    twice = []
    for number, key, kind, device, seal in state.rows(
        "SELECT a.id, a.key, a.kind, a.device, s.digest FROM attempts a JOIN seals s ON s.attempt = a.id "
        "WHERE a.outcome IN ('done', 'diverged') AND a.id NOT IN (SELECT attempt FROM removals)"
    ):
        other = theirs.get(slot_of(key, kind, device))
        if other is not None and number in own:
            twice.append(seal)
        elif other is not None and late and other.id in arriving:
            twice.append(incoming.rows.seals[other.id])
    return twice


def _record_later(state: WritableState, incoming: Incoming, late: bool, twice: list[str]) -> None:
    """Record what is said of attempts, and what studies declare; a late bundle's declarations are outdated."""
    run, now = state.db.conn.executemany, utc_now()
    removals = [*incoming.removals, *((seal, now, _ELSEWHERE) for seal in twice)]
    run(
        "INSERT OR IGNORE INTO removals SELECT attempt, ?2, ?3 FROM seals WHERE digest = ?1",
        removals,
    )
    run(
        "INSERT INTO acceptances (old, new, kind, reason, since) SELECT ?1, ?2, ?3, ?4, ?5 WHERE ?1 IN "
        "(SELECT key FROM nodes) AND NOT EXISTS (SELECT 1 FROM acceptances WHERE old = ?1 AND new = ?2 AND since = ?5)",
        incoming.acceptances,
    )
    run(
        "UPDATE acceptances SET withdrawn = ?4 WHERE old = ?1 AND new = ?2 AND since = ?3 AND withdrawn IS NULL",
        incoming.withdrawals,
    )
    if not late:
        studies = {row[0] for row in incoming.declarations}
        run("DELETE FROM declarations WHERE study = ?", [(study,) for study in studies])
        run("INSERT OR IGNORE INTO declarations VALUES (?, ?, ?, ?)", incoming.declarations)


def _facts(incoming: Incoming) -> Iterator[str]:
    yield from (fact("removals", list(row)) for row in incoming.removals)
    yield from (fact("acceptances", list(row)) for row in incoming.acceptances)
    yield from (fact("withdrawals", list(row)) for row in incoming.withdrawals)


def _declared(incoming: Incoming) -> dict[str, str]:
    studies: dict[str, list[list[str]]] = {}
    for row in incoming.declarations:
        studies.setdefault(row[0], []).append(list(row))
    return {study: fact("declarations", rows) for study, rows in studies.items()}


def _order(name: str) -> tuple[int, int]:
    """Return what bundles are sorted by: the number of the lock, then the sequence under it."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else (0, 0)
