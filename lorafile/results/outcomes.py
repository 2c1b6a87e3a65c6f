"""What each run made of each held-out example, read from state on demand."""

from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.lock.lockfile import identity
from lorafile.results.results import OnDemand, OutcomeKey, RunDetail, RunKey, Sample
from lorafile.results.runs import Attempts, done, stored_rows
from lorafile.results.serving_rules import problems
from lorafile.specs import Configuration
from lorafile.state import State

if TYPE_CHECKING:
    import pandas as pd


_FILE = "outcomes.jsonl.gz"
SAMPLES = 3
_TEXTS = ("prompt", "reference", "answer")
_FIGURES = ("log_likelihood", "tokens")
SERVERS = ("vllm", "tgi")
_FILES = ("adapter_config.json", "adapter_model.safetensors")


def stored_outcomes(graph: Graph, results: Attempts, state: State) -> "Mapping[OutcomeKey, pd.DataFrame]":
    """Return the outcomes of every scored run: (configuration, seed, split) -> one row for each example."""
    files: dict[OutcomeKey, tuple[str, ...]] = {}
    clusters = {
        (name, split): done(results, key) for name, keys in graph.clusters.items() for split, key in keys.items()
    }
    for (name, seed), replicate in _replicates(graph).items():
        for split in ("validation", "test"):
            own = [key for (of_split, _), key in replicate.own.items() if of_split == split]
            keys = [key for key in (replicate.score.get(split), *own) if key in results]
            outputs = [results[key].outputs.get(_FILE) for key in keys if key]
            together = clusters.get((name, split))
            outputs += [together.outputs.get("clusters.jsonl.gz")] if together and outputs else []
            digests = tuple(digest for digest in outputs if digest is not None and state.objects.has(digest))
            if digests:
                files[name, seed, split] = digests

    @cache
    def read(digests: tuple[str, ...]) -> "pd.DataFrame":
        import pandas as pd

        first, *others = (pd.DataFrame(list(state.objects.rows(digest))) for digest in digests)
        for other in others:  # a metric file has a node of its own; clusters are of dropped rows, too
            first = first.merge(other, on="row", how="left", validate="one_to_one")
        return first

    return OnDemand(files, read)


def run_details(graph: Graph) -> dict[RunKey, RunDetail]:
    """Return the keys and settings of every run."""
    details = {}
    for run, replicate in _replicates(graph).items():
        profile = graph.profiles.get(run[0])
        keys = replicate.named | ({"profile": profile} if profile else {})
        details[run] = RunDetail(keys, graph.nodes[replicate.train or next(iter(replicate.predict.values()))].settings)
    return details


class StoredSamples(OnDemand):
    """What each run made of the first held-out examples: (configuration, seed) -> `Sample`."""

    def __init__(self, graph: Graph, results: Attempts, state: State) -> None:
        super().__init__({run: (run[0], replicate) for run, replicate in _replicates(graph).items()}, self._sample)
        self._graph, self._results, self._state = graph, results, state
        self._private = {c.name for c in graph.spec.configurations if c.data.private}
        self._examples: dict[str, list[dict[str, Any]]] = {}  # many runs predict the same split

    def _sample(self, run: tuple[str, Replicate]) -> Sample:
        name, replicate = run
        shown = _FIGURES if name in self._private else (*_TEXTS, *_FIGURES)
        for split in ("test", "validation"):
            merged = self._merged(replicate, split)
            if any("answer" in row or "log_likelihood" in row for row in merged):
                return Sample(split, [{name: row[name] for name in ("row", *shown) if name in row} for row in merged])
        return Sample("", [])

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
            self._examples[key] = list(islice(stored_rows(self._results.get(key), name, self._state), SAMPLES))
        return self._examples[key]


def _replicates(graph: Graph) -> dict[RunKey, Replicate]:
    names = [configuration.name for configuration in graph.spec.configurations]  # and not the candidates that lost
    return {(name, replicate.seed): replicate for name in names for replicate in graph.replicates[name]}


def serving_refusals(graph: Graph, results: Attempts, state: State) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Return (server, configuration) -> why the server would not take it; of all configurations that can be looked at.

    The base as it is, and a whole fine-tuned model, need no adapter, and are taken.
    """
    configurations = {c.name: c for c in graph.spec.configurations}
    adapters = {name: _first_stored(graph, c, results, state) for name, c in configurations.items()}

    def read(source: tuple[str, str]) -> tuple[str, ...]:
        server, name = source
        files = {file: str(state.objects.proven(digest)) for file, digest in (adapters[name] or {}).items()}
        base = graph.lock.models[identity(configurations[name].model)]
        return tuple(problems(server, files, base)) if files else ()

    stored = [(server, name) for server in SERVERS for name, digests in adapters.items() if digests is not None]
    return OnDemand({source: source for source in stored}, read)


def _first_stored(graph: Graph, c: Configuration, results: Attempts, state: State) -> dict[str, str] | None:
    """Return the digests of a finished adapter that the state still holds; no files where there is no adapter."""
    if c.method in ("none", "full"):
        return {}
    for replicate in graph.replicates[c.name]:
        if attempt := done(results, replicate.train):
            digests = {name: attempt.outputs.get(name, "") for name in _FILES}
            if all(digest and state.objects.has(digest) for digest in digests.values()):
                return digests
    return None
