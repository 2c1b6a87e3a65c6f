"""Whether a base computes each row of a batch by itself, so that adapters can share its forward pass."""

from typing import Any

import torch

from lorafile.engine.batching.blocks import Blocks
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.randomness import drawn_from
from lorafile.engine.stacking.compatible import Alone


def check_apart(model: Any, tokens: Tokens | Blocks) -> None:
    """Check that rows of other adapters would change nothing of a row.

    :raises Alone: when the base draws at random while it trains, or looks at the longest row of a batch
    """
    if _draws(model):
        raise Alone("the base has a dropout of its own, which would be drawn for all adapters at once")
    limit = _scaled_beyond(model)
    if limit is not None and max(tokens.lengths()) > limit:
        raise Alone(f"above {limit} tokens the base computes its positions by the longest row of a batch")


def _draws(model: Any) -> bool:
    """Return whether a forward pass in training draws from the global generators."""
    device = model.get_input_embeddings().weight.device
    ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
    with drawn_from(0, "probe"), torch.no_grad():
        before = _states(device)
        try:
            model.train()
            model(input_ids=ids, use_cache=False)
        finally:
            model.eval()
        return any(not torch.equal(*pair) for pair in zip(before, _states(device), strict=True))


def _states(device: torch.device) -> list[torch.Tensor]:
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _scaled_beyond(model: Any) -> int | None:
    """Return up to how many tokens positions are computed alike, where they depend on the batch's longest row."""
    found: list[int] = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        kinds = list(kinds.values()) if isinstance(kinds, dict) else [kinds]
        if any(isinstance(kind, str) and ("dynamic" in kind or kind == "longrope") for kind in kinds):
            scaling = getattr(module.config, "rope_parameters", None) or {}
            tables = [scaling, *(table for table in scaling.values() if isinstance(table, dict))]
            found.append(int(module.original_max_seq_len))
            found += [
                int(t["original_max_position_embeddings"]) for t in tables if "original_max_position_embeddings" in t
            ]
    return min(found, default=None)
