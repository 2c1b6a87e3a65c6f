"""Metrics: pure functions of stored predictions, one file for each family. No torch.

A metric is added by a function and one line here. Its version is raised when its figures can change. A user's own
metric is a Python file that the spec names (`own.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lorafile.engine.metrics.classification import (
    accuracy,
    choice_log_loss,
    f1,
    f1_influence,
    matthews_correlation,
    matthews_influence,
)
from lorafile.engine.metrics.exact_match import exact_match
from lorafile.engine.metrics.likelihood import bits_per_byte, log_loss, perplexity, token_accuracy
from lorafile.engine.metrics.rouge import rouge1, rouge2, rouge_l
from lorafile.engine.metrics.squad import squad_exact, squad_f1
from lorafile.engine.metrics.translation import bleu, bleu_influence, chrf, chrf_influence

Rows = list[dict[str, Any]]
Needs = Literal["likelihood", "generation", "choice"]


@dataclass(frozen=True)
class Metric:
    """A figure of one split's predictions.

    :ivar needs: which predictions it reads: `likelihood`, `generation` or `choice`
    :ivar compute: predictions, and the metric's own settings -> (the figure, and what each example adds to it)
    :ivar pooled: how the figure comes from the examples' outcomes: their `mean`; their `weighted` mean, by the field of
        the rows that `weight` names; or over the `corpus`, so that no mean of outcomes gives it
    :ivar influence: of a `corpus` figure, whose examples nothing else weighs: predictions and the metric's settings ->
        each example's jackknife pseudo-value (`jackknife.py`), whose mean is about the figure
    :ivar library: the module that computes it, where that is not in the core
    """

    needs: Needs
    unit: str
    more_is_better: bool
    compute: Callable[..., tuple[float, list[float]]]
    pooled: Literal["mean", "weighted", "corpus"] = "mean"
    weight: str = ""
    influence: Callable[..., list[float]] | None = None
    library: str = ""
    version: int = 1


_F1_UNIT = "share, the harmonic mean of precision and recall"
_ROUGE: dict[str, Any] = {
    "unit": "share, F-measure of n-gram overlap",
    "more_is_better": True,
    "library": "rouge_score",
}
_OF_CORPORA: dict[str, Any] = {
    "unit": "points of 100",
    "more_is_better": True,
    "pooled": "corpus",
    "library": "sacrebleu",
    "version": 2,
}
METRICS = {
    "log_loss": Metric("likelihood", "nats per token", False, log_loss, "weighted", "tokens"),
    "perplexity": Metric("likelihood", "", False, perplexity, "corpus", "tokens"),
    "bits_per_byte": Metric("likelihood", "bits per byte", False, bits_per_byte, "weighted", "bytes"),
    "token_accuracy": Metric("likelihood", "share of tokens", True, token_accuracy, "weighted", "tokens"),
    "exact_match": Metric("generation", "share of examples", True, exact_match),
    "accuracy": Metric("choice", "share of examples", True, accuracy),
    "f1": Metric("choice", _F1_UNIT, True, f1, "corpus", influence=f1_influence, version=2),
    "matthews_correlation": Metric(
        "choice", "correlation, −1 to 1", True, matthews_correlation, "corpus", influence=matthews_influence, version=2
    ),
    "squad_exact": Metric("generation", "share of examples", True, squad_exact),
    "squad_f1": Metric("generation", "share, the mean F1 of answers' words", True, squad_f1),
    "bleu": Metric("generation", compute=bleu, influence=bleu_influence, **_OF_CORPORA),
    "chrf": Metric("generation", compute=chrf, influence=chrf_influence, **_OF_CORPORA),
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


def influence_of(metric: str) -> str:
    """Return the name under which stored outcomes hold each example's influence on a `corpus` figure."""
    return f"{metric}.influence"
