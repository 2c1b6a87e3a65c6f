"""The nodes of a study: every unit of work that it declares. One file for the nodes that belong together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lorafile.errors import ModelError
from lorafile.files.memo import remembered
from lorafile.graph.adapter_nodes import add_adapter_nodes, check_truncation
from lorafile.graph.builder import GraphBuilder, extended
from lorafile.graph.extra_evaluations import add_extra_evaluations, add_texts
from lorafile.graph.graph import Graph, GraphNode, Replicate
from lorafile.graph.initializers import INIT, init_functions, named_function
from lorafile.graph.metrics import own_metrics
from lorafile.graph.prepare import add_clusters, add_splits
from lorafile.graph.profile import add_profile
from lorafile.graph.replicates import add_candidate, add_repeat, add_replicate
from lorafile.graph.settings import resolved_sections
from lorafile.graph.starts import sources, started_sections
from lorafile.graph.trainers import trainer_programs
from lorafile.lock.lockfile import Lock
from lorafile.specs import Configuration, Spec
from lorafile.specs.sweeps.stages import is_deterministic, stage_configurations
from lorafile.specs.tables.train import PACKED_ROW_LENGTH
from lorafile.state import Acceptance

_MANY = 1000  # configurations; fewer are faster to build than to look up
_FILLED = ("nodes", "replicates", "repeats", "profiles", "splits", "sections", "texts", "clusters", "before")


def build(spec: Spec, lock: Lock, accepted: dict[str, Acceptance] | None = None) -> Graph:
    """Return every node of a study: examples first, then one whole seed after another, then what is measured alone.

    :param accepted: what state accepts in the place of others: `State.acceptances`
    """
    graph = _empty(spec, lock, accepted or {})
    if len(spec.configurations) < _MANY or not _follows_from_texts(graph):
        return _filled(graph)
    others = [sorted(lock.equal.items()), lock.as_written, sorted(graph.accepted.items())]
    source = "\n".join([repr(others), lock.text(), spec.text])
    return replace(graph, **remembered("graphs", source, lambda: _tables(graph)))


def _tables(graph: Graph) -> dict[str, Any]:
    filled = _filled(graph)
    return {name: getattr(filled, name) for name in _FILLED}


def _filled(graph: Graph) -> Graph:
    builder, spec = GraphBuilder(graph), graph.spec
    _add_data(builder, spec.configurations)
    check_truncation(graph)
    _add_candidate_data(builder, spec.owners)
    _add_nodes(builder, spec.configurations, spec.owners)
    return graph


def _follows_from_texts(graph: Graph) -> bool:
    """Return whether the spec, the lock and what state accepts tell everything: whether no other file is read."""
    evaluate = graph.spec.tables.evaluate
    read = [graph.own, graph.trainers, graph.initializers, evaluate.lm_eval_include_path]
    read += [evaluate.prompts and evaluate.prompts.path]
    read += [table.chat_template for table in {id(c.data): c.data for c in graph.spec.named.values()}.values()]
    return bool(graph.spec.text) and not any(read)


def _empty(spec: Spec, lock: Lock, accepted: dict[str, Acceptance]) -> Graph:
    return Graph(
        spec,
        lock,
        own=own_metrics(spec),
        trainers=trainer_programs(spec),
        initializers=init_functions(spec),
        accepted=accepted,
    )


def build_candidates(spec: Spec, lock: Lock, accepted: dict[str, Acceptance]) -> Graph:
    """Return the nodes of a study that decide which candidates are chosen, and nothing else."""
    tuned = {c.name: c.tuned for c in spec.configurations if c.tuned}
    owners = {candidate.name: name for name, about in tuned.items() for candidate in about.candidates}
    builder = GraphBuilder(_empty(spec, lock, accepted))
    started_from = sources(spec, (spec.named[name] for name in (*tuned, *owners)))
    _add_data(builder, [c for c in spec.configurations if c.name in tuned or c.name in started_from])
    _add_candidate_data(builder, owners)
    for seed in spec.tables.study.seeds:
        _add_candidates(builder, owners, seed)
    return builder.graph


def nodes_after_choice(graph: Graph, chosen: Sequence[Configuration]) -> list[GraphNode]:
    """Return the nodes that a study gets when candidates are chosen.

    :param chosen: the tuned configurations, each with the settings of a candidate
    """
    builder = extended(graph)
    _add_data(builder, chosen)
    _add_nodes(builder, chosen)
    return [node for key, node in builder.graph.nodes.items() if key not in graph.nodes]


def _add_data(builder: GraphBuilder, configurations: Iterable[Configuration]) -> None:
    """Resolve the settings of configurations, and add the `prepare` nodes that they read."""
    graph, spec = builder.graph, builder.spec
    for configuration in configurations:
        with spec.located():
            graph.sections[configuration.name] = _sections(builder, configuration)
        first = spec.tables.study.seeds[0] if configuration.shots else None
        with spec.located():
            graph.splits[configuration.name] = add_splits(builder, configuration, first)
            graph.clusters[configuration.name] = add_clusters(builder, configuration)
        _check_validation(graph, configuration)
        _check_packing(graph, configuration)
        graph.texts[configuration.name] = add_texts(builder, configuration)


def _sections(builder: GraphBuilder, configuration: Configuration) -> dict[str, Any]:
    """Return the resolved sections of a configuration; of a program that trains it, too."""
    sections = resolved_sections(configuration, builder.lock, builder.shared)
    source, function = builder.spec.start(configuration), named_function(configuration)
    if function is not None:  # in a key stands what it is, and not where
        sections["adapter"] = sections["adapter"] | {INIT: builder.graph.initializers[function].section}
    if source is not None:
        before = builder.once(("sections", source.name), lambda: _sections(builder, source))
        sections = started_sections(configuration, sections, source, before)
    if configuration.train is None or configuration.trainer is None:
        return sections
    program = builder.graph.trainers[configuration.train.trainer]
    name = ("trainer", program.name, configuration.trainer.as_text)
    return sections | {"trainer": builder.once(name, lambda: program.section(configuration))}


def _add_candidate_data(builder: GraphBuilder, owners: dict[str, str]) -> None:
    """Resolve the settings of candidates, which read what the configurations read that they are candidates of."""
    for name, owner in owners.items():
        with builder.spec.located():
            builder.graph.sections[name] = _sections(builder, builder.spec.named[name])
        builder.graph.splits[name] = builder.graph.splits[owner]


def _add_nodes(builder: GraphBuilder, configurations: Sequence[Configuration], owners: Iterable[str] = ()) -> None:
    """Add everything that is trained, predicted, scored and measured.

    :param owners: names of candidates, which are trained and judged as well
    """
    graph, spec = builder.graph, builder.spec
    graph.replicates.update((configuration.name, []) for configuration in configurations)
    for seed, seeded in _replicates(spec, configurations):
        for configuration in seeded:
            replicate = add_adapter_nodes(builder, configuration, add_replicate(builder, configuration, seed))
            graph.replicates[configuration.name].append(replicate)
        # What a candidate shares with a configuration belongs to that one, which needs more of it.
        if seed is not None and seed in spec.tables.study.seeds:
            _add_candidates(builder, owners, seed)
    _add_repeats(builder, configurations)
    for configuration in configurations:  # untuned, on the same base: what each is compared with
        place = f"untuned/{configuration.name}"
        graph.before[configuration.name] = add_extra_evaluations(builder, configuration, place, None, None)
    if spec.tables.profile.enabled:
        for configuration in configurations:
            if not configuration.open:  # which of its candidates it is decides what there is to measure
                graph.profiles[configuration.name] = add_profile(builder, configuration)


def _add_candidates(builder: GraphBuilder, names: Iterable[str], seed: int) -> None:
    for name in names:
        candidate = add_candidate(builder, builder.spec.named[name], seed)
        builder.graph.replicates.setdefault(name, []).append(candidate)


def _add_repeats(builder: GraphBuilder, configurations: Sequence[Configuration]) -> None:
    """Add the first seed of everything that is trained again, as often as the spec says, after all that is new."""
    study, repeats = builder.spec.tables.study, builder.graph.repeats
    for repeat in range(2, study.repeats + 1):
        for configuration in configurations:
            if configuration.method != "none" and not configuration.open:
                again = add_repeat(builder, configuration, study.seeds[0], repeat)
                repeats.setdefault(configuration.name, []).append(again)


def add_checkpoint(
    builder: GraphBuilder, configuration: Configuration, section: dict[str, Any], profile: bool
) -> Replicate:
    """Add what is predicted, scored and measured of a checkpoint; return their keys.

    :param section: `kind` and `digest` of the checkpoint; empty for a model that stands for itself
    """
    name = configuration.name
    builder.graph.sections[name] = resolved_sections(configuration, builder.lock) | (
        {"checkpoint": section} if section else {}
    )
    builder.graph.splits[name] = add_splits(builder, configuration)
    study = builder.spec.tables
    drawn = study.study.seeds[0] if study.evaluate.do_sample else None  # no seed changes what is not drawn
    replicate = add_replicate(builder, configuration, drawn)
    builder.graph.replicates[name] = [replicate]
    if profile and "train" in builder.graph.splits[name]:
        builder.graph.profiles[name] = add_profile(builder, configuration)
    return replicate


def _check_validation(graph: Graph, configuration: Configuration) -> None:
    """Refuse to tune where there is nothing to choose on.

    :raises SpecError: at what is tuned
    """
    if configuration.tuned and "validation" not in graph.splits[configuration.name]:
        message = "is chosen on validation, but the data have no validation split; define one in data.split"
        raise graph.spec.error(configuration.tuned.axes[0].path, message)


def _check_packing(graph: Graph, configuration: Configuration) -> None:
    """Refuse packed rows for what reads one example at a time.

    :raises SpecError: for a program, a classification head, and virtual tokens
    """
    if configuration.train is None:
        return
    packed = PACKED_ROW_LENGTH in graph.sections[configuration.name]["training"]
    blocks = graph.nodes[graph.splits[configuration.name]["train"]].settings["data"].get("packing")
    if configuration.trainer is not None and (packed or blocks):
        reason = f"[trainer.{configuration.train.trainer}] gets one example at a time"
    elif packed and configuration.model.task_type == "SEQ_CLS":
        reason = "a classification head reads one example of a row"
    elif packed and (configuration.adapter or {}).get("num_virtual_tokens"):
        reason = f"{configuration.method} puts its virtual tokens before a row, and not before each example"
    else:
        return
    with graph.spec.located():
        raise ModelError(f"data.packing: puts several examples into a row, but {reason}; set it to false")


def _replicates(
    spec: Spec, configurations: Sequence[Configuration]
) -> Iterator[tuple[int | None, list[Configuration]]]:
    """Yield whole seeds, so that a study that is cut short still compares; a row that is exact comes once."""
    tables = spec.tables
    settled = [configuration for configuration in configurations if not configuration.open]
    yield None, [configuration for configuration in settled if is_deterministic(configuration, tables)]
    for seed in tables.study.seeds:
        yield seed, [configuration for configuration in settled if not is_deterministic(configuration, tables)]
    for number, stage in enumerate(tables.stage):
        for seed in stage.seeds:
            yield seed, stage_configurations(number, tables, settled)
