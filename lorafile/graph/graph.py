"""The graph of a study: nodes, each under its key, after what they read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lorafile.engine.metrics.custom import OwnMetric
from lorafile.lock.lockfile import Lock
from lorafile.specs import Spec
from lorafile.state.keys import canonical_texts, key_of, section_digest

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

Made = TypeVar("Made")
_NONE: dict[Any, Any] = {}  # nobody changes what a replicate holds


class GraphNode(NamedTuple):
    """One unit of work of a study; a tuple, because a study may have tens of thousands.

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
    prepared: set[str] = field(default_factory=set, repr=False)  # addresses of the `prepare` nodes
    shared: dict[str, Any] = field(default_factory=dict, repr=False)  # text -> section of a model
    made: dict[Any, Any] = field(default_factory=dict, repr=False)  # what configurations share, made once: see `once`
    known: dict[int, tuple[Any, str]] = field(default_factory=dict, repr=False)  # id of sections -> them, their text
    digests: dict[int, tuple[Any, str]] = field(default_factory=dict, repr=False)  # id of a section -> it, its digest

    def add(
        self,
        kind: str,
        address: str,
        sections: dict[str, Any],
        inputs: dict[str, str],
        configuration: str = "",
        seed: int | None = None,
        split: str = "",
        repeat: int = 1,
    ) -> str:
        """Add a node, unless one of the same key is there already; return its key.

        Where state accepts another's result for it, it has that one's key, and so has what reads it.
        """
        known = self.known.get(id(sections))
        key = key_of(kind, VERSIONS[kind], known[1] if known else self._text(sections), inputs)
        accepted = self.accepted.get(key) if self.accepted else None
        if accepted is not None:
            accepted = accepted if accepted.kind == kind else None
            key = accepted.old if accepted is not None else key
        if key not in self.nodes:
            if kind == "prepare":
                self.prepared.add(address)
            about = (configuration, seed, split, repeat, accepted)
            self.nodes[key] = GraphNode(key, kind, address, sections, inputs, *about)
        return key

    def accepted_lines(self) -> list[str]:
        """Say whose results are used in the place of others."""
        return [
            f"{node.address} uses the result of {node.accepted.old[:12]}…, accepted in place of "
            f"{node.accepted.new[:12]}… on {node.accepted.since[:10]}: {node.accepted.reason}"
            for node in self.nodes.values()
            if node.accepted is not None
        ]

    def once(self, name: tuple[Any, ...], make: "Callable[[], Made]") -> "Made":
        """Return what is the same for all who ask by this name; it is made for the first, and nobody changes it."""
        if name not in self.made:
            self.made[name] = make()
        found: Made = self.made[name]
        return found

    def share(self, name: tuple[Any, ...], sections: dict[str, Any]) -> dict[str, Any]:
        """Return sections that many nodes have; their text is made once."""
        found = self.once(name, lambda: sections)
        if found is sections:
            self.known[id(found)] = (found, self._text(found))
        return found

    def _text(self, sections: dict[str, Any]) -> str:
        """Return sections as they stand in a key; one that many nodes have is hashed once."""
        digests = {}
        for name, section in sections.items():
            known = self.digests.get(id(section))
            if known is None:  # kept with its digest, so that its id stays its own
                known = self.digests[id(section)] = (section, section_digest(section))
            digests[name] = known[1]
        return canonical_texts(digests)


class Replicate(NamedTuple):
    """A configuration under one seed: the keys of its nodes.

    :ivar predict: (split, output) -> key; `score`: split -> key; `own`: (split, name of a metric file) -> key
    :ivar inspect: of the node that looks inside its adapter; `truncated`: rank -> the same adapter cut to that rank,
        its `train` being the node that cut it; `merge`: type -> the node that merged it
    :ivar repeat: above 1 where it is the same thing again
    :ivar beside: `reference`, `prompts`, `lm-eval/<task>` -> key
    """

    seed: int | None
    train: str | None
    predict: dict[tuple[str, str], str]
    score: dict[str, str]
    own: dict[tuple[str, str], str] = _NONE
    inspect: str | None = None
    truncated: "dict[int, Replicate]" = _NONE
    merge: dict[str, str] = _NONE
    repeat: int = 1
    beside: dict[str, str] = _NONE

    @property
    def named(self) -> dict[str, str]:
        """Return node -> key of everything that one run consists of, in the order in which it is done."""
        found = {"train": self.train, "inspect": self.inspect}
        found |= {f"predict/{split}/{output}": key for (split, output), key in self.predict.items()}
        found |= {f"score/{split}": key for split, key in self.score.items()}
        found |= {f"score/{split}/{name}": key for (split, name), key in self.own.items()}
        found |= {f"merge/{dtype}": key for dtype, key in self.merge.items()} | dict(self.beside)
        for rank, smaller in self.truncated.items():
            found |= {f"truncated to {rank}: {name}": key for name, key in smaller.named.items()}
        return {name: key for name, key in found.items() if key is not None}
