"""The nodes of a study: every unit of work that it declares. One file for the nodes that belong together."""

from collections.abc import Iterator

from lorafile.graph.adapter_nodes import add_adapter_nodes, check_truncation
from lorafile.graph.extra_evaluations import add_beside, add_texts
from lorafile.graph.graph import Graph
from lorafile.graph.metrics import own_metrics
from lorafile.graph.prepare import add_splits
from lorafile.graph.profile import add_profile
from lorafile.graph.replicates import add_candidate, add_repeat, add_replicate
from lorafile.graph.settings import resolved_sections
from lorafile.lock.lockfile import Lock
from lorafile.specs import Configuration, Spec
from lorafile.specs.sweeps.stages import is_exact, staged
from lorafile.state import Acceptance


def build(spec: Spec, lock: Lock, accepted: dict[str, Acceptance] | None = None) -> Graph:
    """Return every node of a study: examples first, then one whole seed after another, then what is measured alone.

    :param accepted: what state accepts in the place of others: `State.acceptances`
    """
    graph = Graph(spec, lock, own=own_metrics(spec), accepted=accepted or {})
    for configuration in spec.configurations:
        graph.sections[configuration.name] = resolved_sections(configuration, lock, graph.shared)
        first = spec.tables.study.seeds[0] if configuration.shots else None
        graph.splits[configuration.name] = add_splits(graph, configuration, first)
        _check_validation(graph, configuration)
        graph.texts[configuration.name] = add_texts(graph, configuration)
    check_truncation(graph)
    for name, owner in spec.owners.items():
        graph.sections[name] = resolved_sections(spec.named[name], lock, graph.shared)
        graph.splits[name] = graph.splits[owner]
    graph.replicates = {configuration.name: [] for configuration in spec.configurations}
    for seed, configurations in _replicates(spec):
        for configuration in configurations:
            replicate = add_adapter_nodes(graph, configuration, add_replicate(graph, configuration, seed))
            graph.replicates[configuration.name].append(replicate)
        # What a candidate shares with a configuration belongs to that one, which needs more of it.
        if seed is not None and seed in spec.tables.study.seeds:
            for name in spec.owners:
                graph.replicates.setdefault(name, []).append(add_candidate(graph, spec.named[name], seed))
    _add_repeats(graph, spec)
    for configuration in spec.configurations:  # untuned, on the same base: what else each is held against
        place = f"untuned/{configuration.name}"
        graph.before[configuration.name] = add_beside(graph, configuration, place, None, None)
    if spec.tables.profile.enabled:
        for configuration in spec.configurations:
            if not configuration.open:  # which of its candidates it is decides what there is to measure
                graph.profiles[configuration.name] = add_profile(graph, configuration)
    return graph


def _add_repeats(graph: Graph, spec: Spec) -> None:
    """Add the first seed of everything that is trained again, as often as the spec says, after all that is new."""
    for repeat in range(2, spec.tables.study.repeats + 1):
        for configuration in spec.configurations:
            if configuration.method != "none" and not configuration.open:
                again = add_repeat(graph, configuration, spec.tables.study.seeds[0], repeat)
                graph.repeats.setdefault(configuration.name, []).append(again)


def _check_validation(graph: Graph, configuration: Configuration) -> None:
    """Refuse to tune where there is nothing to choose on.

    :raises SpecError: at what is tuned
    """
    if configuration.tuned and "validation" not in graph.splits[configuration.name]:
        message = "is chosen on validation, and the data have no such split; name one in data.split"
        raise graph.spec.error(configuration.tuned.axes[0].where, message)


def _replicates(spec: Spec) -> Iterator[tuple[int | None, list[Configuration]]]:
    """Yield whole seeds, so that a study that is cut short still compares; a row that is exact comes once."""
    tables = spec.tables
    settled = [configuration for configuration in spec.configurations if not configuration.open]
    yield None, [configuration for configuration in settled if is_exact(configuration, tables)]
    for seed in tables.study.seeds:
        yield seed, [configuration for configuration in settled if not is_exact(configuration, tables)]
    for number, stage in enumerate(tables.stage):
        for seed in stage.seeds:
            yield seed, staged(number, tables, settled)
