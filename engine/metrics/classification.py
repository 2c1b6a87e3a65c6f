"""Figures of chosen classes, with scikit-learn's definitions and names."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

Rows = list[dict[str, Any]]
Scored = tuple[float, list[float]]  # the figure, and what each example adds to it
Pairs = Counter[tuple[str, str]]  # (true class, chosen class) -> examples


def pseudo_values(figure: float, without: Iterable[float]) -> list[float]:
    """Return each example's jackknife pseudo-value, n · figure − (n − 1) · figure without it (Tukey, 1958).

    Their mean is the figure, up to its bias in 1/n, and the variance of that mean is the figure's: so that examples can
    be paired and compared as those of a plain mean are.

    :param without: the figure over all examples but one, for each of them; nothing where there is one example alone
    """
    rest = list(without)
    return [len(rest) * figure - (len(rest) - 1) * left for left in rest] or [figure]


def mean_of(each: list[float]) -> Scored:
    """Return the mean of what the examples have, and what each has."""
    return sum(each) / len(each), each


def accuracy(rows: Rows) -> Scored:
    """Return the share of examples whose class is chosen; for each example 0 or 1."""
    return mean_of(_hits(rows))


def f1(rows: Rows, average: str = "", pos_label: str = "") -> Scored:
    """Return the F1 score as `sklearn.metrics.f1_score` does; for each example whether its class is chosen.

    A class without true and without chosen examples counts nothing; one that is never both counts 0.

    :param average: `binary` (of `pos_label` alone), `macro`, `micro` or `weighted`; by default binary for two
        classes, as GLUE has it, and macro for more
    :param pos_label: the class that `binary` is about
    """
    return _f1(_pairs(rows), _averaged(rows, average, pos_label), pos_label), _hits(rows)


def f1_influence(rows: Rows, average: str = "", pos_label: str = "") -> list[float]:
    """Return each example's influence on the F1 score."""
    average = _averaged(rows, average, pos_label)
    return _influence(rows, lambda pairs: _f1(pairs, average, pos_label))


def _averaged(rows: Rows, average: str, pos_label: str) -> str:
    """Return how F1 averages where no setting says it: of the rows alone, so that leaving one out changes nothing."""
    return average or ("binary" if pos_label and len(rows[0]["scores"]) == 2 else "macro")


def _f1(pairs: Pairs, average: str, pos_label: str) -> float:
    true, chosen, hits = _counts(pairs)
    n = true.total()
    if average == "micro":
        return hits.total() / n
    by_class = {label: 2 * hits[label] / (true[label] + chosen[label]) for label in true | chosen}
    if average == "binary":
        return by_class.get(pos_label, 0.0)
    if average == "weighted":
        return sum(by_class[label] * true[label] for label in by_class) / n
    return sum(by_class.values()) / len(by_class)


def matthews_correlation(rows: Rows) -> Scored:
    """Return Matthews' correlation of chosen and true classes; for each example whether its class is chosen.

    For any number of classes, and 0 where it is not defined (one class alone), as `sklearn.metrics.matthews_corrcoef`;
    the formula is R_K of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
    coefficient".
    """
    return _matthews(_pairs(rows)), _hits(rows)


def matthews_influence(rows: Rows) -> list[float]:
    """Return each example's influence on Matthews' correlation."""
    return _influence(rows, _matthews)


def _matthews(pairs: Pairs) -> float:
    true, chosen, hits = _counts(pairs)
    n = true.total()
    covariance = hits.total() * n - sum(true[label] * chosen[label] for label in true)
    spread = (n * n - sum(k * k for k in true.values())) * (n * n - sum(k * k for k in chosen.values()))
    return covariance / math.sqrt(spread) if spread else 0.0


def choice_log_loss(rows: Rows) -> Scored:
    """Return the mean negative log probability of the true class, in nats; for each example its own.

    The probabilities are the softmax of the scores, as `sklearn.metrics.log_loss` reads a head's.
    """
    each = []
    for row in rows:
        highest = max(row["scores"].values())
        total = math.log(sum(math.exp(score - highest) for score in row["scores"].values()))
        each.append(highest + total - row["scores"][row["reference"]])
    return mean_of(each)


def _hits(rows: Rows) -> list[float]:
    return [float(row["answer"] == row["reference"]) for row in rows]


def _pairs(rows: Rows) -> Pairs:
    return Counter((row["reference"], row["answer"]) for row in rows)


def _influence(rows: Rows, figure: Callable[[Pairs], float]) -> list[float]:
    """Return each example's pseudo-value of a figure of the confusion counts: one for every pair of classes."""
    pairs = _pairs(rows)
    if len(rows) < 2:
        return pseudo_values(figure(pairs), [])
    without = {pair: figure(pairs - Counter([pair])) for pair in pairs}
    return pseudo_values(figure(pairs), [without[row["reference"], row["answer"]] for row in rows])


def _counts(pairs: Pairs) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return how often each class is true, is chosen, and is both."""
    true: Counter[str] = Counter()
    chosen: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for (reference, answer), examples in pairs.items():
        true[reference] += examples
        chosen[answer] += examples
        hits[reference] += examples if answer == reference else 0
    return true, chosen, hits
