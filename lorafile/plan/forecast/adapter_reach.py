"""What an adapter touches of its model, as far as memory and time depend on it."""

from dataclasses import dataclass
from typing import Any

from lorafile.graph.target_modules import adapted_modules, of_pattern
from lorafile.lock.lockfile import ModelLock

_OF_THEIR_OWN = ("o_proj", "out_proj", "c_proj", "dense", "dense_4h_to_h", "down_proj", "fc2", "w2", "wo", "proj_out")
_BELOW = ("modules_to_save", "trainable_token_indices", "bias")  # what may be trained below the first adapted block
Adapter = dict[str, Any]


@dataclass(frozen=True)
class Reach:
    """The part of a model that an adapter reads and that gradients go through.

    :ivar modules: adapted linear layers
    :ivar inputs: their input features in all
    :ivar distinct: the same where layers that read one tensor (queries, keys and values) count once
    :ivar between: features between the two factors in all: the ranks
    :ivar blocks: those that gradients go through, from the first that has something to train to the last
    """

    modules: int
    inputs: int
    distinct: int
    between: int
    blocks: int


def reach(adapter: Adapter, model: ModelLock, layers: int) -> Reach:
    """Return what an adapter's section touches of a model with so many blocks."""
    if adapter["method"] == "none":
        return Reach(0, 0, 0, 0, 0)
    if adapter["method"] == "ln_tuning" or "target_modules" not in adapter:
        return Reach(0, 0, 0, 0, layers)
    adapted = adapted_modules(adapter, model.modules)
    read = {_tensor(module): model.modules[module][1] for module in adapted}
    rank, patterns = adapter.get("r") or adapter.get("init_r") or 1, adapter.get("rank_pattern", {})
    numbers = [next((int(part) for part in module.split(".") if part.isdigit()), layers) for module in adapted]
    first = 0 if any(adapter.get(name) not in (None, "none") for name in _BELOW) else min(numbers, default=layers)
    return Reach(
        modules=len(adapted),
        inputs=sum(model.modules[module][1] for module in adapted),
        distinct=sum(read.values()),
        between=sum(int(of_pattern(patterns, module, rank)) for module in adapted),
        blocks=layers - min(first, layers),
    )


def _tensor(module: str) -> tuple[str, str]:
    """Return what names the tensor that a layer reads: those of one parent read the same, but for the last ones."""
    parent, _, name = module.rpartition(".")
    return parent, name if name in _OF_THEIR_OWN else ""
