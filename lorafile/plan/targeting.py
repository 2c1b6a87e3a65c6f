"""Which part of a study a plan is of, and which finished nodes it does again: patterns of addresses and names."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lorafile.errors import LoraError
from lorafile.graph.graph import Graph, GraphNode, Replicate
from lorafile.specs import Configuration

if TYPE_CHECKING:
    from lorafile.plan.plan import Plan


@dataclass(frozen=True)
class Selection:
    """What a plan leaves out, and what it does again although it is finished.

    :ivar target, exclude: patterns of addresses, or of configurations' names
    :ivar replace: patterns of addresses
    :ivar rerun_drifted: whether what was done in another environment is done again in this one
    """

    target: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    rerun_drifted: bool = False

    @property
    def partial(self) -> bool:
        """Whether a part of the study may be left out."""
        return bool(self.target or self.exclude)

    @property
    def words(self) -> str:
        """Return what leaves a part out, as the command line writes it."""
        return " ".join(f"--{name} {one}" for name in ("target", "exclude") for one in getattr(self, name))

    def again(self, node: GraphNode, action: str) -> str:
        """Return why a finished node is to be done again; nothing where it is not."""
        if action in ("reuse", "drift") and any(_fits(pattern, node.address) for pattern in self.replace):
            return "to be done again, as --replace asks; what was computed from other bytes of it follows"
        return "to be done again in this environment" if action == "drift" and self.rerun_drifted else ""

    def followed(self) -> "Selection":
        """Return the selection of what follows an apply: nothing is done again twice."""
        return replace(self, replace=(), rerun_drifted=False)

    def check(self, graph: Graph) -> None:
        """Refuse a pattern that fits nothing.

        :raises LoraError: naming what comes near
        """
        for option in ("target", "exclude", "replace"):
            for pattern in getattr(self, option):
                if not (matched(graph, pattern) if option != "replace" else _nodes(graph, pattern)):
                    raise LoraError(f"--{option}: nothing in this study is called {pattern!r}.{_near(graph, pattern)}")


WHOLE = Selection()


def narrowed(plan: "Plan") -> "Plan":
    """Return the plan of what is selected, with what that reads; a finished node brings nothing."""
    selection = plan.selection
    if not selection.partial:
        return plan
    graph, work = plan.graph, {change.key for change in plan.work}
    open_keys = work | {change.key for change in plan.changes if change.action == "blocked"}
    kept = set(graph.nodes)
    if selection.target:
        kept = set[str]().union(*(matched(graph, pattern) for pattern in selection.target))
        waiting = [key for key in kept if key in open_keys]
        while waiting:
            for key in graph.nodes[waiting.pop()].inputs.values():
                if key not in kept:
                    kept.add(key)
                    waiting += [key] * (key in open_keys)
    out: set[str] = set[str]().union(*(_excluded(graph, pattern) for pattern in selection.exclude)) & open_keys
    for key, node in graph.nodes.items():  # inputs stand before what reads them
        if key in open_keys and out.intersection(node.inputs.values()):
            out.add(key)
    kept -= out
    plan.left_out = len(work - kept)
    plan.changes = [change for change in plan.changes if change.key in kept]
    names = {graph.nodes[key].configuration for key in kept}
    owners = graph.spec.owners
    names |= {owners[name] for name in names if name in owners}
    plan.tuning = [one for one in plan.tuning if one.configuration in names]
    return plan


def matched(graph: Graph, pattern: str) -> set[str]:
    """Return the keys of every node that a pattern names: by its address, or as one of a configuration."""
    found = _nodes(graph, pattern)
    for configuration in graph.spec.configurations:
        if _named(configuration, pattern):
            found |= configuration_keys(graph, configuration)
    for name in graph.spec.owners:
        if _fits(pattern, name):
            found |= _own_keys(graph, name)
    return found


def configuration_keys(graph: Graph, configuration: Configuration) -> set[str]:
    """Return the keys of every node that a configuration, or a candidate of it, has or shares."""
    candidates = configuration.tuned.candidates if configuration.tuned else ()
    return set[str]().union(*(_own_keys(graph, name) for name in (configuration.name, *(c.name for c in candidates))))


def _excluded(graph: Graph, pattern: str) -> set[str]:
    """Return what a pattern takes out: of a configuration only what no other one shares."""
    names = {c.name for c in graph.spec.configurations if _named(c, pattern)}
    others = [configuration_keys(graph, c) for c in graph.spec.configurations if c.name not in names]
    return (matched(graph, pattern) - set[str]().union(*others)) | _nodes(graph, pattern)


def _nodes(graph: Graph, pattern: str) -> set[str]:
    """Return the keys of nodes whose address fits, under any of their configuration's names."""
    aliases = {c.name: c.aliases for c in graph.spec.configurations}
    found = set()
    for key, node in graph.nodes.items():
        others = (
            alias + node.address.removeprefix(node.configuration) for alias in aliases.get(node.configuration, ())
        )
        if _fits(pattern, node.address) or any(_fits(pattern, address) for address in others):
            found.add(key)
    return found


def _own_keys(graph: Graph, name: str) -> set[str]:
    found = {key for one in graph.replicates.get(name, []) + graph.repeats.get(name, []) for key in replicate_keys(one)}
    for tables in (graph.splits, graph.texts, graph.before):
        found |= set(tables.get(name, {}).values())
    return found | ({graph.profiles[name]} if name in graph.profiles else set())


def replicate_keys(replicate: Replicate) -> Iterator[str]:
    """Yield the key of every node of a replicate, what it trains first."""
    if replicate.train:
        yield replicate.train
    for table in (replicate.predict, replicate.score, replicate.own, replicate.merge, replicate.beside):
        yield from table.values()
    if replicate.inspect:
        yield replicate.inspect
    for one in replicate.truncated.values():
        yield from replicate_keys(one)


def _named(configuration: Configuration, pattern: str) -> bool:
    return any(_fits(pattern, name) for name in (configuration.name, *configuration.aliases))


def _fits(pattern: str, name: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _near(graph: Graph, pattern: str) -> str:
    names = [c.name for c in graph.spec.configurations] + [node.address for node in graph.nodes.values()]
    near = difflib.get_close_matches(pattern, names, 1, 0.5) or [name for name in names if pattern in name][:1]
    return f" Did you mean {near[0]!r}?" if near else " Its configurations and nodes: lora plan --full"
