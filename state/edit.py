"""`lora state rm` and `accept`: results that count no more, and results that stand for others."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.errors import LoraError
from lorafile.files.run_directory import unfinished
from lorafile.state import Acceptance, State, ledger
from lorafile.state.names import SHORTEST_KEY, Named, find_node, find_nodes, names_of

if TYPE_CHECKING:
    from lorafile.study.study import Study

_KEY_LETTERS = 64


def forgettable(state: State, names: tuple[str, ...], study: "Study | None" = None) -> list[Named]:
    """Return the nodes that some names mean, in one study or in all, and that have anything to forget."""
    counting = {key for (key,) in state.rows("SELECT DISTINCT key FROM standing")}
    nodes = find_nodes(names_of(state, study), names)
    return [node for node in nodes if node.key in counting or state.running(node.key).exists()]


def forget(directory: Path, nodes: list[Named], reason: str, lock_timeout: float) -> None:
    """Let every attempt at some nodes count no more, and drop the checkpoints of their unfinished runs.

    :raises LoraError: when one of them trains now
    """
    with State.write(directory, lock_timeout) as state:
        live = [node.address for node in nodes if (run := unfinished(state.running(node.key))) and run.live]
        if live:
            raise LoraError(f"{live[0]} trains now, by a worker that its apply left behind. Wait until it has ended.")
        keys = {node.key for node in nodes}
        attempts = [number for number, key in state.rows("SELECT id, key FROM attempts") if key in keys]
        ledger.remove(state, attempts, reason)
        for key in keys:
            shutil.rmtree(state.running(key), ignore_errors=True)


def accept(
    directory: Path, old: str, new: str, reason: str, study: "Study | None" = None, lock_timeout: float = 0.0
) -> Acceptance:
    """Let the result of `old` be used wherever a study has `new`.

    :param new: a key; or, with a study, the address of one of its nodes
    :raises LoraError: when `old` has no result, or the two cannot stand for each other
    """
    with State.write(directory, lock_timeout) as state:
        one, (other, kind) = find_node(names_of(state, takes_spec=False), old), _new(state, new, study)
        if not state.rows("SELECT 1 FROM results WHERE key = ?", one.key):
            raise LoraError(f"{one.address} ({one.key[:12]}…) has no finished result that could stand for another.")
        if other == one.key:
            raise LoraError(f"{old} and {new} are the same node; there is nothing to accept.")
        if kind and kind != one.kind:
            raise LoraError(f"{one.address} is a {one.kind} node, and {new} a {kind} node; they cannot be equivalent.")
        chained = state.acceptances().get(one.key)
        if chained is not None:
            raise LoraError(f"{old} is itself replaced by {chained.old[:12]}…; accept that one in place of {new}.")
        ledger.accept(state, one.key, other, one.kind, reason)
        return state.acceptances()[other]


def withdraw(directory: Path, new: str, study: "Study | None" = None, lock_timeout: float = 0.0) -> list[str]:
    """Let a key stand for itself again; return the keys that do.

    :raises LoraError: when nothing is accepted in its place
    """
    with State.write(directory, lock_timeout) as state:
        active = [key for (key,) in state.rows("SELECT DISTINCT new FROM acceptances WHERE withdrawn IS NULL")]
        begins = [key for key in active if len(new) >= SHORTEST_KEY and key.startswith(new)]
        found = begins if study is None else [_new(state, new, study)[0]]
        done = [key for key in found if ledger.withdraw(state, key)]
        if not done:
            listed = ", ".join(f"{key[:12]}…" for key in active) or "none"
            raise LoraError(f"Nothing is accepted in place of {new}; keys that have another's result: {listed}.")
        return done


def _new(state: State, name: str, study: "Study | None") -> tuple[str, str]:
    """Return key and kind of what is to be replaced; the kind is not known of a key that nobody tried."""
    if study is None and len(name) == _KEY_LETTERS and set(name) <= set("0123456789abcdef"):
        known = state.node(name)
        return name, known.kind if known else ""
    node = find_node(names_of(state, study), name)
    return node.replaces or node.key, node.kind
