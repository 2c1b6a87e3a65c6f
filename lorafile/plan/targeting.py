"""The part of a study that `--target`, `--exclude` and `--replace` name: patterns of addresses and names."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from lorafile.errors import UnmatchedPattern
from lorafile.graph.graph import Graph, GraphNode, Replicate
from lorafile.plan.plan import Action, Plan, PlanOptions
from lorafile.specs import Configuration
from lorafile.units import closest


def check_patterns(options: PlanOptions, graph: Graph) -> None:
    """Refuse a pattern that fits nothing.

    :raises UnmatchedPattern: naming what comes near
    """
    for option in ("target", "exclude", "replace"):
        for pattern in getattr(options, option):
            if not (matched(graph, pattern) if option != "replace" else _nodes(graph, pattern)):
                raise UnmatchedPattern(option, f"nothing in this study matches {pattern!r}.{_near(graph, pattern)}")


def why_again(options: PlanOptions, node: GraphNode, action: Action) -> str:
    """Return why a finished node is to be done again; nothing where it is not."""
    finished = action in (Action.REUSE, Action.DRIFT)
    if finished and any(_fits(pattern, node.address) for pattern in options.replace):
        return "to be rerun because of --replace; dependents of changed results follow"
    drifted = action is Action.DRIFT and options.rerun_drifted
    return "to be rerun in this environment" if drifted else ""


def restrict_to_targets(plan: Plan) -> Plan:
    """Restrict a plan to the targeted nodes and their unfinished dependencies, without what is excluded."""
    if not plan.options.partial:
        return plan
    graph, work = plan.graph, {change.key for change in plan.work}
    unfinished = work | {change.key for change in plan.changes if change.action is Action.BLOCKED}
    kept = set(graph.nodes)
    if plan.options.target:
        kept = all_matched(graph, plan.options.target)
        for key in graph.ancestors(kept, within=unfinished):
            kept |= {key, *graph.nodes[key].inputs.values()}
    excluded = set[str]().union(*(_excluded(graph, pattern) for pattern in plan.options.exclude))
    kept -= graph.descendants(excluded, within=unfinished)
    names = {graph.nodes[key].configuration for key in kept}
    names |= {graph.spec.owners[name] for name in names if name in graph.spec.owners}
    return replace(
        plan,
        left_out=len(work - kept),
        changes=tuple(change for change in plan.changes if change.key in kept),
        tuning=tuple(status for status in plan.tuning if status.configuration in names),
    )


def all_matched(graph: Graph, patterns: Iterable[str]) -> set[str]:
    """Return the keys of every node that any of some patterns names."""
    return set[str]().union(*(matched(graph, pattern) for pattern in patterns))


def matched(graph: Graph, pattern: str) -> set[str]:
    """Return the keys of every node that a pattern names: by its address, or as one of a configuration."""
    keys = _nodes(graph, pattern)
    for configuration in graph.spec.configurations:
        if _named(configuration, pattern):
            keys |= configuration_keys(graph, configuration)
    for name in graph.spec.owners:
        if _fits(pattern, name):
            keys |= _own_keys(graph, name)
    return keys


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
    keys = set()
    for key, node in graph.nodes.items():
        others = (
            alias + node.address.removeprefix(node.configuration) for alias in aliases.get(node.configuration, ())
        )
        if _fits(pattern, node.address) or any(_fits(pattern, address) for address in others):
            keys.add(key)
    return keys


def _own_keys(graph: Graph, name: str) -> set[str]:
    replicates = graph.replicates.get(name, []) + graph.repeats.get(name, [])
    keys = {key for replicate in replicates for key in replicate_keys(replicate)}
    for tables in (graph.splits, graph.texts, graph.before):
        keys |= set(tables.get(name, {}).values())
    return keys | ({graph.profiles[name]} if name in graph.profiles else set())


def replicate_keys(replicate: Replicate) -> Iterator[str]:
    """Yield the key of every node of a replicate, what it trains first."""
    if replicate.train:
        yield replicate.train
    for table in (replicate.predict, replicate.score, replicate.own, replicate.merge, replicate.extra):
        yield from table.values()
    if replicate.inspect:
        yield replicate.inspect
    for truncated in replicate.truncated.values():
        yield from replicate_keys(truncated)


def _named(configuration: Configuration, pattern: str) -> bool:
    return any(_fits(pattern, name) for name in (configuration.name, *configuration.aliases))


def _fits(pattern: str, name: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _near(graph: Graph, pattern: str) -> str:
    names = [c.name for c in graph.spec.configurations] + [node.address for node in graph.nodes.values()]
    near = closest(pattern, names, 0.5) or next((name for name in names if pattern in name), None)
    return f" Did you mean {near!r}?" if near else " To list its configurations and nodes: lora plan --full"
