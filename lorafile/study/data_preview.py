"""A study's data as the model will see them: a few examples, how long all are, what repeats. Runs no model."""

from statistics import mean, median
from typing import Any

from lorafile.apply.work_groups import RequestBuilder
from lorafile.errors import ArgumentError, LoraError
from lorafile.graph.graph import Graph, GraphNode
from lorafile.graph.notices import data_notices
from lorafile.lock.lockfile import read_lock, resolve
from lorafile.plan.equal_models import build_known
from lorafile.results.datacard import Digests, about, duplicates, leaks
from lorafile.specs import Configuration
from lorafile.specs.error_messages import suggestion
from lorafile.state import State
from lorafile.study.study import Study

FORMAT_VERSION = "1.0"
_MEASURED = 1000  # rows of a split whose tokens are counted, drawn evenly
_COMPARED = 50_000  # rows of a split that are compared with the others


def preview(study: Study, split: str = "train", rows: int = 3, configuration: str | None = None) -> dict[str, Any]:
    """Return what the model will see, as documented JSON.

    :param split: whose examples are shown; lengths and duplicates are of every split
    :param configuration: whose data; the first one's otherwise
    :raises LoraError: when there is no such split or configuration, and for data that cannot be prepared
    """
    from lorafile.engine.data.encode import load_tokenizer

    lock, _ = resolve(study.spec, read_lock(study.spec))
    state = State.read(study.state)
    graph = build_known(study.spec, lock, state)
    chosen = _configuration(graph, configuration, split)
    requests = RequestBuilder(graph, state)
    splits = {name: graph.nodes[key] for name, key in graph.splits[chosen.name].items()}
    if split not in splits:
        raise ArgumentError("split", f'there is no "{split}" split; available: {", ".join(splits)}.')
    paths = {name: requests.paths(node, chosen) for name, node in splits.items()}
    tokenizer = load_tokenizer(paths[split]["model"], paths[split].get("trust_remote_code", False))
    figures: dict[str, dict[str, Any]] = {}
    compared: dict[str, Digests] = {}
    for name, node in splits.items():
        figures[name], compared[name] = _split(tokenizer, node, paths[name], rows if name == split else 0)
        if not figures[name]:
            column = node.settings["data"]["rows"].get("cluster")
            why = f', because rows with the same "{column}" stay together (data.cluster)' if column else ""
            raise LoraError(f"The {name} split of {study.spec.file} has no example to show{why}.")
    return {
        "format_version": FORMAT_VERSION,
        "study": graph.spec.name,
        "configuration": chosen.name,
        "data": about(graph, chosen) | {"format": splits[split].settings["data"]["format"]},
        "model": chosen.model.path,
        "splits": list(figures.values()),
        "leaks": leaks(compared),
        "notices": data_notices(graph),
    }


def _configuration(graph: Graph, name: str | None, split: str) -> Configuration:
    """Return the named configuration, or the first one that reads the split: an untuned one reads no train split."""
    if name is None:
        reading = [c for c in graph.spec.configurations if split in graph.splits[c.name]]
        return (reading or graph.spec.configurations)[0]
    by_name = {c.name: c for c in graph.spec.configurations}
    if name not in by_name:
        raise ArgumentError("configuration", f'there is no "{name}"{suggestion(name, by_name) or "; see: lora plan"}')
    return by_name[name]


def _split(tokenizer: Any, node: GraphNode, paths: dict[str, Any], rows: int) -> tuple[dict[str, Any], Digests]:
    """Return one split's figures and its first examples, none of an empty split, and the digests of its rows."""
    from lorafile.engine.data.encode import is_encoder_at
    from lorafile.engine.data.examples import Limits, digests, examples, shown_rows, split_rows, written
    from lorafile.engine.data.files import data_file

    data = node.settings["data"]
    encoder = data.get("task_type") == "SEQ_CLS" and is_encoder_at(paths["model"])
    files = [data_file(file) for file in paths["data"]]
    everything = split_rows(data["rows"], files, data.get("sample_by", "auto"))
    shown = shown_rows(data, [data_file(file) for file in paths.get("shots", [])])
    compared = [digests(example.text) for _, example in written(tokenizer, data, evenly(everything, _COMPARED))]
    sample = evenly(everything, _MEASURED)
    measured = list(examples(tokenizer, data, sample, shown, encoder))
    first = list(examples(tokenizer, data, everything[:rows], shown, encoder))[:rows] if rows else []
    lengths = [len(example.encoded.input_ids) for example in measured]
    if not lengths:
        return {}, compared
    exact, normal = duplicates(compared)
    supervised = sum(sum(example.encoded.supervised) for example in measured)
    limits = Limits.of(data, paths["model"], tokenizer, encoder)
    too_long = [example for example in measured if limits.excess(example)]
    cut = data["too_long"] == "truncate"
    plain = not encoder and data["format"] != "text"
    classified = data.get("task_type") == "SEQ_CLS"  # the loss is of a label, and of no token
    figures = {
        "split": node.split,
        "rows": len(everything),
        "measured": len(sample),
        "tokens": {
            "count": len(lengths),
            "mean": mean(lengths),
            "median": median(lengths),
            "p95": percentile(lengths, 95),
            "max": max(lengths),
            "total": round(sum(lengths) * len(everything) / len(sample)),
        },
        "supervised_fraction": None if classified else supervised / sum(lengths),
        "max_length": data["max_length"],
        "too_long": len(too_long),
        "answers_lost": sum(limits.fit(tokenizer, example, encoder) is None for example in too_long) if cut else 0,
        "empty_answers": sum(example.is_empty for example in measured) if plain else 0,
        "compared": len(compared),
        "duplicates": {"exact": exact, "normalised": normal},
        "examples": [
            example_of(tokenizer, example, limits, encoder)
            | ({"label": example.example.reference} if classified else {})
            for example in first
        ],
    }
    return figures, compared


def evenly(rows: list[Any], most: int) -> list[Any]:
    """Return at most so many rows, at equal distances."""
    return rows if len(rows) <= most else [rows[number * len(rows) // most] for number in range(most)]


def percentile(values: list[int], share: int) -> int:
    """Return the smallest value that at least so many percent of the values do not exceed (nearest rank)."""
    return sorted(values)[max(-(-len(values) * share // 100), 1) - 1]


def example_of(tokenizer: Any, example: Any, limits: Any, encoder: bool) -> dict[str, Any]:
    """Return one example as decoded tokens, special ones among them: parts of text, supervised, cut off, or neither."""
    ids, marks = example.encoded.input_ids, example.encoded.supervised
    limit = example.shots + limits.own
    left_out = limits.excess(example) and limits.fit(tokenizer, example, encoder) is None
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
    count = {"tokens": len(ids), "cut": max(len(ids) - limit, 0), "supervised": sum(marks[:limit])}
    return {"row": example.row, **count, "left_out": bool(left_out), "parts": parts}
