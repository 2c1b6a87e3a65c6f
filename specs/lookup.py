"""What is known of a setting by its path: its type, default and description."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lorafile.specs.tables.settings import SpecTables


def table_at(path: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the table at a path of a spec, `()` being the spec itself; None where none of fixed names stands."""
    if not path:
        return SpecTables
    known = field_at(path)
    return None if known is None else _table_of(known.annotation)


def field_at(path: tuple[str | int, ...]) -> FieldInfo | None:
    """Return what is known of a setting: `("data", "split", "train")`, `("analysis", 0, "kind")`."""
    names = [part for part in path if isinstance(part, str)]
    table: type[BaseModel] | None = SpecTables
    known, named = None, False
    for name in names:
        if named:  # the user's own name of a table among tables, such as a budget's
            named = False
            continue
        known = table.model_fields.get(name) if table else None
        table = _table_of(known.annotation) if known else None
        named = known is not None and get_origin(known.annotation) is dict and table is not None
    return known


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that a type is, holds in a list, or allows beside other kinds of value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for part in get_args(annotation) if (table := _table_of(part))), None)
