"""Metrics: pure functions of stored predictions, one file for each. No torch.

A metric is added by one file and one line here. Its version is raised when its figures can change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorafile.metrics.exact_match import exact_match
from lorafile.metrics.likelihood import log_loss, perplexity, token_accuracy

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """A figure of one split's predictions.

    :ivar needs: which predictions it reads: `likelihood` or `generation`
    :ivar compute: predictions -> (the figure, and what each example adds to it, for paired comparisons)
    """

    needs: str
    unit: str
    more_is_better: bool
    compute: Callable[[Rows], tuple[float, list[float]]]
    version: int = 1


METRICS = {
    "log_loss": Metric("likelihood", "nats per token", False, log_loss),
    "perplexity": Metric("likelihood", "", False, perplexity),
    "token_accuracy": Metric("likelihood", "share of tokens", True, token_accuracy),
    "exact_match": Metric("generation", "share of examples", True, exact_match),
}
