"""What a study was run on: its model, its data, its metrics."""

from typing import Any

from lorafile.engine.metrics.registry import OF_HEADS
from lorafile.graph.graph import Graph
from lorafile.graph.metrics import is_head
from lorafile.lock.lockfile import identity
from lorafile.plan.plan import Plan
from lorafile.results.results import OwnName
from lorafile.specs.tables.evaluate import metric_label


def data_of(plan: Plan) -> dict[str, Any]:
    """Return the data's path, format and template, and what each split came to."""
    spec = plan.graph.spec
    prepared = plan.graph.splits[spec.configurations[0].name]
    section = plan.graph.nodes[next(iter(prepared.values()))].settings["data"]
    splits = {}
    for split, key in prepared.items():
        splits[split] = plan.results[key].figures if key in plan.results else {}
    table = spec.tables.data
    return {
        "path": table.path,
        "format": section["format"],
        **({"template": section["template"]} if section.get("template") else {}),
        "max_length": table.max_length,
        **({"private": True} if table.private else {}),
        "splits": splits,
    }


def model_of(graph: Graph) -> dict[str, Any]:
    """Return the model's path, architecture, parameters, type and revision."""
    table = graph.spec.tables.model
    lock = graph.lock.models[identity(table)]
    architecture = (lock.settings.get("architectures") or [lock.settings.get("model_type", "unknown")])[0]
    return {
        "path": table.path,
        "architecture": architecture,
        "parameters": lock.parameters,
        "dtype": lock.dtype,
        "revision": lock.revision,
    }


def hides_answers(graph: Graph) -> bool:
    """Return whether there are prompts that no report shows: a tuned model's answers can hold what it was tuned on."""
    prompts = graph.spec.tables.evaluate.prompts
    if prompts is None or prompts.private is not None:
        return bool(prompts and prompts.private)
    return bool(graph.spec.tables.data.private)


def metrics_of(graph: Graph) -> dict[str, str]:
    """Return every metric by name; that of a metric file, and of a head's loss, knows its own unit and direction."""
    found = {}
    heads = all(map(is_head, graph.spec.configurations))
    for name in map(metric_label, graph.spec.tables.evaluate.metrics):
        own = graph.own.get(name) or (OF_HEADS.get(name) if heads else None)
        found[name] = OwnName(name, own.unit, own.more_is_better) if own else name
    return found
