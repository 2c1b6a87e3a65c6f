"""What each run made of each held-out example, read from state when somebody asks."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.lock.lockfile import identity
from lorafile.results.results import OutcomeKey, RunDetail, RunKey, Sample
from lorafile.results.serving_rules import problems
from lorafile.specs import Configuration
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    import pandas as pd


_FILE = "outcomes.jsonl.gz"
SAMPLES = 3
_TEXTS = ("prompt", "reference", "answer")
_FIGURES = ("log_likelihood", "tokens")
SERVERS = ("vllm", "tgi")
_FILES = ("adapter_config.json", "adapter_model.safetensors")


class StoredOutcomes(Mapping[OutcomeKey, "pd.DataFrame"]):
    """The outcomes of every scored run: (configuration, seed, split) -> one row for each example."""

    def __init__(self, graph: Graph, results: dict[str, Attempt], state: State) -> None:
        self._state = state
        self._files: dict[OutcomeKey, list[str]] = {}
        self._read: dict[OutcomeKey, pd.DataFrame] = {}
        for configuration in (one.name for one in graph.spec.configurations):
            for replicate in graph.replicates[configuration]:
                for split in ("validation", "test"):
                    found = [results[key].outputs.get(_FILE) for key in _scores(replicate, split) if key in results]
                    here = [digest for digest in found if digest is not None and state.objects.has(digest)]
                    if here:
                        self._files[configuration, replicate.seed, split] = here

    def __getitem__(self, key: OutcomeKey) -> "pd.DataFrame":
        import pandas as pd

        if key not in self._read:
            frames = [pd.DataFrame(list(self._state.objects.rows(digest))) for digest in self._files[key]]
            first, *others = frames
            for other in others:  # a metric file has a node of its own
                first = first.merge(other, on="row", validate="one_to_one")
            self._read[key] = first
        return self._read[key]

    def __iter__(self) -> Iterator[OutcomeKey]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _scores(replicate: Replicate, split: str) -> list[str]:
    """Return the keys of the nodes that scored a split."""
    own = [key for (of_split, _), key in replicate.own.items() if of_split == split]
    return ([replicate.score[split]] if split in replicate.score else []) + own


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


class ServingRefusals(Mapping[tuple[str, str], tuple[str, ...]]):
    """(server, configuration) -> why the server would not take it; of every configuration that can be looked at.

    The base as it is, and a whole fine-tuned model, need no adapter, and are taken.
    """

    def __init__(self, graph: Graph, results: dict[str, Attempt], state: State) -> None:
        self._graph, self._state = graph, state
        self._outputs: dict[str, dict[str, str] | None] = {}
        self._configurations = {c.name: c for c in graph.spec.configurations}
        for c in graph.spec.configurations:
            if c.method in ("none", "full"):
                self._outputs[c.name] = None
            elif stored := self._first_stored(c, results):
                self._outputs[c.name] = stored

    def _first_stored(self, c: Configuration, results: dict[str, Attempt]) -> dict[str, str] | None:
        """Return the digests of a finished adapter that the state still holds."""
        for replicate in self._graph.replicates[c.name]:
            attempt = results.get(replicate.train or "")
            if attempt is not None and attempt.outcome == "done":
                digests = {name: attempt.outputs.get(name, "") for name in _FILES}
                if all(digest and self._state.objects.has(digest) for digest in digests.values()):
                    return digests
        return None

    def __getitem__(self, key: tuple[str, str]) -> tuple[str, ...]:
        server, name = key
        if server not in SERVERS:
            raise KeyError(key)
        digests = self._outputs[name]
        if digests is None:
            return ()
        files = {file: str(self._state.objects.proven(digest)) for file, digest in digests.items()}
        base = self._graph.lock.models[identity(self._configurations[name].model)]
        return tuple(problems(server, files, base))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((server, name) for server in SERVERS for name in self._outputs)

    def __len__(self) -> int:
        return len(SERVERS) * len(self._outputs)
