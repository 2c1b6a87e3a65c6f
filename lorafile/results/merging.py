"""Merging: what it moved, and whether that passes the declared gate."""

from typing import Any

from lorafile.graph.graph import Replicate
from lorafile.results.runs import Attempts, done
from lorafile.specs import Configuration
from lorafile.specs.tables.settings import MergeTable

# What rounding may move: an ordinary merge moved at most 1.9 times as much as another batch, and one with a lora_alpha
# that is wrong by 10 % at least 3.9 times (docs/reporting.md).
ROUNDING = 3
_ENOUGH_MOVED = 20  # tokens that another batch moves: below that their mean says too little


def merge_rows(c: Configuration, replicate: Replicate, results: Attempts, table: MergeTable) -> list[dict[str, Any]]:
    """Return how the merged model differs at each type, and whether that passes the declared gate.

    Stored figures are compared with the gate here, so that another tolerance merges nothing again.
    """
    rows = []
    for dtype, key in replicate.merge.items():
        if attempt := done(results, key):
            failures = gate_failures(attempt.figures, table)
            about = {"configuration": c.name, "seed": replicate.seed, "dtype": dtype}
            rows.append({**about, **attempt.figures, "passes": not failures, "failures": failures})
    return rows


def gate_failures(figures: dict[str, Any], table: MergeTable) -> list[str]:
    """Return what of a gate a merged model fails, in words; nothing where it passes.

    In half precision the declared tolerances would be tolerances of rounding, so what another batch does to the same
    model takes their place.
    """
    if not figures["finite"]:
        return ["logits are not finite"]
    if (rounding := batch_rounding(figures)) is not None:
        mean = figures["mean_logit_difference"]
        return [] if mean <= ROUNDING * rounding else [_beyond_rounding(mean, rounding)]
    failures = []
    # A regression has neither: its logit is the number that it predicts.
    moved, agreed = abs(figures.get("log_loss_difference", 0.0)), figures.get("argmax_agreement", 1.0)
    if table.max_log_loss_difference is not None and moved > table.max_log_loss_difference:
        failures.append(
            f"the log loss changes by {moved:.3g}, more than {table.max_log_loss_difference:g} nats per token"
        )
    if table.min_argmax_agreement is not None and agreed < table.min_argmax_agreement:
        failures.append(f"the argmax agrees for {agreed:.2%} of tokens, fewer than {table.min_argmax_agreement:.2%}")
    largest = figures["max_logit_difference"]
    if table.max_logit_difference is not None and largest > table.max_logit_difference:
        failures.append(f"a logit differs by {largest:.3g}, more than {table.max_logit_difference:g}")
    return failures


def batch_rounding(figures: dict[str, Any]) -> float | None:
    """Return by how much another batch moves a logit of the attached model, on average where it moves any.

    None where that was not measured (the model computes in float32, or is merged in a coarser type than its own), or on
    too few tokens.
    """
    enough = figures.get("batch_moved_tokens", 0) >= _ENOUGH_MOVED
    return float(figures["batch_mean_logit_difference"]) if enough else None


def _beyond_rounding(mean: float, rounding: float) -> str:
    return (
        f"logits change by {mean:.3g} on average, {mean / rounding:.1f} times as much as from a different batch alone "
        f"({rounding:.3g}; up to {ROUNDING} times counts as rounding)"
    )
