"""Where a study's figures were computed: each environment once, and which one every figure comes from."""

from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.plan.plan import Plan
from lorafile.results.environment_diff import among
from lorafile.state import Attempt

_KINDS = ("train", "predict", "profile", "inspect", "truncate", "merge")


class Environments:
    """Every environment of a study's results, in the order of its nodes."""

    def __init__(self, plan: Plan) -> None:
        self._known: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self._results = plan.results
        for key, attempt in plan.results.items():
            if plan.graph.nodes[key].kind in _KINDS:
                self._at(attempt)

    def _at(self, attempt: Attempt) -> int:
        identity = str(sorted(attempt.environment.items(), key=str))
        if identity not in self._known:
            self._known[identity] = len(self.rows)
            self.rows.append(attempt.environment)
        return self._known[identity]

    def of(self, key: str | None) -> int | None:
        """Return the index of the environment that a node's result comes from; None where there is none."""
        return self._at(self._results[key]) if key is not None and key in self._results else None

    def of_run(self, replicate: Replicate) -> dict[str, int | None]:
        """Return where a run was trained (predicted, where nothing is trained), and where its predictions were made."""
        predicted = [at for key in replicate.predict.values() if (at := self.of(key)) is not None]
        first = predicted[0] if predicted else None
        return {"environment": self.of(replicate.train) if replicate.train else first, "predicted_in": first}

    def mixed(self, graph: Graph) -> list[str]:
        """Say which configurations have runs from environments that differ in what matters for quality."""
        told: dict[str, list[str]] = {}
        for name, replicates in graph.replicates.items():
            keys = [key for one in replicates for key in (one.train, *one.predict.values())]
            found = sorted({at for key in keys if (at := self.of(key)) is not None})
            what = among(self.rows, [(a, b) for a in found for b in found if a < b], "quality")
            if what:
                told.setdefault(", ".join(what), []).append(name)
        return [
            f"Runs of one configuration come from more than one environment ({what}): {_listed(names)}."
            for what, names in told.items()
        ]


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
