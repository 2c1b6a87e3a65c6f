"""`data.where`: which rows of a data set are read: a comparison of one column, or the values that columns may have."""

import json
import math
import re
from collections.abc import Callable
from operator import eq, ge, gt, le, lt, ne
from typing import Any

Condition = str | dict[str, list[Any]]
_COLUMN = r'(?P<column>"(?:[^"\\]|\\.)*"|[^\s"=!<>]+)'
_COMPARISON = re.compile(rf"\s*{_COLUMN}\s*(?P<operator>==|!=|<=|>=|<|>|\bin\b)\s*(?P<value>.+?)\s*")
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_EQUALITIES: dict[str, Callable[[Any, Any], bool]] = {"==": eq, "!=": ne}


def parse_where(condition: Condition) -> list[tuple[str, str, Any]]:
    """Return (column, operator, value) of each comparison that a row has to fulfil; nothing is evaluated.

    :raises ValueError: with what it should be, when it is none
    """
    if isinstance(condition, dict):
        if not condition:
            raise ValueError("columns with their allowed values, such as { label = [0, 1] }")
        for column, values in condition.items():
            if not values or not all(isinstance(value, str | int | float) for value in values):
                raise ValueError(f"a list of the allowed values of {column}, such as {{ {column} = [0, 1] }}")
        return [(column, "in", values) for column, values in condition.items()]
    match = _COMPARISON.fullmatch(condition)
    if match is None:
        raise ValueError('a comparison of one column (==, !=, <, <=, >, >=, in) such as "label >= 0"')
    try:
        column = json.loads(match["column"]) if match["column"].startswith('"') else match["column"]
        value = json.loads(match["value"])
    except ValueError:
        raise ValueError(f"a comparison with a number, a list or a text in quotes, not with {match['value']}") from None
    operator = match["operator"]
    if operator == "in":
        if not isinstance(value, list) or not value or any(isinstance(part, list | dict) for part in value):
            raise ValueError(f'a list after "in", such as "{column} in [0, 1]"')
    elif isinstance(value, list | dict):
        raise ValueError('"in" before a list, such as "label in [0, 1]"')
    elif operator in _ORDERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"a number after {operator}")
    return [(column, operator, value)]


def fulfils(row: dict[str, Any], comparisons: list[tuple[str, str, Any]]) -> bool:
    """Return whether a row is read. A missing value fulfils no comparison; 1, 1.0 and "1" are equal.

    :raises ValueError: when a word is to be larger or smaller than a number
    """
    for column, operator, value in comparisons:
        own = row.get(column)
        if own is None or own == "" or (isinstance(own, float) and math.isnan(own)):
            return False
        if operator in _ORDERS:
            if not _ORDERS[operator](_number(own, column), value):
                return False
        elif operator == "in":
            if _text(own) not in map(_text, value):
                return False
        elif not _EQUALITIES[operator](_text(own), _text(value)):
            return False
    return True


def _number(value: Any, column: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f'{column} is "{value}", which is not a number') from None


def _text(value: Any) -> str:
    """Return a value as text, equal for what a table and a JSON file call the same."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text.lower() if isinstance(value, bool) or text in ("True", "False") else text
    return str(int(number)) if number.is_integer() else repr(number)
