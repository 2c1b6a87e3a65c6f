"""The nodes of one checkpoint from outside: predicted, scored and measured, but not trained."""

from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.prepare import add_splits
from lorafile.graph.profile import add_profile
from lorafile.graph.replicates import add_replicate
from lorafile.graph.settings import resolved_sections
from lorafile.specs import Configuration


def add_checkpoint(graph: Graph, configuration: Configuration, section: dict[str, Any], profile: bool) -> Replicate:
    """Add what is predicted, scored and measured of a checkpoint; return their keys.

    :param section: `kind` and `digest` of the checkpoint; empty for a model that stands for itself
    """
    name = configuration.name
    graph.sections[name] = resolved_sections(configuration, graph.lock) | ({"checkpoint": section} if section else {})
    graph.splits[name] = add_splits(graph, configuration)
    study = graph.spec.tables
    drawn = study.study.seeds[0] if study.evaluate.do_sample else None  # no seed changes what is not drawn
    replicate = add_replicate(graph, configuration, drawn)
    graph.replicates[name] = [replicate]
    if profile and "train" in graph.splits[name]:
        graph.profiles[name] = add_profile(graph, configuration)
    return replicate
