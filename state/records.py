"""What the store holds, as its readers get it: attempts, nodes, and what somebody declared equivalent."""

from dataclasses import dataclass
from typing import Any, NamedTuple

NOTHING: dict[str, Any] = {}  # nobody changes what an attempt holds


class Attempt(NamedTuple):
    """One try at a node and what came of it; a tuple, because a plan reads tens of thousands."""

    key: str
    kind: str
    outcome: str
    message: str = ""
    started: str = ""
    seconds: float = 0.0
    device: str = ""
    environment: dict[str, Any] = NOTHING
    figures: dict[str, Any] = NOTHING
    reads: dict[str, dict[str, str]] = NOTHING  # role -> file name -> digest
    study: str = ""
    address: str = ""
    outputs: dict[str, str] = NOTHING  # file name -> digest
    bytes: int = 0
    forecast: dict[str, Any] = NOTHING  # what the plan had foretold of it

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


@dataclass(frozen=True)
class Acceptance:
    """Two keys that somebody declared equivalent: where a study has `new`, the result of `old` is used."""

    old: str
    new: str
    kind: str
    reason: str
    since: str
