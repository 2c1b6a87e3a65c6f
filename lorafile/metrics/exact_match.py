"""Exact match of greedy answers."""

from typing import Any


def exact_match(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the share of answers that equal the reference, surrounding white space aside; for each example 0 or 1."""
    each = [float(row["answer"].strip() == row["reference"].strip()) for row in rows]
    return sum(each) / len(each), each
