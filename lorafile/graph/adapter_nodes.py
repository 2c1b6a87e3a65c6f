"""`inspect`, `truncate` and `merge` nodes: what is done with a finished adapter. None exists unless it is declared."""

from typing import Any

from lorafile.graph.builder import GraphBuilder, Owner
from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.replicates import add_predictions
from lorafile.graph.settings import bare_sections, largest_rank
from lorafile.specs import Configuration
from lorafile.specs.tables.methods import METHODS

UNMERGEABLE = ("none", "full", *(name for name, method in METHODS.items() if not method.merges))


def add_adapter_nodes(builder: GraphBuilder, configuration: Configuration, replicate: Replicate) -> Replicate:
    """Add what the spec declares for a trained replicate; return it with the keys of these nodes."""
    if replicate.train is None:
        return replicate
    tables = builder.spec.tables
    added: dict[str, Any] = {}
    if tables.inspect is not None:
        section = {"inspection": tables.inspect.model_dump()}
        added["inspect"] = _add(builder, configuration, replicate, "inspect", section)
    if tables.truncate is not None:
        ranks = truncated_ranks(builder.graph, configuration)
        added["truncated"] = {rank: _truncated(builder, configuration, replicate, rank) for rank in ranks}
    if tables.merge is not None and configuration.method not in UNMERGEABLE:
        examples = {"examples": tables.merge.examples}
        added["merge"] = {
            dtype: _add(builder, configuration, replicate, f"merge/{dtype}", {"merging": {"dtype": dtype, **examples}})
            for dtype in tables.merge.dtypes
        }
    return replicate._replace(**added) if added else replicate


def truncated_ranks(graph: Graph, configuration: Configuration) -> list[int]:
    """Return the declared ranks that are smaller than a configuration's own; none where BA is not its whole update."""
    adapter = graph.sections[configuration.name]["adapter"]
    table = graph.spec.tables.truncate
    if table is None or adapter["method"] != "lora" or adapter.get("use_dora") or adapter.get("use_bdlora"):
        return []
    return sorted({rank for rank in table.ranks if rank < largest_rank(adapter)}, reverse=True)


def check_truncation(graph: Graph) -> None:
    """Refuse a truncation that would truncate nothing.

    :raises SpecError: at `truncate.ranks`
    """
    spec = graph.spec
    if spec.tables.truncate is None or any(truncated_ranks(graph, c) for c in spec.configurations):
        return
    message = "no configuration has a larger rank; ranks must be below lora.r of a LoRA without use_dora"
    raise spec.error(("truncate", "ranks"), message)


def _truncated(builder: GraphBuilder, configuration: Configuration, replicate: Replicate, rank: int) -> Replicate:
    """Add an adapter cut to a rank, and what it predicts and scores; a replicate without a training of its own."""
    base = f"{configuration.name}/seed={replicate.seed}/truncate={rank}"
    inputs, owner = {"adapter": replicate.train or ""}, Owner(configuration.name, replicate.seed)
    key = builder.add("truncate", f"{base}:truncate", {"truncation": {"rank": rank}}, inputs, owner)
    return add_predictions(builder, configuration, base, replicate.seed, key)


def _add(
    builder: GraphBuilder, configuration: Configuration, replicate: Replicate, name: str, section: dict[str, Any]
) -> str:
    """Add a node that reads an adapter, its base, and held-out examples; its name begins with its kind."""
    sections, splits = builder.graph.sections[configuration.name], builder.graph.splits[configuration.name]
    split = "validation" if "validation" in splits else "test"
    settings = {**bare_sections(sections), **section}
    inputs = {"adapter": replicate.train or "", "data": splits[split]}
    address = f"{configuration.name}/seed={replicate.seed}:{name}"
    return builder.add(
        name.partition("/")[0], address, settings, inputs, Owner(configuration.name, replicate.seed, split)
    )
