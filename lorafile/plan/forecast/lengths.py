"""How many tokens the rows of a split have before they are prepared: a guess from their characters."""

from functools import lru_cache
from itertools import islice
from math import ceil
from pathlib import Path
from typing import NamedTuple

from lorafile.engine.data.blocks import best_fit
from lorafile.engine.data.hub import cached_snapshot
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.sources import find_data, find_model
from lorafile.engine.token_counts import count_tokens
from lorafile.errors import LoraError
from lorafile.graph.graph import Graph, GraphNode
from lorafile.lock.data import DataLock, split_files
from lorafile.lock.lockfile import identity, is_on_hub

_CHARACTERS = 4.0  # of a token of English
_SAMPLE = 100  # rows from which characters for each token are known
_MOST_PACKED = 2000  # texts that are packed for a guess


class PackedText(NamedTuple):
    """The blocks that the texts of a split fill, and the tokens in all of them."""

    blocks: int
    tokens: float


def source_of(graph: Graph, prepare: GraphNode) -> tuple[DataLock, str]:
    """Return the lock of the data that a node reads, and the split of the data that its rows are from."""
    table = graph.spec.data(graph.spec.named[prepare.configuration], prepare.split)
    lock, digest = graph.lock.data[identity(table)], prepare.settings["data"]["digest"]
    return lock, next((split for split, own in lock.digests.items() if own == digest), "")


def characters_per_token(graph: Graph, prepare: GraphNode) -> float:
    """Return how many characters of the first rows the model's tokenizer makes one token of; else 4."""
    configuration = graph.spec.named[prepare.configuration]
    table, model = graph.spec.data(configuration, prepare.split), configuration.model
    lock, source = source_of(graph, prepare)
    base = graph.spec.file.parent
    on_hub = [is_on_hub(path, base) for path in (model.path, table.path)]
    try:  # nothing is downloaded for an estimate
        directory = cached_snapshot(model.path, "model") if on_hub[0] else find_model(model.path, None, base)
        place = cached_snapshot(table.path, "dataset") if on_hub[1] else find_data(table.path, None, base)
        if directory is None or place is None:
            return _CHARACTERS
        files = split_files(place, table, lock)
        rows = tuple(islice(read_rows(files.get(source, []), table.sample_by), _SAMPLE))
    except LoraError:  # a lock is enough for a plan
        return _CHARACTERS
    return _ratio(directory / "tokenizer.json", tuple(map(lock.text, rows)))


@lru_cache(maxsize=64)
def _ratio(tokenizer: Path, texts: tuple[str, ...]) -> float:
    tokens = count_tokens(tokenizer, texts) if tokenizer.is_file() else 0
    return sum(map(len, texts)) / tokens if tokens else _CHARACTERS


def packed_text(graph: Graph, prepare: GraphNode) -> PackedText | None:
    """Return about what `prepare` makes of the texts of a split; None where the lock says nothing of their lengths.

    Texts of the lengths that the lock knows are cut into pieces and packed as `prepare` does it with all of them.
    """
    data, (lock, source) = prepare.settings["data"], source_of(graph, prepare)
    rows, limit = int(data["rows"]["stop"]) - int(data["rows"]["start"]), int(data["max_length"])
    lengths, ratio = lock.percentiles.get(source), characters_per_token(graph, prepare)
    if not lengths or not rows:
        return None
    number = min(rows, _MOST_PACKED)
    places = [(len(lengths) - 1) * (at + 0.5) / number for at in range(number)]
    between = [(lengths[int(at)], lengths[ceil(at)], at - int(at)) for at in places]
    sizes = [ceil((low + part * (high - low)) / ratio) + 1 for low, high, part in between]  # one ends the text
    full = [max(size - 2, 0) // (limit - 1) for size in sizes]  # pieces that fill a block, before a text's last one
    last = [size - count * (limit - 1) for size, count in zip(sizes, full, strict=True)]
    blocks, tokens = sum(full) + max(best_fit(last, limit)) + 1, sum(full) * limit + sum(last)
    return PackedText(round(blocks * rows / number), tokens * rows / number)
