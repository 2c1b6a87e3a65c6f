"""`prepare` nodes: the rows of each split, as the configurations read them."""

from lorafile.engine.templates import check_columns
from lorafile.errors import NodeError
from lorafile.graph import Graph
from lorafile.lockfile import identity
from lorafile.sections import data_format, data_section
from lorafile.specs import Configuration
from lorafile.splits import draw


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
    for split, rows in drawn.items():
        try:
            check_columns(data_section(configuration, lock, rows, split), lock.columns, table.path)
        except NodeError as error:
            raise graph.spec.error(("data", "template" if table.template else "format"), str(error)) from error
    if "exact_match" in graph.spec.tables.evaluate.metrics and data_format(table, lock) == "text":
        raise graph.spec.error(("evaluate", "metrics"), "exact_match needs answers; plain text has none")
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


def _tokenizer(graph: Graph, configuration: Configuration) -> str:
    return graph.lock.models[identity(configuration.model)].tokenizer
