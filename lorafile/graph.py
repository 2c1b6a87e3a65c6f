"""The graph of a study: nodes, each under its key, after what they read."""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import rfc8785

from lorafile.lockfile import Lock
from lorafile.metrics.own import OwnMetric
from lorafile.sections import section_digest
from lorafile.specs import Spec

if TYPE_CHECKING:
    from lorafile.state import Acceptance

# Raised when a change in the code of a kind can change its result: a new key, and a reason in the plan.
VERSIONS = {
    "prepare": 2,
    "train": 1,
    "predict": 1,
    "score": 2,
    "profile": 1,
    "truncate": 1,
    "inspect": 1,
    "merge": 1,
}


@dataclass(frozen=True)
class GraphNode:
    """One unit of work of a study.

    :ivar settings: section -> settings, as they are hashed; `inputs`: role -> key of the node that is read
    :ivar configuration: the name of the first configuration that needs it (empty for `prepare`)
    :ivar repeat: above 1 of a run that is the same thing again, and of what is made of it
    :ivar accepted: that its key is another's, whose result state accepts in its place, and why
    """

    key: str
    kind: str
    address: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    configuration: str = ""
    seed: int | None = None
    split: str = ""
    repeat: int = 1
    accepted: "Acceptance | None" = None

    @property
    def version(self) -> int:
        """The protocol version of its kind."""
        return VERSIONS[self.kind]


@dataclass
class Graph:
    """The nodes of a study by key; each stands after what it reads."""

    spec: Spec
    lock: Lock
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    replicates: dict[str, list["Replicate"]] = field(default_factory=dict)  # by configuration
    repeats: dict[str, list["Replicate"]] = field(default_factory=dict)  # by configuration: the first seed's, again
    profiles: dict[str, str] = field(default_factory=dict)  # configuration -> key
    splits: dict[str, dict[str, str]] = field(default_factory=dict)  # configuration -> split -> key of its prepare node
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)  # configuration -> its resolved sections
    own: dict[str, OwnMetric] = field(default_factory=dict)  # name -> the user's metric file
    checkpoints: dict[str, dict[str, str]] = field(default_factory=dict)  # digest -> files of a model from outside
    texts: dict[str, dict[str, str]] = field(default_factory=dict)  # as `splits`, of `reference` and `prompts`
    before: dict[str, dict[str, str]] = field(default_factory=dict)  # configuration -> `beside` of its untuned base
    accepted: "dict[str, Acceptance]" = field(default_factory=dict)  # key -> the one whose result is used in its place

    def add(self, kind: str, address: str, sections: dict[str, Any], inputs: dict[str, str], **about: Any) -> str:
        """Add a node, unless one of the same key is there already; return its key.

        Where state accepts another's result for it, it has that one's key, and so has what reads it.
        """
        digests = {name: section_digest(value) for name, value in sections.items()}
        key = key_of(kind, VERSIONS[kind], digests, inputs)
        accepted = self.accepted.get(key)
        if accepted is not None and accepted.kind == kind:
            key, about = accepted.old, about | {"accepted": accepted}
        self.nodes.setdefault(key, GraphNode(key, kind, address, sections, inputs, **about))
        return key

    def accepted_lines(self) -> list[str]:
        """Say whose results are used in the place of others."""
        return [
            f"{node.address} uses the result of {node.accepted.old[:12]}…, accepted in place of "
            f"{node.accepted.new[:12]}… on {node.accepted.since[:10]}: {node.accepted.reason}"
            for node in self.nodes.values()
            if node.accepted is not None
        ]


def key_of(kind: str, version: int, digests: dict[str, str], inputs: dict[str, str]) -> str:
    """Return the key of a node: over its kind, its protocol version, the digests of its sections, its inputs' keys."""
    content: dict[str, Any] = {"kind": kind, "version": version, "sections": digests, "inputs": inputs}
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


@dataclass(frozen=True)
class Replicate:
    """A configuration under one seed: the keys of its nodes.

    :ivar repeat: above 1 where it is the same thing again
    :ivar inspect: of the node that looks inside its adapter; `truncated`: rank -> the same adapter cut to that rank,
        its `train` being the node that cut it; `merge`: type -> the node that merged it
    """

    seed: int | None
    train: str | None
    predict: dict[tuple[str, str], str]  # (split, output) -> key
    score: dict[str, str]  # split -> key
    own: dict[tuple[str, str], str] = field(default_factory=dict)  # (split, name of a metric file) -> key
    inspect: str | None = None
    truncated: "dict[int, Replicate]" = field(default_factory=dict)
    merge: dict[str, str] = field(default_factory=dict)
    repeat: int = 1
    beside: dict[str, str] = field(default_factory=dict)  # `reference`, `prompts`, `lm-eval/<task>` -> key
