"""Declared repeats: what came of the same thing done again, and whether it is the same to the byte."""

from typing import Any

from lorafile.graph.graph import Graph
from lorafile.results.runs import run_row
from lorafile.state import Attempt

_WEIGHTS = ".safetensors"


def repeat_rows(graph: Graph, results: dict[str, Attempt], history: dict[str, list[Attempt]]) -> list[dict[str, Any]]:
    """Return a row for each declared repeat of a configuration's first seed."""
    found = []
    for configuration in graph.spec.configurations:
        for again in graph.repeats.get(configuration.name, []):
            first = next(one for one in graph.replicates[configuration.name] if one.seed == again.seed)
            row = run_row(configuration, again, results, history) | {"repeat": again.repeat}
            row["same_weights"] = _same([(again.train or "", first.train or "")], results, _WEIGHTS)
            predictions = [(key, first.predict[output]) for output, key in again.predict.items()]
            found.append(row | {"same_predictions": _same(predictions, results, "")})
    return found


def _same(pairs: list[tuple[str, str]], results: dict[str, Attempt], suffix: str) -> bool | None:
    """Return whether pairs of nodes left the same bytes; None where one has not left any.

    :param suffix: of the files that are looked at
    """
    found = [[_digests(results.get(key), suffix) for key in pair] for pair in pairs]
    if not found or not all(digests for pair in found for digests in pair):
        return None
    return all(mine == theirs for mine, theirs in found)


def _digests(attempt: Attempt | None, suffix: str) -> dict[str, str]:
    files = attempt.outputs.items() if attempt is not None and attempt.outcome == "done" else ()
    return {name: digest for name, digest in files if name.endswith(suffix)}
