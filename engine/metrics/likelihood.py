"""Figures from the likelihood of each held-out example; all weight every supervised token, or byte, alike."""

import math
from typing import Any


def log_loss(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the mean negative log likelihood of a supervised token, in nats; for each example its own mean."""
    total = -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)
    return total, [-row["log_likelihood"] / max(row["tokens"], 1) for row in rows]


def perplexity(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return exp of the log loss (infinite where that is past a float); for each example its log loss."""
    loss, each = log_loss(rows)
    return (math.exp(loss) if loss < 700 else math.inf), each


def bits_per_byte(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the bits that the model needs for a byte of the supervised text (UTF-8); for each example its own.

    Total nats over ln 2 and total bytes: it compares models whose tokenizers differ (The Pile, Gao et al. 2020, 3.1).
    The end token's nats count, although it has no byte.
    """
    total = -sum(row["log_likelihood"] for row in rows) / (math.log(2) * sum(row["bytes"] for row in rows))
    return total, [-row["log_likelihood"] / (math.log(2) * max(row["bytes"], 1)) for row in rows]


def token_accuracy(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the share of supervised tokens that the model ranks first; for each example its own share."""
    total = sum(row["correct"] for row in rows) / sum(row["tokens"] for row in rows)
    return total, [row["correct"] / max(row["tokens"], 1) for row in rows]
