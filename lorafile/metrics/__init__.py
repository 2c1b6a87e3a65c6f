"""Metrics: pure functions of stored predictions, one file for each family. No torch.

A metric is added by a function and one line here. Its version is raised when its figures can change. A user's own
metric is a Python file that the spec names (`own.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lorafile.metrics.classification import accuracy, choice_log_loss, f1, matthews_correlation
from lorafile.metrics.exact_match import exact_match
from lorafile.metrics.likelihood import bits_per_byte, log_loss, perplexity, token_accuracy
from lorafile.metrics.rouge import rouge1, rouge2, rouge_l
from lorafile.metrics.squad import squad_exact, squad_f1
from lorafile.metrics.translation import bleu, chrf

Rows = list[dict[str, Any]]
Needs = Literal["likelihood", "generation", "choice"]


@dataclass(frozen=True)
class Metric:
    """A figure of one split's predictions.

    :ivar needs: which predictions it reads: `likelihood`, `generation` or `choice`
    :ivar compute: predictions, and the metric's own settings -> (the figure, and what each example adds to it)
    :ivar pooled: how the figure comes from the examples' outcomes: their `mean`; their `weighted` mean, by the field of
        the rows that `weight` names; or over the `corpus`, so that no mean of outcomes gives it
    :ivar library: the module that computes it, where that is not in the core
    """

    needs: Needs
    unit: str
    more_is_better: bool
    compute: Callable[..., tuple[float, list[float]]]
    pooled: Literal["mean", "weighted", "corpus"] = "mean"
    weight: str = ""
    library: str = ""
    version: int = 1


_F1_UNIT = "share, the harmonic mean of precision and recall"
_ROUGE: dict[str, Any] = {
    "unit": "share, F-measure of n-gram overlap",
    "more_is_better": True,
    "library": "rouge_score",
}
METRICS = {
    "log_loss": Metric("likelihood", "nats per token", False, log_loss, "weighted", "tokens"),
    "perplexity": Metric("likelihood", "", False, perplexity, "corpus", "tokens"),
    "bits_per_byte": Metric("likelihood", "bits per byte", False, bits_per_byte, "weighted", "bytes"),
    "token_accuracy": Metric("likelihood", "share of tokens", True, token_accuracy, "weighted", "tokens"),
    "exact_match": Metric("generation", "share of examples", True, exact_match),
    "accuracy": Metric("choice", "share of examples", True, accuracy),
    "f1": Metric("choice", _F1_UNIT, True, f1, "corpus"),
    "matthews_correlation": Metric("choice", "correlation, −1 to 1", True, matthews_correlation, "corpus"),
    "squad_exact": Metric("generation", "share of examples", True, squad_exact),
    "squad_f1": Metric("generation", "share, the mean F1 of answers' words", True, squad_f1),
    "bleu": Metric("generation", "points of 100", True, bleu, "corpus", library="sacrebleu"),
    "chrf": Metric("generation", "points of 100", True, chrf, "corpus", library="sacrebleu"),
    "rouge1": Metric("generation", compute=rouge1, **_ROUGE),
    "rouge2": Metric("generation", compute=rouge2, **_ROUGE),
    "rougeL": Metric("generation", compute=rouge_l, **_ROUGE),
}
# What a metric is on a classification head, which has no tokens to predict.
OF_HEADS = {"log_loss": Metric("choice", "nats per example", False, choice_log_loss)}


def built_in(name: str, head: bool = False) -> Metric:
    """Return a metric that ships.

    :param head: whether the model is a classification head (`model.task_type = "SEQ_CLS"`)
    """
    return OF_HEADS.get(name, METRICS[name]) if head else METRICS[name]
