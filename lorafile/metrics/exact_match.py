"""Exact match of answers: the whole text, its last number, or what a regular expression takes out of it."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

LAST_NUMBER = "last-number"
_MARK = "####"  # what stands before the result in GSM8K's answers
# A minus after a word or a bracket is a difference, not a sign.
_NUMBER = re.compile(r"((?<![\w)])-)?[$€£]?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(\.\d+)?")


def exact_match(rows: list[dict[str, Any]], extract: str = "") -> tuple[float, list[float]]:
    """Return the share of answers that equal the reference, surrounding white space aside; for each example 0 or 1.

    :param extract: `last-number`, or a regular expression whose group is compared instead of the whole text. An answer
        that holds no such thing is wrong; a reference that holds none is taken whole.
    """
    if not extract:
        each = [float(row["answer"].strip() == row["reference"].strip()) for row in rows]
    else:
        found = last_number if extract == LAST_NUMBER else _group(extract)
        each = [float(_same(found, row)) for row in rows]
    return sum(each) / len(each), each


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, after the last `####` where there is one: $1,000.00 is 1000, 1.0 is 1."""
    matches = [match for match in _NUMBER.finditer(text.rpartition(_MARK)[2]) if match[2] or match[3]]
    if not matches:
        return None
    sign, whole, rest = matches[-1].groups(default="")
    return Decimal(f"{sign}{whole.replace(',', '') or '0'}{rest}")


def _same(found: Callable[[str], Decimal | str | None], row: dict[str, Any]) -> bool:
    answer, reference = found(row["answer"]), found(row["reference"])
    return answer is not None and answer == (row["reference"].strip() if reference is None else reference)


def _group(pattern: str) -> Callable[[str], str | None]:
    """Return the function from a text to the group of the first match, without white space around."""
    compiled = re.compile(pattern)

    def group(text: str) -> str | None:
        match = compiled.search(text)
        return None if match is None else (match[1] or "").strip()

    return group
