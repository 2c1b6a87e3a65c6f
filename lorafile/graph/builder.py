"""What builds a graph: nodes are added one by one, and what configurations share is made once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from lorafile.graph.graph import VERSIONS, Graph, GraphNode
from lorafile.lock.lockfile import Lock
from lorafile.specs import Spec
from lorafile.state.keys import canonical_texts, key_of, section_digest

Made = TypeVar("Made")


class Owner(NamedTuple):
    """What a node is of: its configuration, seed and split, as far as it has them, and which repeat of its run."""

    configuration: str = ""
    seed: int | None = None
    split: str = ""
    repeat: int = 1


class GraphBuilder:
    """A graph while it is filled, and the caches that make it fast.

    A study may have tens of thousands of nodes, most of whose sections are the same objects: each is hashed once.

    :ivar graph: what is built; the functions that add nodes fill its tables, too
    :ivar prepared: addresses of the `prepare` nodes so far
    :ivar shared: text -> section of a model
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.prepared = {node.address for node in graph.nodes.values() if node.kind == "prepare"}
        self.shared: dict[str, Any] = {}
        self._made: dict[Any, Any] = {}  # name -> what is made once
        self._texts: dict[int, tuple[Any, str]] = {}  # id of sections -> them, and their text in a key
        self._digests: dict[int, tuple[Any, str]] = {}  # id of a section -> it, and its digest

    @property
    def spec(self) -> Spec:
        """The study's spec."""
        return self.graph.spec

    @property
    def lock(self) -> Lock:
        """The study's lock."""
        return self.graph.lock

    def add(self, kind: str, address: str, sections: dict[str, Any], inputs: dict[str, str], owner: Owner) -> str:
        """Add a node, unless one of the same key is there already; return its key.

        Where state accepts another's result for it, it has that one's key, and so has what reads it.
        """
        cached = self._texts.get(id(sections))
        key = key_of(kind, VERSIONS[kind], cached[1] if cached else self._text(sections), inputs)
        accepted = self.graph.accepted.get(key) if self.graph.accepted else None
        if accepted is not None:
            accepted = accepted if accepted.kind == kind else None
            key = accepted.old if accepted is not None else key
        if key not in self.graph.nodes:
            if kind == "prepare":
                self.prepared.add(address)
            self.graph.nodes[key] = GraphNode(key, kind, address, sections, inputs, *owner, accepted)
        return key

    def once(self, name: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """Return what is the same for all who ask by this name; it is made for the first, and never changed."""
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made

    def share(self, name: tuple[Any, ...], sections: dict[str, Any]) -> dict[str, Any]:
        """Return sections that many nodes have; their text is made once."""
        shared = self.once(name, lambda: sections)
        if shared is sections:
            self._texts[id(shared)] = (shared, self._text(shared))
        return shared

    def _text(self, sections: dict[str, Any]) -> str:
        """Return sections as they stand in a key; one that many nodes have is hashed once."""
        digests = {}
        for name, section in sections.items():
            cached = self._digests.get(id(section))
            if cached is None:  # kept with its digest, so that its id stays its own
                cached = self._digests[id(section)] = (section, section_digest(section))
            digests[name] = cached[1]
        return canonical_texts(digests)


def extended(graph: Graph) -> GraphBuilder:
    """Return a builder that goes on from a finished graph, which stays as it is."""
    copies: dict[str, Any] = {name: dict(table) for name, table in vars(graph).items() if isinstance(table, dict)}
    return GraphBuilder(replace(graph, **copies))
