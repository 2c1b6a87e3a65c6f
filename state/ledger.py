"""What is said of results afterwards: that they count no more, stand for others, or that their bytes were taken.

`lora state rm` and `accept` are here, too.
"""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from lorafile.errors import LoraError
from lorafile.files.run_directory import unfinished
from lorafile.state.errors import translate_errors
from lorafile.state.names import SHORTEST_KEY, Named, Names, find_node, find_nodes, recorded_nodes
from lorafile.state.records import Acceptance
from lorafile.state.store import State, WritableState
from lorafile.units import utc_now

_KEY_LETTERS = 64
GetNames = Callable[[State], Names]  # called under the state's lock: what a study declares may depend on its results


def remove(state: WritableState, attempts: Iterable[int], reason: str) -> None:
    """Let attempts count no more, so that a plan does them again; the attempts themselves stay as they are."""
    with translate_errors(state.directory), state.db.atomic():
        rows = [(attempt, utc_now(), reason) for attempt in attempts]
        state.db.conn.executemany("INSERT OR IGNORE INTO removals VALUES (?, ?, ?)", rows)


def accept(state: WritableState, old: str, new: str, kind: str, reason: str) -> None:
    """Let the result of a key be used in the place of another's; what was accepted for that one before is withdrawn."""
    with translate_errors(state.directory), state.db.atomic():
        withdraw(state, new)
        row = {"old": old, "new": new, "kind": kind, "reason": reason, "since": utc_now()}
        state.db.table("acceptances").insert(row)


def record_equal_data(state: WritableState) -> None:
    """Record which `prepare` nodes are one, because they left the same bytes: `State.equal_data`."""
    for acceptance in state.equal_data():
        accept(state, acceptance.old, acceptance.new, acceptance.kind, acceptance.reason)


def withdraw(state: WritableState, new: str) -> int:
    """Let a key stand for itself again; return how many acceptances that ended."""
    with translate_errors(state.directory), state.db.atomic():
        query = "UPDATE acceptances SET withdrawn = ? WHERE new = ? AND withdrawn IS NULL"
        return state.db.execute(query, (utc_now(), new)).rowcount


def collect(state: WritableState, objects: dict[str, int]) -> None:
    """Note which objects are taken away (digest -> bytes), then take them: that they are missing is no damage."""
    with translate_errors(state.directory):
        with state.db.atomic():
            rows = [(digest, size, utc_now()) for digest, size in objects.items()]
            state.db.conn.executemany("INSERT OR REPLACE INTO collected VALUES (?, ?, ?)", rows)
        for digest in objects:
            state.objects.path(digest).unlink(missing_ok=True)


def forgettable(state: State, names: Names, wanted: tuple[str, ...]) -> list[Named]:
    """Return the nodes that some names mean and that have anything to forget."""
    counting = {key for (key,) in state.rows("SELECT DISTINCT key FROM standing")}
    return [node for node in find_nodes(names, wanted) if node.key in counting or state.running(node.key).exists()]


def forget(directory: Path, nodes: list[Named], reason: str, lock_timeout: float) -> None:
    """Let every attempt at some nodes count no more, and drop the checkpoints of their unfinished runs.

    :raises LoraError: when one of them trains now
    """
    with State.write(directory, lock_timeout) as state:
        live = [node.address for node in nodes if (run := unfinished(state.running(node.key))) and run.live]
        if live:
            raise LoraError(f"{live[0]} is being trained by a worker left behind by its apply. Wait until it ends.")
        keys = {node.key for node in nodes}
        remove(state, [number for number, key in state.rows("SELECT id, key FROM attempts") if key in keys], reason)
        for key in keys:
            shutil.rmtree(state.running(key), ignore_errors=True)


def accept_by_name(
    directory: Path, old: str, new: str, reason: str, names: GetNames | None = None, lock_timeout: float = 0.0
) -> Acceptance:
    """Let the result of `old` be used wherever a study has `new`.

    :param new: a key; or the address of a node in `names`
    :param names: those of a study; of every study that the state knows where there is none
    :raises LoraError: when `old` has no result, or the two cannot stand for each other
    """
    with State.write(directory, lock_timeout) as state:
        source = find_node(Names(state, recorded_nodes(state), takes_spec=False), old)
        target, kind = _replaced(state, new, names)
        if not state.rows("SELECT 1 FROM results WHERE key = ?", source.key):
            name = f"{source.address} ({source.key[:12]}…)"
            raise LoraError(f"{name} has no finished result to use for another node.")
        if target == source.key:
            raise LoraError(f"{old} and {new} are the same node; there is nothing to accept.")
        if kind and kind != source.kind:
            kinds = f"{source.address} is a {source.kind} node, and {new} a {kind} node"
            raise LoraError(f"{kinds}; they cannot be equivalent.")
        chained = state.acceptances().get(source.key)
        if chained is not None:
            raise LoraError(f"{old} itself uses the result of {chained.old[:12]}…; accept that one in place of {new}.")
        accept(state, source.key, target, source.kind, reason)
        return state.acceptances()[target]


def withdraw_by_name(directory: Path, new: str, names: GetNames | None = None, lock_timeout: float = 0.0) -> list[str]:
    """Let a key stand for itself again; return the keys that do.

    :param new, names: as in `accept_by_name`; the beginning of a key is enough
    :raises LoraError: when nothing is accepted in its place
    """
    with State.write(directory, lock_timeout) as state:
        active = [key for (key,) in state.rows("SELECT DISTINCT new FROM acceptances WHERE withdrawn IS NULL")]
        by_key = [key for key in active if len(new) >= SHORTEST_KEY and key.startswith(new)]
        meant = by_key if names is None else [_replaced(state, new, names)[0]]
        withdrawn = [key for key in meant if withdraw(state, key)]
        if not withdrawn:
            keys = ", ".join(f"{key[:12]}…" for key in active) or "none"
            raise LoraError(f"Nothing is accepted in place of {new}. Keys that use another's result: {keys}.")
        return withdrawn


def _replaced(state: State, name: str, names: GetNames | None) -> tuple[str, str]:
    """Return key and kind of what is to be replaced; the kind is not known of a key without an attempt."""
    if names is None and len(name) == _KEY_LETTERS and set(name) <= set("0123456789abcdef"):
        node = state.node(name)
        return name, node.kind if node else ""
    named = find_node(Names(state, recorded_nodes(state)) if names is None else names(state), name)
    return named.replaces or named.key, named.kind
