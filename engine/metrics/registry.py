"""The list of metrics: pure functions of stored predictions. No torch.

A metric is added by a function and one line here; its version is raised when its figures can change. Those of
likelihoods are here, where all weight every supervised token, or byte, alike. A user's own metric is a Python file that
the spec names (`custom.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from lorafile.engine.metrics.answers import corpus_influence, corpus_score, exact_match, rouge, squad_exact, squad_f1
from lorafile.engine.metrics.classification import Rows as Rows
from lorafile.engine.metrics.classification import (
    Scored,
    accuracy,
    choice_log_loss,
    f1,
    f1_influence,
    matthews_correlation,
    matthews_influence,
)
from lorafile.engine.metrics.regression import mse, pearson, pearson_influence, spearman, spearman_influence

Needs = Literal["likelihood", "generation", "choice", "regression"]


@dataclass(frozen=True)
class Metric:
    """A figure of one split's predictions.

    :ivar needs: which predictions it reads: `likelihood`, `generation`, `choice` or `regression`
    :ivar compute: predictions, and the metric's own settings -> (the figure, and what each example adds to it)
    :ivar pooled: how the figure comes from the examples' outcomes: their `mean`; their `weighted` mean, by the field of
        the rows that `weight` names; or over the `corpus`, so that no mean of outcomes gives it
    :ivar influence: of a `corpus` figure, whose examples nothing else weighs: predictions and the metric's settings ->
        each example's jackknife pseudo-value (`pseudo_values`), whose mean is about the figure
    :ivar library: the module that computes it, where that is not in the core
    """

    needs: Needs
    unit: str
    more_is_better: bool
    compute: Callable[..., Scored]
    pooled: Literal["mean", "weighted", "corpus"] = "mean"
    weight: str = ""
    influence: Callable[..., list[float]] | None = None
    library: str = ""
    version: int = 1


def log_loss(rows: Rows) -> Scored:
    """Return the mean negative log likelihood of a supervised token, in nats; for each example its own mean."""
    total = -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)
    return total, [-row["log_likelihood"] / max(row["tokens"], 1) for row in rows]


def perplexity(rows: Rows) -> Scored:
    """Return exp of the log loss (infinite where that is past a float); for each example its log loss."""
    loss, each = log_loss(rows)
    return (math.exp(loss) if loss < 700 else math.inf), each


def bits_per_byte(rows: Rows) -> Scored:
    """Return the bits that the model needs for a byte of the supervised text (UTF-8); for each example its own.

    Total nats over ln 2 and total bytes: it compares models whose tokenizers differ (The Pile, Gao et al. 2020, 3.1).
    The end token's nats count, although it has no byte.
    """
    total = -sum(row["log_likelihood"] for row in rows) / (math.log(2) * sum(row["bytes"] for row in rows))
    return total, [-row["log_likelihood"] / (math.log(2) * max(row["bytes"], 1)) for row in rows]


def token_accuracy(rows: Rows) -> Scored:
    """Return the share of supervised tokens that the model ranks first; for each example its own share."""
    total = sum(row["correct"] for row in rows) / sum(row["tokens"] for row in rows)
    return total, [row["correct"] / max(row["tokens"], 1) for row in rows]


_F1_UNIT = "share, the harmonic mean of precision and recall"
_CORRELATION = "correlation, −1 to 1"
_ROUGE_UNIT = "share, F-measure of n-gram overlap"


def _corpus(name: str) -> Metric:
    functions: Any = {"compute": partial(corpus_score, name=name), "influence": partial(corpus_influence, name=name)}
    return Metric("generation", "points of 100", True, pooled="corpus", library="sacrebleu", version=2, **functions)


METRICS = {
    "log_loss": Metric("likelihood", "nats per token", False, log_loss, "weighted", "tokens"),
    "perplexity": Metric("likelihood", "", False, perplexity, "corpus", "tokens"),
    "bits_per_byte": Metric("likelihood", "bits per byte", False, bits_per_byte, "weighted", "bytes"),
    "token_accuracy": Metric("likelihood", "share of tokens", True, token_accuracy, "weighted", "tokens"),
    "exact_match": Metric("generation", "share of examples", True, exact_match),
    "accuracy": Metric("choice", "share of examples", True, accuracy),
    "f1": Metric("choice", _F1_UNIT, True, f1, "corpus", influence=f1_influence, version=2),
    "matthews_correlation": Metric(
        "choice", _CORRELATION, True, matthews_correlation, "corpus", influence=matthews_influence, version=2
    ),
    "pearson": Metric("regression", _CORRELATION, True, pearson, "corpus", influence=pearson_influence),
    "spearman": Metric("regression", _CORRELATION, True, spearman, "corpus", influence=spearman_influence),
    "mse": Metric("regression", "squared units of the label", False, mse),
    "squad_exact": Metric("generation", "share of examples", True, squad_exact),
    "squad_f1": Metric("generation", "share, the mean F1 of answers' words", True, squad_f1),
    "bleu": _corpus("bleu"),
    "chrf": _corpus("chrf"),
    **{
        name: Metric("generation", _ROUGE_UNIT, True, partial(rouge, name=name), library="rouge_score")
        for name in ("rouge1", "rouge2", "rougeL")
    },
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


class CustomMetricName(str):
    """The name of a metric that has a unit and a direction of its own: a user's file, or a head's log loss."""

    unit: str
    more_is_better: bool

    def __new__(cls, name: str, unit: str, more_is_better: bool) -> "CustomMetricName":
        """Return the name as text, with what else is known of the metric."""
        made = super().__new__(cls, name)
        made.unit, made.more_is_better = unit, more_is_better
        return made


def unit_of(metric: str) -> str:
    """Return a metric's unit: `nats per token`, `share of examples`, or nothing."""
    return metric.unit if isinstance(metric, CustomMetricName) else METRICS[metric].unit


def range_of(metric: str) -> tuple[float, float]:
    """Return the least and the largest value that a metric can have; infinite where nothing says so."""
    unit = unit_of(metric)
    if unit.startswith("share"):
        return 0.0, 1.0
    if unit == "points of 100":
        return 0.0, 100.0
    if unit == _CORRELATION:
        return -1.0, 1.0
    return (0.0 if metric in METRICS else -math.inf), math.inf


def more_is_better(metric: str) -> bool:
    """Return whether more of a metric is better."""
    return metric.more_is_better if isinstance(metric, CustomMetricName) else METRICS[metric].more_is_better
