"""Exact match of answers: the whole text, its last number, or what a regular expression takes out of it."""

import re
from decimal import Decimal
from typing import Any

from lorafile.errors import NodeError
from lorafile.specs.bounded_regex import matches

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
        texts = [row[part] for row in rows for part in ("answer", "reference")]
        taken = [last_number(text) for text in texts] if extract == LAST_NUMBER else _groups(extract, texts)
        answers, references = taken[::2], taken[1::2]
        each = [float(_same(*one)) for one in zip(answers, references, rows, strict=True)]
    return sum(each) / len(each), each


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, after the last `####` where there is one: $1,000.00 is 1000, 1.0 is 1."""
    matches = [match for match in _NUMBER.finditer(text.rpartition(_MARK)[2]) if match[2] or match[3]]
    if not matches:
        return None
    sign, whole, rest = matches[-1].groups(default="")
    return Decimal(f"{sign}{whole.replace(',', '') or '0'}{rest}")


def _same(answer: Decimal | str | None, reference: Decimal | str | None, row: dict[str, Any]) -> bool:
    return answer is not None and answer == (row["reference"].strip() if reference is None else reference)


def _groups(pattern: str, texts: list[str]) -> list[Decimal | str | None]:
    """Return the group of the first match in each text, without white space around.

    :raises NodeError: when the pattern takes too long
    """
    try:
        return [None if group is None else group.strip() for group in matches(pattern, tuple(texts), "search")]
    except ValueError as error:
        raise NodeError(f"evaluate.extract {error}.") from error
