"""What state knows of a run and of a configuration: scores, predictions, seeds, what they cost. Needs no spec."""

import re
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite, nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from lorafile.analysis.environments import differs
from lorafile.errors import LoraError
from lorafile.state import Attempt, State
from lorafile.stored import stored_rows

if TYPE_CHECKING:
    from lorafile.study import Study

_RUN = re.compile(r"(?P<name>.+?)(?:/seed=(?P<seed>\d+))?:(?P<node>(?:train|predict|score|profile)(?:/.*)?)")
_ORDER = ("train", "predict", "score", "profile")  # of what a run consists of, and what is measured beside
_TEXTS = ("prompt", "reference", "answer", "choice", "log_likelihood", "tokens")


@dataclass(frozen=True)
class ShownRun:
    """One run: how it ended, and its figures as `split.metric`.

    :ivar address: its name, `rank/r=16/seed=42`; `outcome`: that of its training, or of what came after and failed
    """

    address: str
    seed: int | None
    outcome: str
    message: str
    seconds: float
    figures: dict[str, float]
    environment: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShownConfiguration:
    """A configuration of one study: its settings, its runs, the mean and spread of each figure, what it costs.

    :ivar means: `split.metric` -> (mean, sample standard deviation or NaN, number of seeds)
    :ivar environments: what differs between the environments of its runs and matters for quality
    :ivar verdicts: sentences on the comparisons that it takes part in; only with a spec
    """

    name: str
    study: str
    settings: dict[str, Any]
    runs: list[ShownRun]
    means: dict[str, tuple[float, float, int]]
    costs: dict[str, Any]
    environments: list[str]
    verdicts: list[str]


@dataclass(frozen=True)
class _Node:
    name: str
    seed: int | None
    part: str  # train, score/test, predict/test/likelihood, …
    key: str


def configuration(state: State, name: str, study: "Study | None" = None) -> ShownConfiguration | None:
    """Return what state knows of a configuration; None where no study declares one of that name.

    :param study: the study that is meant, where several have the name; its verdicts are told as well
    :raises LoraError: where several studies have different configurations of that name
    """
    wanted = _own_name(study, name)
    found: dict[str, list[_Node]] = {}
    for declaring, address, key, _ in state.declarations():
        match = _RUN.fullmatch(address)
        if match and match["name"] == wanted and (study is None or declaring == study.spec.name):
            seed = int(match["seed"]) if match["seed"] else None
            found.setdefault(declaring, []).append(_Node(wanted, seed, match["node"], key))
    if not found:
        return None
    if len({frozenset(node.key for node in nodes) for nodes in found.values()}) > 1:
        listed = ", ".join(sorted(found))
        raise LoraError(f'"{name}" is a configuration of several studies ({listed}); say which: --spec study.toml')
    declaring, nodes = next(iter(found.items()))
    latest = state.latest([node.key for node in nodes])
    runs = [_run(wanted, seed, nodes, latest) for seed in dict.fromkeys(node.seed for node in nodes if not _cost(node))]
    first = state.node(min(nodes, key=lambda node: _ORDER.index(node.part.partition("/")[0])).key)
    cost = [latest[node.key][-1] for node in nodes if _cost(node) and latest.get(node.key)]
    verdicts = _verdicts(study, wanted) if study is not None else []
    costs = cost[0].figures | {"device": cost[0].device} if cost and cost[0].outcome == "done" else {}
    settings = first.settings if first else {}
    settings = {section: value for section, value in settings.items() if section not in ("seed", "task")}
    return ShownConfiguration(wanted, declaring, settings, runs, _means(runs), costs, _apart(runs), verdicts)


def _own_name(study: "Study | None", name: str) -> str:
    known = study.spec.configurations if study else ()
    return next((c.name for c in known if name in (c.name, *c.aliases)), name)


def _cost(node: _Node) -> bool:
    return node.part == "profile"


