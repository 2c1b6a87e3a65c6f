"""A second column of answers, next to the one that a format reads, and whether the two agree. Imports no torch."""

import math
import re
from typing import Any

from lorafile.engine.data.columns import read_columns

FIELDS = {"alpaca": "output", "completion": "completion", "question": "answer"}  # format -> its field of answers
_NAMES = ("answer", "final_answer", "correct_answer", "gold_answer", "ans", "gold", "target")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def second_answer(form: str, columns: dict[str, str], names: list[str]) -> tuple[str, str] | None:
    """Return the column that is read as the answer, and one that is called so and is not read; or None.

    :param columns: `data.columns`; `names`: the data's own
    """
    field = FIELDS.get(form)
    if field is None:
        return None
    read = read_columns(form, "", columns, names)
    second = next((name for name in names if name.lower() in _NAMES and name not in read), None)
    return None if second is None else (columns.get(field, field), second)


def agree(text: Any, answer: Any) -> bool | None:
    """Return whether an answer stands in a text, as a word, a number or a phrase; None where one of them is missing."""
    said, short = ("" if value is None else str(value).strip().casefold() for value in (text, answer))
    if not said or not short:
        return None
    if _NUMBER.fullmatch(short):
        return any(math.isclose(_value(number), _value(short), rel_tol=1e-6) for number in _NUMBER.findall(said))
    return short in re.findall(r"\w+", said) if re.fullmatch(r"\w+", short) else short in said


def _value(number: str) -> float:
    return float(number.replace(",", ""))
