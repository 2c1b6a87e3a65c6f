"""`match = "parameters"`: the rank at which a placement trains as many parameters as another one."""

from typing import Any

from lorafile.graph.parameter_count import adapter_parameters
from lorafile.lock.lockfile import ModelLock
from lorafile.specs.configurations import whole


def solved_rank(adapter: dict[str, Any], model: ModelLock, wanted: int) -> int:
    """Return the rank, at least 1, at which an adapter's parameters come nearest to a number; of two the smaller.

    They grow with the rank in steps of one size, so two points tell the line.
    """
    start, step = (adapter_parameters(adapter | {"r": rank}, model) for rank in (1, 2))
    step -= start
    if step <= 0:  # every module has a rank of its own by `rank_pattern`
        return int(adapter["r"])
    low = max(1, 1 + (wanted - start) // step)
    return min((low, low + 1), key=lambda rank: (abs(start + (rank - 1) * step - wanted), rank))


def matched(adapter: dict[str, Any], model: ModelLock, wanted: int, alpha_of_rank: float | None) -> dict[str, Any]:
    """Return an adapter's settings at its solved rank, with the alpha that follows it."""
    rank = solved_rank(adapter, model, wanted)
    alpha = adapter["lora_alpha"] if alpha_of_rank is None else whole(alpha_of_rank * rank)
    return adapter | {"r": rank, "lora_alpha": alpha}