def _run(name: str, seed: int | None, nodes: list[_Node], latest: dict[str, list[Attempt]]) -> ShownRun:
    """Return one run: where a later node of it failed, that is how it stands."""
    mine = [node for node in nodes if node.seed == seed and not _cost(node)]
    mine.sort(key=lambda node: _ORDER.index(node.part.partition("/")[0]))
    ended = [latest[node.key][-1] for node in mine if latest.get(node.key)]
    wrong = next((attempt for attempt in ended if attempt.outcome != "done"), None)
    outcome = wrong.outcome if wrong else "done" if len(ended) == len(mine) else "missing"
    figures: dict[str, float] = {}
    for node in mine:
        kind, _, place = node.part.partition("/")
        tries = [attempt for attempt in latest.get(node.key, []) if attempt.outcome == "done"]
        if kind == "score" and tries:
            figures |= _figures(place, tries[-1])
    trained = [latest[node.key][-1] for node in mine if node.part == "train" and latest.get(node.key)]
    address = name if seed is None else f"{name}/seed={seed}"
    seconds = trained[0].seconds if trained else 0.0
    environment = (trained or ended)[0].environment if trained or ended else {}
    return ShownRun(address, seed, outcome, wrong.message if wrong else "", seconds, figures, environment)


def _figures(place: str, attempt: Attempt) -> dict[str, float]:
    """Return the metrics of a score node; a metric file has a node to itself, `test/brevity`."""
    split, _, own = place.partition("/")
    rows = {own: attempt.figures["figure"]} if own else attempt.figures
    known = {name: value for name, value in rows.items() if isinstance(value, (int, float)) and name != "examples"}
    return {f"{split}.{name}": float(value) for name, value in known.items()}


def _means(runs: list[ShownRun]) -> dict[str, tuple[float, float, int]]:
    """Return mean, spread and number of each figure over the runs that are done."""
    done = [run.figures for run in runs if run.outcome == "done"]
    found = {}
    for name in dict.fromkeys(name for figures in done for name in figures):
        values = [figures[name] for figures in done if isfinite(figures.get(name, nan))]
        if values:
            found[name] = (fmean(values), stdev(values) if len(values) > 1 else nan, len(values))
    return found


def _apart(runs: list[ShownRun]) -> list[str]:
    known = [run.environment for run in runs if run.environment]
    return list(dict.fromkeys(text for one in known[1:] for text in differs(known[0], one, "quality")))


def _verdicts(study: "Study", name: str) -> list[str]:
    """Return the sentences of the study's family of comparisons that a configuration takes part in."""
    from lorafile.analysis.verdict_text import sentence
    from lorafile.analysis.verdicts import family

    results = study.gather()
    return [
        sentence(results, verdict)
        for verdict in family(results).verdicts
        if name in (verdict.pair.one, verdict.pair.other)
    ]


def scores(state: State, address: str) -> dict[str, float]:
    """Return the figures of the run that an address of its training or predictions belongs to, as `split.metric`."""
    found: dict[str, float] = {}
    for node, attempt in _beside(state, address, "score"):
        found |= _figures(node.part.partition("/")[2], attempt)
    return found


def predictions(state: State, address: str, count: int) -> list[dict[str, Any]]:
    """Return what a run made of the first test examples (validation, where there is no test), with their answers.

    :return: one row each: `split`, `row`, and of `prompt`, `reference`, `answer`, `log_likelihood`, `tokens` what is
        there
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for node, attempt in _beside(state, address, "predict"):
        split = node.part.split("/")[1]
        stored = state.node(node.key)
        prepared = state.latest([stored.inputs["data"]]) if stored else {}
        examples = [attempt for tries in prepared.values() for attempt in tries[-1:]]
        for one, file in (
            (examples[0] if examples else attempt, "examples.jsonl.gz"),
            (attempt, "predictions.jsonl.gz"),
        ):
            digest = one.outputs.get(file)
            if digest is not None and state.objects.has(digest):
                for row in islice(stored_rows(state.objects, digest), count):
                    found.setdefault(split, {}).setdefault(row["row"], {}).update(row)
    split = "test" if "test" in found else next(iter(found), "")
    rows = list(found.get(split, {}).values())[:count]
    return [{"split": split, "row": row["row"]} | {name: row[name] for name in _TEXTS if name in row} for row in rows]


def _beside(state: State, address: str, kind: str) -> list[tuple[_Node, Attempt]]:
    """Return the nodes of a kind of an address's run, each with its newest finished attempt."""
    this = _RUN.fullmatch(address)
    if this is None:
        return []
    nodes: dict[str, _Node] = {}
    for _, other, key, of_kind in state.declarations():
        match = _RUN.fullmatch(other)
        if of_kind == kind and match and (match["name"], match["seed"]) == (this["name"], this["seed"]):
            nodes[key] = _Node(this["name"], None, match["node"], key)
    latest = state.latest(list(nodes))
    done = {key: [attempt for attempt in tries if attempt.outcome == "done"] for key, tries in latest.items()}
    return [(nodes[key], tries[-1]) for key, tries in done.items() if tries]
