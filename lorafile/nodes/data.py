"""`prepare` nodes: the rows of each split, as the configurations read them."""

from lorafile.datalock import DataLock
from lorafile.engine.columns import check_columns
from lorafile.engine.labels import HIDDEN, classes, hidden_labels
from lorafile.errors import NodeError
from lorafile.graph import Graph
from lorafile.lockfile import identity
from lorafile.nodes.metrics import check_metrics
from lorafile.sections import data_format, data_section
from lorafile.specs import Configuration
from lorafile.specs.data_settings import DataTable
from lorafile.splits import Rows, draw


def add_splits(graph: Graph, configuration: Configuration) -> dict[str, str]:
    """Add the splits of a configuration's data; return split -> key.

    :raises SpecError: when the data do not have what the spec asks of them
    """
    table = configuration.data
    lock = graph.lock.data[identity(table)]
    try:
        drawn = draw(table.split, table.split_seed, lock.rows)
    except ValueError as error:
        raise graph.spec.error(("data", "split"), str(error)) from error
    _check_classes(graph, table, lock, drawn)
    for split, rows in drawn.items():
        try:
            check_columns(data_section(configuration, lock, rows, split), lock.columns, table.path)
        except NodeError as error:
            raise graph.spec.error(("data", "template" if table.template else "format"), str(error)) from error
    check_metrics(graph, configuration, data_format(table, lock))
    profiled = graph.spec.tables.profile.enabled
    if "train" not in drawn and (profiled or configuration.method != "none"):
        raise graph.spec.error(("data", "split"), "says nothing of train, and something is to be trained or measured")
    if not {"validation", "test"} & drawn.keys():
        raise graph.spec.error(("data", "split"), "has no validation and no test split, so nothing could be compared")
    keys = {}
    for split, rows in drawn.items():
        if split == "train" and configuration.method == "none" and not profiled:
            continue
        sections = {
            "data": data_section(configuration, lock, rows, split),
            "tokenizer": _tokenizer(graph, configuration),
        }
        address = f"data/{split}:prepare"
        taken = any(node.address == address for node in graph.nodes.values())
        key = graph.add(
            "prepare",
            address if not taken else f"data/{split}/{configuration.name}:prepare",
            sections,
            {},
            configuration=configuration.name,
            split=split,
        )
        keys[split] = key
    return keys


def _check_classes(graph: Graph, table: DataTable, lock: DataLock, drawn: dict[str, Rows]) -> None:
    """Check that a classification has classes, and that no split that is used hides them."""
    if data_format(table, lock) != "classification":
        return
    if lock.label and not lock.labels:
        raise graph.spec.error(
            ("data", "columns"), f'the label column "{lock.label}" has too many values to be classes'
        )
    for split, rows in drawn.items():
        if HIDDEN in lock.labels.get(rows.source, []):
            raise graph.spec.error(("data", "split"), f"{split} draws from {rows.source}: {hidden_labels()}")
    try:
        classes(lock.classes(), table.labels)
    except NodeError as error:
        raise graph.spec.error(("data", "labels"), str(error)) from error


def _tokenizer(graph: Graph, configuration: Configuration) -> str:
    return graph.lock.models[identity(configuration.model)].tokenizer
