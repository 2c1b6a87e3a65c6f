"""The nodes of a study: every unit of work that it declares. One file for the nodes that belong together."""

from collections.abc import Iterator

from lorafile.graph import Graph
from lorafile.lockfile import Lock
from lorafile.nodes.adapters import add_adapter_nodes, check_truncation
from lorafile.nodes.beside import add_beside, add_texts
from lorafile.nodes.data import add_splits
from lorafile.nodes.metrics import own_metrics
from lorafile.nodes.profile import add_profile
from lorafile.nodes.replicates import add_repeat, add_replicate
from lorafile.sections import resolved_sections
from lorafile.specs import Configuration, Spec
from lorafile.specs.stages import is_exact, staged


def build(spec: Spec, lock: Lock) -> Graph:
    """Return every node of a study: examples first, then one whole seed after another, then what is measured alone."""
    graph = Graph(spec, lock, own=own_metrics(spec))
    for configuration in spec.configurations:
        graph.sections[configuration.name] = resolved_sections(configuration, lock)
        first = spec.tables.study.seeds[0] if configuration.shots else None
        graph.splits[configuration.name] = add_splits(graph, configuration, first)
        graph.texts[configuration.name] = add_texts(graph, configuration)
    check_truncation(graph)
    for seed, configurations in _replicates(spec):
        for configuration in configurations:
            replicate = add_adapter_nodes(graph, configuration, add_replicate(graph, configuration, seed))
            graph.replicates.setdefault(configuration.name, []).append(replicate)
    _add_repeats(graph, spec)
    for configuration in spec.configurations:  # untuned, on the same base: what else each is held against
        place = f"untuned/{configuration.name}"
        graph.before[configuration.name] = add_beside(graph, configuration, place, None, None)
    if spec.tables.profile.enabled:
        for configuration in spec.configurations:
            graph.profiles[configuration.name] = add_profile(graph, configuration)
    return graph


def _add_repeats(graph: Graph, spec: Spec) -> None:
    """Add the first seed of everything that is trained again, as often as the spec says, after all that is new."""
    for repeat in range(2, spec.tables.study.repeats + 1):
        for configuration in spec.configurations:
            if configuration.method != "none":
                again = add_repeat(graph, configuration, spec.tables.study.seeds[0], repeat)
                graph.repeats.setdefault(configuration.name, []).append(again)


def _replicates(spec: Spec) -> Iterator[tuple[int | None, list[Configuration]]]:
    """Yield whole seeds, so that a study that is cut short still compares; a row that is exact comes once."""
    tables = spec.tables
    yield None, [configuration for configuration in spec.configurations if is_exact(configuration, tables)]
    for seed in tables.study.seeds:
        yield seed, [configuration for configuration in spec.configurations if not is_exact(configuration, tables)]
    for number, stage in enumerate(tables.stage):
        for seed in stage.seeds:
            yield seed, staged(number, tables, spec.configurations)
