"""What is known of one node: what its key is made of, every attempt at it, its curve, live where it still trains."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lorafile.engine.running import Unfinished, unfinished
from lorafile.errors import LoraError
from lorafile.state import Attempt, State
from lorafile.stored import stored_rows

_SHORTEST_KEY = 6
_MOST = 12


@dataclass(frozen=True)
class History:
    """One node as state knows it.

    :ivar studies: the studies that declare it now
    :ivar settings: section -> settings, as they were hashed; empty where no attempt is recorded and none runs
    :ivar inputs: role -> (key, address) of what it reads
    :ivar curve: a row for each optimizer step, of the newest finished attempt, or of the run that is not finished
    :ivar unfinished: how far a run has come that trains now, or that was interrupted
    """

    key: str
    kind: str
    address: str
    studies: list[str]
    version: int | None
    settings: dict[str, Any]
    inputs: dict[str, tuple[str, str]]
    attempts: list[Attempt]
    curve: list[dict[str, Any]]
    unfinished: Unfinished | None

    @property
    def standing(self) -> str:
        """How the node stands: running, the outcome of its newest attempt, or that there was none."""
        if self.unfinished is not None and self.unfinished.live:
            return "running"
        if self.attempts:
            return self.attempts[-1].outcome
        return "interrupted" if self.unfinished else "not run yet"


@dataclass(frozen=True)
class _Named:
    key: str
    kind: str
    address: str


def history(state: State, name: str) -> History:
    """Return what state knows of a node.

    :param name: its address, the address of its run (`rank/r=16/seed=42`), or the beginning of its key
    :raises LoraError: when no node has that name, or several have
    """
    attempts = state.latest()
    found = _find(_known(state, attempts), name)
    node = state.node(found.key)
    mine = attempts.get(found.key, [])
    open_run = None if mine and mine[-1].finished else unfinished(state.running(found.key))
    about = open_run.about if open_run else {}
    addresses = {row.key: row.address for row in _known(state, attempts)}
    return History(
        key=found.key,
        kind=found.kind,
        address=found.address,
        studies=sorted({study for study, _, key, _ in state.declarations() if key == found.key}),
        version=node.version if node else None,
        settings=node.settings if node else about.get("settings", {}),
        inputs={role: (key, addresses.get(key, "")) for role, key in (node.inputs if node else {}).items()},
        attempts=mine,
        curve=open_run.rows if open_run else _stored_curve(state, mine),
        unfinished=open_run,
    )


def _known(state: State, attempts: dict[str, list[Attempt]]) -> list[_Named]:
    """Return every node that has a name: what studies declare now, then what was tried under other names, newest first.

    Something else may stand under an address that was used before: the first of a name is the one that is meant.
    """
    declared = [_Named(key, kind, address) for _, address, key, kind in state.declarations()]
    newest = sorted((tries[-1] for tries in attempts.values()), key=lambda attempt: attempt.started, reverse=True)
    return [*declared, *(_Named(attempt.key, attempt.kind, attempt.address) for attempt in newest)]


def _find(known: list[_Named], name: str) -> _Named:
    exact = [row for row in known if row.address in (name, f"{name}:train")]
    if exact:
        return exact[0]
    by_key = {row.key: row for row in reversed(known) if len(name) >= _SHORTEST_KEY and row.key.startswith(name)}
    inside = {row.key: row for row in reversed(known) if row.address.startswith((f"{name}/", f"{name}:"))}
    several = by_key or inside
    if len(several) == 1:
        return next(iter(several.values()))
    if several:
        listed = sorted({row.address for row in several.values()})
        more = f" and {len(listed) - _MOST} more" if len(listed) > _MOST else ""
        raise LoraError(f'"{name}" names several nodes; name one of them: {", ".join(listed[:_MOST])}{more}')
    if not known:
        raise LoraError("This state knows no node yet. The first `lora apply` makes it; --state names another.")
    names = [row.address for row in known]
    names += [re.sub(r"(/seed=\d+)?:.*", "", address) for address in names]  # and configurations
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f'did you mean "{close[0]}"?' if close else "`lora plan --full` shows every address."
    raise LoraError(f'No node of this state is called "{name}", and no key begins so; {hint}')


def _stored_curve(state: State, attempts: list[Attempt]) -> list[dict[str, Any]]:
    digest = attempts[-1].outputs.get("curve.jsonl.gz") if attempts else None
    if digest is None or not state.objects.has(digest):
        return []
    return list(stored_rows(state.objects, digest))
