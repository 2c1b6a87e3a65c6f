"""`lora state export`: tables for other tools, or a bundle of rows and objects for another state."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.files.atomic import make_directory, replace_file, write_text
from lorafile.state import State
from lorafile.state.integrity.rows_check import AttemptRow, IndexRows, damaged_rows, read_rows
from lorafile.state.names import Names, find_nodes, recorded_nodes
from lorafile.state.tables import SCHEMA_VERSION
from lorafile.state.transfer.bundle import Line, write_bundle

TABLES = ("runs", "metrics", "curves")
_JSON = ("settings", "figures")


@dataclass(frozen=True)
class BundleSummary:
    """What a bundle holds: `objects` and `bytes` of files, `absent` files that garbage collection took before."""

    file: Path
    nodes: int
    attempts: int
    objects: int
    bytes: int
    absent: int


def table_text(state: State, table: str, form: str) -> str:
    """Return a table as CSV or JSON; what is missing is empty, or null."""
    columns, rows = _table(state, table)
    if form == "json":
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        for row in objects:
            row.update({name: json.loads(row[name], parse_constant=lambda _: None) for name in _JSON if name in row})
        return json.dumps(objects, indent=1, allow_nan=False) + "\n"
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def write_tables(state: State, tables: tuple[str, ...], form: str, directory: Path) -> list[Path]:
    """Write tables into a directory, one file each, and return the files."""
    state.settle()
    make_directory(directory)
    files = {table: directory / f"{table}.{form}" for table in tables}
    for table, file in files.items():
        if form == "parquet":
            _write_parquet(state, table, file)
        else:
            write_text(file, table_text(state, table, form))
    return list(files.values())


def _write_parquet(state: State, table: str, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, rows = _table(state, table)
    arrays = {}
    for name, values in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True):
        column = list(values)
        if any(isinstance(value, float) for value in column):  # the index has whole numbers where it can
            column = [float(value) if isinstance(value, int) else value for value in column]
        arrays[name] = pa.array(column)
    with replace_file(file) as new:
        pq.write_table(pa.table(arrays), new)


def _table(state: State, table: str) -> tuple[list[str], list[Any]]:
    columns = [row[1] for row in state.rows(f"PRAGMA table_info({table})")]
    return columns, state.rows(f"SELECT * FROM {table}")  # noqa: S608


def export_bundle(state: State, wanted: tuple[str, ...], file: Path, names: Names | None = None) -> BundleSummary:
    """Write what some names mean, with all that it was made from, as a bundle; everything where none is given.

    :param names: what `wanted` is looked up in; without it, what every study of the state has
    :raises LoraError: when a name means nothing; StateError: when something of it is damaged
    """
    state.settle()
    rows = read_rows(state)
    keys = set(rows.nodes)
    if wanted:
        nodes = find_nodes(names or Names(state, recorded_nodes(state)), wanted)
        keys &= state.with_inputs(node.key for node in nodes)
    attempts = [row for number, row in sorted(rows.attempts.items()) if row.key in keys and number not in rows.removals]
    if not attempts:
        raise LoraError("There is nothing to export: no results match.")
    numbers = {row.id for row in attempts}
    if damaged_rows(rows)[2].keys() & numbers:
        raise LoraError("Some of these rows are damaged. `lora state verify --repair` repairs what it can.")
    digests = {digest: size for (number, _), (digest, size) in rows.outputs.items() if number in numbers}
    here = {digest: state.objects.fetch(digest) for digest in sorted(digests) if state.objects.has(digest)}
    about = {"schema": SCHEMA_VERSION, "nodes": len(keys), "attempts": len(attempts), "objects": len(here)}
    with replace_file(file) as new, new.open("wb") as out:
        total = write_bundle(out, index_lines(state, rows, keys, attempts), here.items(), about)
    return BundleSummary(file, len(keys), len(attempts), len(here), total, len(digests) - len(here))


def index_lines(state: State, rows: IndexRows, keys: set[str], attempts: list[AttemptRow]) -> Iterator[Line]:
    """Yield the rows of a bundle: what refers to something comes after it."""
    yield from attempt_lines(rows, keys, attempts)
    for declared in sorted(state.rows("SELECT study, address, key, kind FROM declarations")):
        if declared[2] in keys:
            yield Line("declarations", list(declared))
    for _, accepted in sorted(state.acceptances().items()):
        if accepted.old in keys:
            yield Line("acceptances", list(astuple(accepted)))


def attempt_lines(rows: IndexRows, keys: set[str], attempts: list[AttemptRow]) -> Iterator[Line]:
    """Yield attempts, after the environments and nodes that they are of."""
    for digest in sorted({row.environment for row in attempts}):
        yield Line("environments", [digest, rows.environments[digest]])
    for key in sorted(keys):
        yield Line("nodes", [key, *rows.nodes[key]])
    files = rows.files()
    for row in attempts:
        outputs, seal, forecast = sorted(files.get(row.id, [])), rows.seals.get(row.id), rows.forecasts.get(row.id)
        yield Line("attempts", {**row.__dict__, "outputs": outputs, "seal": seal, "forecast": forecast})
