"""Which servers take each configuration as it is, read from its stored adapter when somebody asks."""

from collections.abc import Iterator, Mapping

from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import identity
from lorafile.results.serving_rules import problems
from lorafile.specs import Configuration
from lorafile.state import Attempt, State

SERVERS = ("vllm", "tgi")
_FILES = ("adapter_config.json", "adapter_model.safetensors")


class StoredRefusals(Mapping[tuple[str, str], tuple[str, ...]]):
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
