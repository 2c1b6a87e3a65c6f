"""What stands behind each run's figures: keys, resolved settings, and a sample of predictions, read when asked for."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.results.results import RunDetail, RunKey, Sample
from lorafile.state import Attempt, State

SAMPLES = 3
_TEXTS = ("prompt", "reference", "answer")
_FIGURES = ("log_likelihood", "tokens")


def run_details(graph: Graph) -> dict[RunKey, RunDetail]:
    """Return the keys and settings of every run."""
    found = {}
    for run, replicate in _replicates(graph).items():
        profile = graph.profiles.get(run[0])
        keys = replicate.named | ({"profile": profile} if profile else {})
        found[run] = RunDetail(keys, graph.nodes[replicate.train or next(iter(replicate.predict.values()))].settings)
    return found


class StoredSamples(Mapping[RunKey, Sample]):
    """What each run made of the first held-out examples."""

    def __init__(self, graph: Graph, results: dict[str, Attempt], state: State) -> None:
        self._graph, self._results, self._state = graph, results, state
        self._replicates = _replicates(graph)
        self._private = {c.name for c in graph.spec.configurations if c.data.private}
        self._examples: dict[str, list[dict[str, Any]]] = {}  # many runs predict the same split

    def __getitem__(self, run: RunKey) -> Sample:
        replicate = self._replicates[run]
        shown = _FIGURES if run[0] in self._private else (*_TEXTS, *_FIGURES)
        for split in ("test", "validation"):
            merged = self._merged(replicate, split)
            if any("answer" in row or "log_likelihood" in row for row in merged):
                return Sample(split, [{name: row[name] for name in ("row", *shown) if name in row} for row in merged])
        return Sample("", [])

    def __iter__(self) -> Iterator[RunKey]:
        return iter(self._replicates)

    def __len__(self) -> int:
        return len(self._replicates)

    def _merged(self, replicate: Replicate, split: str) -> list[dict[str, Any]]:
        """Return a split's first examples, each with all that was predicted of it."""
        merged: dict[int, dict[str, Any]] = {}
        for (of_split, _), key in replicate.predict.items():
            if of_split == split:
                prepared = self._graph.nodes[key].inputs["data"]
                for row in [*self._first(prepared, "examples.jsonl.gz"), *self._first(key, "predictions.jsonl.gz")]:
                    merged.setdefault(row["row"], {}).update(row)
        return list(merged.values())[:SAMPLES]

    def _first(self, key: str, name: str) -> list[dict[str, Any]]:
        if key not in self._examples:
            attempt = self._results.get(key)
            digest = attempt.outputs.get(name) if attempt is not None else None
            there = digest is not None and self._state.objects.has(digest)
            rows = self._state.objects.rows(digest) if digest is not None and there else iter(())
            self._examples[key] = list(islice(rows, SAMPLES))
        return self._examples[key]


def _replicates(graph: Graph) -> dict[RunKey, Replicate]:
    names = [configuration.name for configuration in graph.spec.configurations]  # and not the candidates that lost
    return {(name, one.seed): one for name in names for one in graph.replicates[name]}
