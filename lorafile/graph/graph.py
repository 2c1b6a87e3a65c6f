"""The graph of a study: nodes, each under its key, and what reads what."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from lorafile.engine.metrics.custom import CustomMetric
from lorafile.graph.initializers import InitFunction
from lorafile.graph.trainers import TrainerProgram
from lorafile.lock.lockfile import Lock
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

_NONE: dict[Any, Any] = {}  # what a replicate holds is never changed


class GraphNode(NamedTuple):
    """One unit of work of a study; a tuple, because a study may have tens of thousands.

    :ivar settings: section -> settings, as they are hashed
    :ivar inputs: role -> key of the node that is read
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


@dataclass(frozen=True, repr=False)
class Graph:
    """The nodes of a study by key, each after what it reads, and which of them belong to a configuration.

    :ivar replicates: configuration -> its replicates
    :ivar repeats: configuration -> its first seed's replicate, run again
    :ivar profiles: configuration -> key of its profile
    :ivar splits: configuration -> split -> key of its `prepare` node
    :ivar sections: configuration -> its resolved sections
    :ivar own: name -> the user's metric file
    :ivar trainers: name -> the user's program that trains
    :ivar initializers: (file, function) -> the user's function that initializes adapters
    :ivar checkpoints: digest -> files of a model from outside
    :ivar clusters: like `splits`, of what tells which held-out examples belong together; empty where none do
    :ivar texts: like `splits`, of `reference` and `prompts`
    :ivar before: configuration -> the extra evaluations of its untuned base
    :ivar accepted: key -> the acceptance by which another result is used in its place
    """

    spec: Spec
    lock: Lock
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    replicates: dict[str, list["Replicate"]] = field(default_factory=dict)
    repeats: dict[str, list["Replicate"]] = field(default_factory=dict)
    profiles: dict[str, str] = field(default_factory=dict)
    splits: dict[str, dict[str, str]] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    own: dict[str, CustomMetric] = field(default_factory=dict)
    trainers: dict[str, TrainerProgram] = field(default_factory=dict)
    initializers: dict[tuple[str, str], InitFunction] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, str]] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    clusters: dict[str, dict[str, str]] = field(default_factory=dict)
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    accepted: "dict[str, Acceptance]" = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} nodes>"

    @cached_property
    def edges(self) -> Any:
        """The keys as a networkx graph; an edge leads from what is read to what reads it. Made when first asked for."""
        import networkx as nx

        graph = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((read, key) for key, node in self.nodes.items() for read in node.inputs.values())
        return graph

    def ancestors(self, keys: Iterable[str], within: set[str] | None = None) -> set[str]:
        """Return everything that some nodes read, directly or not, and the nodes themselves.

        :param within: only paths through these nodes count
        """
        return self._reachable(keys, within, backwards=True)

    def descendants(self, keys: Iterable[str], within: set[str] | None = None) -> set[str]:
        """Return everything that reads some nodes, directly or not, and the nodes themselves.

        :param within: only paths through these nodes count
        """
        return self._reachable(keys, within, backwards=False)

    def _reachable(self, keys: Iterable[str], within: set[str] | None, backwards: bool) -> set[str]:
        import networkx as nx

        edges = self.edges if within is None else self.edges.subgraph(within)
        edges = edges.reverse(copy=False) if backwards else edges
        return set(chain.from_iterable(nx.bfs_layers(edges, [key for key in keys if key in edges])))

    def restricted(self, keys: Iterable[str]) -> "Graph":
        """Return the graph of some nodes, and of everything that they read."""
        kept = self.ancestors(keys)
        return replace(self, nodes={key: node for key, node in self.nodes.items() if key in kept})

    def accepted_lines(self) -> list[str]:
        """Say whose results are used in the place of others."""
        return [
            f"{node.address} uses the result of {node.accepted.old[:12]}…, accepted in place of "
            f"{node.accepted.new[:12]}… on {node.accepted.since[:10]}: {node.accepted.reason}"
            for node in self.nodes.values()
            if node.accepted is not None and not node.accepted.is_equal
        ]


class Replicate(NamedTuple):
    """A configuration under one seed: the keys of its nodes.

    :ivar predict: (split, output) -> key
    :ivar score: split -> key
    :ivar own: (split, name of a metric file) -> key
    :ivar inspect: of the node that looks inside its adapter
    :ivar truncated: rank -> the same adapter cut to that rank, its `train` being the node that cut it
    :ivar merge: type -> the node that merged it
    :ivar repeat: above 1 where it is the same thing again
    :ivar extra: `reference`, `prompts`, `lm-eval/<task>` -> key
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
    extra: dict[str, str] = _NONE

    @property
    def named(self) -> dict[str, str]:
        """Return node -> key of everything that one run consists of, in the order in which it is done."""
        keys = {"train": self.train, "inspect": self.inspect}
        keys |= {f"predict/{split}/{output}": key for (split, output), key in self.predict.items()}
        keys |= {f"score/{split}": key for split, key in self.score.items()}
        keys |= {f"score/{split}/{name}": key for (split, name), key in self.own.items()}
        keys |= {f"merge/{dtype}": key for dtype, key in self.merge.items()} | dict(self.extra)
        for rank, smaller in self.truncated.items():
            keys |= {f"truncated to {rank}: {name}": key for name, key in smaller.named.items()}
        return {name: key for name, key in keys.items() if key is not None}
