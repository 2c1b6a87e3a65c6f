"""Figures of chosen classes, with scikit-learn's definitions and names."""

import math
from collections import Counter
from typing import Any

Rows = list[dict[str, Any]]


def accuracy(rows: Rows) -> tuple[float, list[float]]:
    """Return the share of examples whose class is chosen; for each example 0 or 1."""
    each = _hits(rows)
    return sum(each) / len(each), each


def f1(rows: Rows, average: str = "", pos_label: str = "") -> tuple[float, list[float]]:
    """Return the F1 score as `sklearn.metrics.f1_score` does; for each example whether its class is chosen.

    A class without true and without chosen examples counts nothing; one that is never both counts 0.

    :param average: `binary` (of `pos_label` alone), `macro`, `micro` or `weighted`; by default binary for two
        classes, as GLUE has it, and macro for more
    :param pos_label: the class that `binary` is about
    """
    average = average or ("binary" if pos_label and len(rows[0]["scores"]) == 2 else "macro")
    each = _hits(rows)
    if average == "micro":
        return sum(each) / len(each), each
    true, chosen, hits = _counts(rows)
    by_class = {label: 2 * hits[label] / (true[label] + chosen[label]) for label in true | chosen}
    if average == "binary":
        return by_class.get(pos_label, 0.0), each
    if average == "weighted":
        return sum(by_class[label] * true[label] for label in by_class) / len(rows), each
    return sum(by_class.values()) / len(by_class), each


def matthews_correlation(rows: Rows) -> tuple[float, list[float]]:
    """Return Matthews' correlation of chosen and true classes; for each example whether its class is chosen.

    For any number of classes, and 0 where it is not defined (one class alone), as `sklearn.metrics.matthews_corrcoef`;
    the formula is R_K of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
    coefficient".
    """
    true, chosen, _ = _counts(rows)
    each, n = _hits(rows), len(rows)
    covariance = sum(each) * n - sum(true[label] * chosen[label] for label in true)
    spread = (n * n - sum(k * k for k in true.values())) * (n * n - sum(k * k for k in chosen.values()))
    return (covariance / math.sqrt(spread) if spread else 0.0), each


def choice_log_loss(rows: Rows) -> tuple[float, list[float]]:
    """Return the mean negative log probability of the true class, in nats; for each example its own.

    The probabilities are the softmax of the scores, as `sklearn.metrics.log_loss` reads a head's.
    """
    each = []
    for row in rows:
        highest = max(row["scores"].values())
        total = math.log(sum(math.exp(score - highest) for score in row["scores"].values()))
        each.append(highest + total - row["scores"][row["reference"]])
    return sum(each) / len(each), each


def _hits(rows: Rows) -> list[float]:
    return [float(row["answer"] == row["reference"]) for row in rows]


def _counts(rows: Rows) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return how often each class is true, is chosen, and is both."""
    return (
        Counter(row["reference"] for row in rows),
        Counter(row["answer"] for row in rows),
        Counter(row["answer"] for row in rows if row["answer"] == row["reference"]),
    )
