"""Which finished results count for a study although its keys are others, because what differs cannot matter.

The files of a model may be new, and hold for training what older ones held: weights in other shards, an indented
tokenizer, another chat template, or another token that ends answers. Or settings that cannot matter were in a key.
"""

from dataclasses import replace

from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.graph.target_modules import NARROWING_OR_PATTERN
from lorafile.lock.lockfile import Lock
from lorafile.specs import Configuration, Spec
from lorafile.state import EQUAL_SETTINGS, Acceptance, State

_KEYED = ("train", "profile")  # kinds whose keys hold such settings themselves


def build_known(spec: Spec, lock: Lock, state: State) -> Graph:
    """Return the graph of a study with everything that state knows to be equivalent."""
    lock = replace(lock, equal=_equal(lock, state))
    graph = build(spec, lock, state.acceptances())
    former = _former(graph, state)
    return build(spec, lock, {**graph.accepted, **former}) if former else graph


def _former(graph: Graph, state: State) -> dict[str, Acceptance]:
    """Return key -> the finished result under the key that an earlier version gave it.

    Settings that cannot matter were in keys as they were written: `num_train_epochs` under `max_steps`, for example.
    """
    apart = {(id(c.train), id(c.adapter)): c for c in graph.spec.configurations}
    if not any(map(_may_have_idle, apart.values())):
        return {}
    written = build(graph.spec, replace(graph.lock, as_written=True), graph.accepted)
    keys = {node.address: node.key for node in written.nodes.values() if node.kind in _KEYED}
    moved = [node for node in graph.nodes.values() if keys.get(node.address, node.key) != node.key]
    finished = {node.key for kind in {node.kind for node in moved} for node, _ in state.finished(kind)}
    return {
        node.key: Acceptance(keys[node.address], node.key, node.kind, EQUAL_SETTINGS, "")
        for node in moved
        if keys[node.address] in finished and node.key not in finished
    }


def _may_have_idle(configuration: Configuration) -> bool:
    """Return whether a configuration writes out a setting that may not matter."""
    train, adapter = configuration.train, configuration.adapter or {}
    if train is not None and (train.written != train.results or train.results.get("loraplus_lr_ratio") == 1):
        return True
    return any(adapter.get(name) for name in NARROWING_OR_PATTERN)


def equal_model_lines(lock: Lock) -> list[str]:
    """Say of which models results are reused that were made from other files of the same content."""
    lines = []
    for name, model in lock.models.items():
        parts = [part for part in model.content if getattr(model, part) in lock.equal]
        if parts:
            files = f"Its {' and '.join(parts)} files are new, but their content for training is unchanged"
            lines.append(f"{name}: {files}; existing results are reused.")
    return lines


def _equal(lock: Lock, state: State) -> dict[str, str]:
    """Return digest of a model's files -> that of files of the same content, which results were trained on.

    What was trained on the very files of the lock counts first.
    """
    equal = {}
    for model in lock.models.values():
        for part, content in model.content.items():
            own = getattr(model, part)
            trained = state.trained_on(part, own, content)
            if trained is not None:
                equal[own] = trained
    return equal
