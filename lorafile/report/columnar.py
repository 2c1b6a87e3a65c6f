"""Rows as columns, and text that repeats as numbers: what makes a page of a thousand runs small."""

from typing import Any

Packed = dict[str, Any]


def packed(rows: list[dict[str, Any]]) -> Packed:
    """Return rows that have the same keys as `{keys, columns}`.

    A column is a list, or `{of, at}`: its different texts, and for each row which one.
    """
    keys = list(rows[0]) if rows else []
    return {"keys": keys, "columns": [_column([row[key] for row in rows]) for key in keys]}


def packed_chart(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a chart with its data packed; a data set whose rows have different keys stays as it is."""
    datasets = {
        name: packed(rows) if len({tuple(row) for row in rows}) == 1 else rows
        for name, rows in spec.get("datasets", {}).items()
    }
    return spec | ({"datasets": datasets} if datasets else {})


def _column(values: list[Any]) -> list[Any] | dict[str, Any]:
    if not all(isinstance(value, str) for value in values):
        return values
    places = {value: at for at, value in enumerate(dict.fromkeys(values))}
    if 2 * len(places) > len(values):
        return values
    return {"of": list(places), "at": [places[value] for value in values]}
