"""What is known of one node: what its key is made of, every attempt at it, its curve, live where it still trains."""

from dataclasses import dataclass
from typing import Any

from lorafile.files.run_directory import Unfinished, unfinished
from lorafile.state import Attempt, State
from lorafile.state.names import Named, recorded_nodes


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


def history(state: State, named: Named) -> History:
    """Return what state knows of a node."""
    key = named.key
    node, attempts = state.node(key), state.latest([key]).get(key, [])
    open_run = None if attempts and attempts[-1].finished else unfinished(state.running(key))
    about = open_run.about if open_run else {}
    nodes = recorded_nodes(state)
    addresses = {other.key: other.address for other in reversed(nodes)}
    declaring = {other.study for other in (named, *nodes) if other.key == key and other.declared}
    return History(
        key=key,
        kind=named.kind,
        address=named.address,
        studies=sorted(declaring),
        version=node.version if node else None,
        settings=node.settings if node else about.get("settings", {}),
        inputs={role: (other, addresses.get(other, "")) for role, other in (node.inputs if node else {}).items()},
        attempts=attempts,
        curve=open_run.rows if open_run else _stored_curve(state, attempts),
        unfinished=open_run,
    )


def _stored_curve(state: State, attempts: list[Attempt]) -> list[dict[str, Any]]:
    digest = attempts[-1].outputs.get("curve.jsonl.gz") if attempts else None
    if digest is None or not state.objects.has(digest):
        return []
    return list(state.objects.rows(digest))
