"""What each run made of each held-out example, read from state when somebody asks."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lorafile.graph.graph import Graph, Replicate
from lorafile.results.results import OutcomeKey
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    import pandas as pd

_FILE = "outcomes.jsonl.gz"


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
