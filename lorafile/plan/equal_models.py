"""Which results count for a model whose files are new, and hold for training what older ones held.

That is so of weights in other shards, an indented tokenizer, another chat template, or another token that ends answers.
"""

from dataclasses import replace

from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import Lock
from lorafile.specs import Spec
from lorafile.state import State


def build_known(spec: Spec, lock: Lock, state: State) -> Graph:
    """Return the graph of a study with everything that state knows to be equivalent."""
    return build(spec, replace(lock, equal=_equal(lock, state)), state.acceptances())


def equal_model_lines(lock: Lock) -> list[str]:
    """Say of which models results are reused that were made from other files of the same content."""
    lines = []
    for name, model in lock.models.items():
        parts = [part for part in model.content if getattr(model, part) in lock.equal]
        if parts:
            files = f"Its {' and '.join(parts)} files are new, and hold for training what older ones held"
            lines.append(f"{name}: {files}; what was trained on those is reused.")
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
