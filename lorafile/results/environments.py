"""Where a study's figures were computed: each environment once, and which one every figure comes from."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations, product
from typing import Any, Literal

from lorafile.graph.graph import Graph, Replicate
from lorafile.plan.drift import what_matters
from lorafile.plan.plan import Plan
from lorafile.results.results import Results, grouped, listed, rows_of
from lorafile.state import Attempt

_KINDS = ("train", "predict", "profile", "inspect", "truncate", "merge")
_NO_PLACE = ("registered", "state_lock")  # recorded with an environment, and no part of it
Of = Literal["quality", "cost"]


class Environments:
    """Every environment of a study's results, in the order of its nodes."""

    def __init__(self, plan: Plan) -> None:
        self._places: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self._results = plan.results
        for key, attempt in plan.results.items():
            if plan.graph.nodes[key].kind in _KINDS:
                self._at(attempt)

    def _at(self, attempt: Attempt) -> int:
        where = {name: value for name, value in attempt.environment.items() if name not in _NO_PLACE}
        identity = str(sorted(where.items(), key=str))
        if identity not in self._places:
            self._places[identity] = len(self.rows)
            self.rows.append(where)
        return self._places[identity]

    def of(self, key: str | None) -> int | None:
        """Return the index of the environment that a node's result comes from; None where there is none."""
        return self._at(self._results[key]) if key is not None and key in self._results else None

    def of_run(self, replicate: Replicate) -> dict[str, int | None]:
        """Return where a run was trained (predicted, where nothing is trained), and where its predictions were made."""
        predicted = [at for key in replicate.predict.values() if (at := self.of(key)) is not None]
        first = predicted[0] if predicted else None
        return {"environment": self.of(replicate.train) if replicate.train else first, "predicted_in": first}

    def mixed(self, graph: Graph) -> list[str]:
        """Say which configurations have runs from environments that differ in what matters for quality.

        A program trains with libraries of its own, which need not be those that evaluate what it trained.
        """
        within, apart = [], []
        for name, replicates in graph.replicates.items():
            trained = self._used(replicate.train for replicate in replicates)
            predicted = self._used(key for replicate in replicates for key in replicate.predict.values())
            both, external = list(product(trained, predicted)), _by_program(graph, replicates)
            pairs = [*combinations(trained, 2), *combinations(predicted, 2), *(() if external else both)]
            within.append((", ".join(among(self.rows, pairs, "quality")), name))
            apart.append((", ".join(among(self.rows, both, "quality")) if external else "", name))
        said = "Runs of one configuration come from more than one environment"
        lines = [f"{said} ({what}): {listed(names)}." for what, names in grouped(within).items() if what]
        said = "Programs trained with other libraries than those that evaluate the results"
        return lines + [f"{said} ({what}): {listed(names)}." for what, names in grouped(apart).items() if what]

    def _used(self, keys: Iterable[str | None]) -> list[int]:
        return sorted({at for key in keys if (at := self.of(key)) is not None})


def _by_program(graph: Graph, replicates: Iterable[Replicate]) -> bool:
    return any(one.train is not None and "trainer" in graph.nodes[one.train].settings for one in replicates)


def differs(one: dict[str, Any], other: dict[str, Any], kind: Of) -> list[str]:
    """Return what differs between two environments, such as `["device cpu and NVIDIA L4", "torch 2 and 3"]`.

    Where an imported run was trained is not known, so nothing differs from it.
    """
    if one.get("imported") or other.get("imported"):
        return []
    first, second = (what_matters(environment, kind == "cost") for environment in (one, other))
    return [f"{name} {first[name]} and {second[name]}" for name in first if first[name] != second[name]]


def between(results: Results, one: str, other: str, kind: Of) -> list[str]:
    """Return what differs between the environments of two configurations' figures; of one and the same: within it.

    :param kind: `quality` looks at the runs, `cost` at the profiles
    """
    pairs = product(indexes(results, one, kind), indexes(results, other, kind))
    return among(results.environments, pairs, kind)


def among(environments: list[dict[str, Any]], pairs: Iterable[tuple[int, int]], kind: Of) -> list[str]:
    """Return what differs in any pair of environments, each once."""
    ordered = sorted({(min(pair), max(pair)) for pair in pairs})
    return list(dict.fromkeys(text for a, b in ordered for text in differs(environments[a], environments[b], kind)))


def indexes(results: Results, configuration: str, kind: Of) -> list[int]:
    """Return the environments that a configuration's figures come from, as indexes into `results.environments`."""
    return _indexes(results, kind).get(configuration, [])


@lru_cache(maxsize=16)
def _indexes(results: Results, kind: Of) -> dict[str, list[int]]:
    table = results.runs if kind == "quality" else results.profiles
    names = ("environment", "predicted_in") if kind == "quality" else ("environment",)
    rows = rows_of(table, "configuration", *names)
    used: dict[str, set[int]] = {}
    for name, *places in rows:
        used.setdefault(str(name), set()).update(int(at) for at in places if at is not None)
    return {name: sorted(places) for name, places in used.items()}


def places(results: Results, kind: Of) -> dict[str, str]:
    """Return configuration -> where its figures were computed, in the words that tell environments apart.

    More than one has a †. Nothing at all where no two environments of the study differ in what matters.
    """
    used = {name: indexes(results, name, kind) for name in results.names}
    places = {at for indexes_of in used.values() for at in indexes_of if not results.environments[at].get("imported")}
    matters = {at: what_matters(results.environments[at], kind == "cost") for at in sorted(places)}
    names = next(iter(matters.values()), {})
    varied = [name for name in names if len({fields[name] for fields in matters.values()}) > 1]
    if not varied:
        return {}
    words = {
        at: ", ".join(str(fields[name]) if name == "device" else f"{name} {fields[name]}" for name in varied)
        for at, fields in matters.items()
    }
    shown = {name: list(dict.fromkeys(words[at] for at in at_all if at in words)) for name, at_all in used.items()}
    return {name: " and ".join(texts) + (" †" if len(texts) > 1 else "") for name, texts in shown.items() if texts}
