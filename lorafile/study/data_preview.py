"""A study's data as the model will see them: a few examples, how long all are, what repeats. Runs no model."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from lorafile.apply.work_groups import RequestBuilder
from lorafile.errors import LoraError
from lorafile.graph.build import build
from lorafile.graph.graph import Graph, GraphNode
from lorafile.lock.lockfile import read_lock, resolve
from lorafile.results.datacard import Digests, about, duplicates, leaks
from lorafile.specs import Configuration
from lorafile.specs.error_messages import suggestion
from lorafile.state import State
from lorafile.study.study import Study

FORMAT_VERSION = "1.0"
_MEASURED = 1000  # rows of a split whose tokens are counted, drawn evenly
_COMPARED = 50_000  # rows of a split that are compared with the others


@dataclass
class Look:
    """One configuration's data, ready to be looked at."""

    graph: Graph
    configuration: Configuration
    places: RequestBuilder
    tokenizer: Any

    def paths(self, node: GraphNode) -> dict[str, Any]:
        """Return where a node's model and data are."""
        return self.places.paths(node, self.configuration)


def look(study: Study, split: str = "train", rows: int = 3, configuration: str | None = None) -> dict[str, Any]:
    """Return what the model will see, as documented JSON.

    :param split: whose examples are shown; lengths and duplicates are of every split
    :param configuration: whose data; the first one's otherwise
    :raises LoraError: when there is no such split or configuration, and for data that cannot be prepared
    """
    from lorafile.engine.data.encode import load_tokenizer

    lock, _ = resolve(study.spec, read_lock(study.spec))
    state = State.read(study.state)
    graph = build(study.spec, lock, state.acceptances())
    chosen = _configuration(graph, configuration, split)
    places = RequestBuilder(graph, state)
    splits = {name: graph.nodes[key] for name, key in graph.splits[chosen.name].items()}
    if split not in splits:
        raise LoraError(f'--split: there is no "{split}" split; there are: {", ".join(splits)}.')
    paths = places.paths(splits[split], chosen)
    tokenizer = load_tokenizer(paths["model"], paths.get("trust_remote_code", False))
    seen = Look(graph, chosen, places, tokenizer)
    found = {name: _split(seen, node, rows if name == split else 0) for name, node in splits.items()}
    return {
        "format_version": FORMAT_VERSION,
        "study": graph.spec.name,
        "configuration": chosen.name,
        "data": about(graph, chosen) | {"format": splits[split].settings["data"]["format"]},
        "model": chosen.model.path,
        "splits": [one for one, _ in found.values()],
        "leaks": leaks({name: digests for name, (_, digests) in found.items()}),
    }


def _configuration(graph: Graph, name: str | None, split: str) -> Configuration:
    """Return the named configuration, or the first one that reads the split: an untuned one reads no train split."""
    known = {one.name: one for one in graph.spec.configurations}
    if name is None:
        reading = [one for one in graph.spec.configurations if split in graph.splits[one.name]]
        return (reading or graph.spec.configurations)[0]
    if name not in known:
        raise LoraError(f'--configuration: there is no "{name}"{suggestion(name, known) or "; see: lora plan"}')
    return known[name]


def _split(seen: Look, node: GraphNode, rows: int) -> tuple[dict[str, Any], Digests]:
    """Return one split's figures and its first examples, and the digests of all its rows."""
    from lorafile.engine.data.examples import digests, examples, shown_rows, split_rows, written

    data, paths = node.settings["data"], seen.paths(node)
    files = [Path(file) for file in paths["data"]]
    everything = split_rows(data["rows"], files, data.get("sample_by", "auto"))
    shown = shown_rows(data, [Path(file) for file in paths.get("shots", [])])
    compared = [digests(example.text) for _, example in written(seen.tokenizer, data, evenly(everything, _COMPARED))]
    measured = list(examples(seen.tokenizer, data, evenly(everything, _MEASURED), shown))
    first = list(examples(seen.tokenizer, data, everything[:rows], shown))[:rows] if rows else []
    lengths = [len(one.encoded.input_ids) for one in measured]
    if not lengths:
        raise LoraError(f"The {node.split} split of {seen.graph.spec.file} has no example to show.")
    exact, normal = duplicates(compared)
    supervised = sum(sum(one.encoded.supervised) for one in measured)
    figures = {
        "split": node.split,
        "rows": len(everything),
        "measured": len(evenly(everything, _MEASURED)),
        "tokens": {
            "count": len(lengths),
            "mean": mean(lengths),
            "median": median(lengths),
            "p95": percentile(lengths, 95),
        }
        | {"max": max(lengths), "total": round(sum(lengths) * len(everything) / len(evenly(everything, _MEASURED)))},
        "supervised_fraction": supervised / sum(lengths),
        "max_length": data["max_length"],
        "too_long": sum(length > data["max_length"] for length in lengths),
        "compared": len(compared),
        "duplicates": {"exact": exact, "normalised": normal},
        "examples": [example_of(seen.tokenizer, one, data["max_length"]) for one in first],
    }
    return figures, compared


def evenly(rows: list[Any], most: int) -> list[Any]:
    """Return at most so many rows, at equal distances."""
    return rows if len(rows) <= most else [rows[number * len(rows) // most] for number in range(most)]


def percentile(values: list[int], share: int) -> int:
    """Return the smallest value that at least so many percent of the values do not exceed (nearest rank)."""
    return sorted(values)[max(-(-len(values) * share // 100), 1) - 1]


def example_of(tokenizer: Any, one: Any, limit: int) -> dict[str, Any]:
    """Return one example as decoded tokens, special ones among them: parts of text, supervised or not."""
    ids, marks = one.encoded.input_ids, one.encoded.supervised
    parts: list[dict[str, Any]] = []
    before, start = "", 0
    for at in range(1, len(ids) + 1):
        if at < len(ids) and marks[at] == marks[start] and at != limit:
            continue
        through = str(tokenizer.decode(ids[:at], skip_special_tokens=False))
        alone = str(tokenizer.decode(ids[start:at], skip_special_tokens=False))
        text = through[len(before) :] if through.startswith(before) else alone
        parts.append({"text": text, "supervised": bool(marks[start]), "cut": start >= limit})
        before, start = through, at
    return {"row": one.row, "tokens": len(ids), "supervised": sum(marks), "parts": parts}
