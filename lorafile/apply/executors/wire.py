"""What the applying process and an agent on another machine say to each other: JSON with a protocol number.

Nothing is unpickled: a text is parsed as JSON and checked against the dataclass that it names. In a request that
travels the paths are references to content (`content.py`).
"""

import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lorafile.engine.worker.channel import (
    Command,
    NodeEnd,
    NodeProgress,
    NodeStart,
    PackMeasured,
    Status,
    Work,
)
from lorafile.environment import installed
from lorafile.errors import LoraError

PROTOCOL = 1  # raised when a message changes
VERSION = installed("lorafile") or "unknown"

Files = dict[str, tuple[str, int]]
"""File name -> digest and bytes."""


@dataclass(frozen=True)
class Hello:
    """An agent is there.

    :ivar node: its machine's name; `process`: its process id there
    :ivar environment: device, driver and libraries, as a result of this worker records them
    """

    node: str
    process: int
    version: str = VERSION
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """An agent needs files that it does not have, by their digests."""

    digests: list[str]


@dataclass(frozen=True)
class Delivered:
    """The end of a node, and the files that it left.

    :ivar reads: role -> file name -> digest of what it read
    """

    end: NodeEnd
    files: Files = field(default_factory=dict)
    reads: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpointed:
    """A run has a new checkpoint: the files of its directory."""

    key: str
    files: Files


@dataclass(frozen=True)
class WorkerDied:
    """A worker process died of its work; its agent goes on and can start another.

    :ivar exited: it ended by itself
    :ivar log: the end of its log
    """

    why: str
    exited: bool
    log: str = ""


@dataclass(frozen=True)
class Leaving:
    """An agent ends, because its machine is taken back or no apply listens."""

    why: str
    log: str = ""


@dataclass(frozen=True)
class LogTail:
    """The end of a worker's log as it is now."""

    text: str


class Order(Enum):
    """What only an agent is asked."""

    RENEW = "renew"  # begin the next work in a fresh process
    CLOSE = "close"  # end at once: nothing counts any more


Letter = (
    Hello
    | Missing
    | Delivered
    | Checkpointed
    | WorkerDied
    | Leaving
    | LogTail
    | Work
    | NodeStart
    | NodeProgress
    | PackMeasured
    | Status
    | Command
    | Order
)
_WORDS: dict[str, type[Enum]] = {kind.__name__: kind for kind in (Status, Command, Order)}
_RECORDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Hello,
        Missing,
        Delivered,
        Checkpointed,
        WorkerDied,
        Leaving,
        LogTail,
        Work,
        NodeStart,
        NodeProgress,
        PackMeasured,
    )
}


class WireError(LoraError):
    """The other end speaks another version, or sent what is no message."""


def encode(letter: Letter) -> str:
    """Return a message as a line of JSON."""
    body = letter.name if isinstance(letter, Enum) else asdict(letter)
    return json.dumps({"protocol": PROTOCOL, "lorafile": VERSION, "kind": type(letter).__name__, "body": body})


def decode(text: str) -> Letter:
    """Return the message of a line of JSON.

    :raises WireError: when it is of another protocol, or no message
    """
    try:
        content = json.loads(text)
        protocol, kind, body = content["protocol"], content["kind"], content["body"]
    except (ValueError, KeyError, TypeError) as error:
        raise WireError(f"A message is not from lorafile: {text[:60]!r}.") from error
    if protocol != PROTOCOL:
        raise WireError(
            f"The other end uses protocol {protocol} (lorafile {content.get('lorafile', 'unknown')}), but this one "
            f"uses {PROTOCOL} (lorafile {VERSION}). Install the same version of lorafile on every machine."
        )
    try:
        if kind in _WORDS:
            return _WORDS[kind][body]  # type: ignore[return-value]
        letter: Letter = _adapter(_RECORDS[kind]).validate_python(body)
    except (KeyError, ValidationError) as error:
        raise WireError(f"lorafile {VERSION} cannot read a message of type {str(kind)[:40]!r}.") from error
    return letter


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
