"""The index in SQL: its tables and views, version by version (docs/state.md). Nothing heavy is imported."""

from functools import cache
from importlib.resources import files

SCHEMA_VERSION = 2
FIRST = "schema-1.sql"
SECOND = "schema-2.sql"  # what version 2 added; `results` is made again, because what was removed is no result any more
VIEWS = "views.sql"  # every column has a type by a CAST where it is computed: DuckDB takes one that has none for bytes

# What is no finite number has no word in JSON; SQLite before 3.42 refuses a text that has one.
_FIGURES = """CASE WHEN json_valid(s.figures) THEN s.figures WHEN json_valid(replace(replace(replace(
        s.figures, ': NaN', ': null'), ': -Infinity', ': null'), ': Infinity', ': null')) THEN replace(replace(replace(
        s.figures, ': NaN', ': null'), ': -Infinity', ': null'), ': Infinity', ': null') ELSE '{}' END"""


@cache
def _script(name: str) -> str:
    return (files("lorafile.state") / name).read_text(encoding="utf-8").replace("FIGURES", _FIGURES)


def statements(*scripts: str, temporary: bool = False) -> list[str]:
    """Return the statements of some scripts one by one.

    :param temporary: as what lasts as long as a connection, over the tables that are there
    """
    parts = "".join(map(_script, scripts)).split(";\n")
    texts = [part.strip() for part in parts if part.strip()]
    if not temporary:
        return texts
    return [text.replace("CREATE ", "CREATE TEMP ", 1) for text in texts if not text.startswith("DROP")]
