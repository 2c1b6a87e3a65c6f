"""What state knows of a run and of a configuration: scores, predictions, seeds, what they cost. Needs no spec."""

import json
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite, nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from lorafile.errors import LoraError
from lorafile.results.environments import differs
from lorafile.state import Attempt, State
from lorafile.state.names import MODEL_KINDS, PART, Named, Names, find_configuration, run_name
from lorafile.state.node_details import History, history

if TYPE_CHECKING:
    from lorafile.plan.plan import Plan

_ORDER = ("train", "predict", "score", "profile")  # of what a run consists of, and what is measured in addition
_TEXTS = ("prompt", "reference", "answer", "choice", "log_likelihood", "tokens")


@dataclass(frozen=True)
class ShownRun:
    """One run: how it ended, and its figures as `split.metric`.

    :ivar address: its name, `rank/r=16/seed=42`
    :ivar outcome: that of its training, or of what came after and failed
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
class ShownNode:
    """One node, and of a run its scores as `split.metric` and its first predictions.

    :ivar log: the last lines of what was printed, where its last attempt failed
    """

    named: Named
    history: History
    scores: dict[str, float]
    predictions: list[dict[str, Any]]
    log: tuple[str, ...] = ()


_LOGS, _LOG_LINES = ("log.txt", "traceback.txt", "worker.log"), 20


@dataclass(frozen=True)
class _Node:
    seed: int | None
    part: str  # train, score/test, predict/test/likelihood, …
    key: str


def configuration(state: State, names: Names, name: str, plan: "Plan | None" = None) -> ShownConfiguration | None:
    """Return what state knows of a configuration; None where no study declares one of that name.

    :param plan: of the study whose names these are; its verdicts are returned as well
    :raises LoraError: where several studies have different configurations of that name
    """
    rows = find_configuration(names, name)
    if not rows:
        return None
    name = names.full(name)
    nodes = [
        _Node(int(part["seed"]) if part["seed"] else None, part["node"], row.key)
        for row in rows
        if row.study == rows[0].study and (part := PART.fullmatch(row.address))
    ]
    seeds = dict.fromkeys(node.seed for node in nodes if node.part != "profile")
    nodes.sort(key=lambda node: _ORDER.index(node.part.partition("/")[0]))
    latest = state.latest([node.key for node in nodes])
    profiles = [latest[node.key][-1] for node in nodes if node.part == "profile" and latest.get(node.key)]
    costs = profiles[0].figures | {"device": profiles[0].device} if profiles and profiles[0].outcome == "done" else {}
    runs = [_run(name, seed, nodes, latest) for seed in seeds]
    first = state.node(nodes[0].key)
    settings = {key: value for key, value in (first.settings if first else {}).items() if key not in ("seed", "task")}
    environments = [run.environment for run in runs if run.environment]
    drift = dict.fromkeys(text for each in environments[1:] for text in differs(environments[0], each, "quality"))
    verdicts = _verdicts(plan, state, name) if plan is not None else []
    return ShownConfiguration(name, rows[0].study, settings, runs, _means(runs), costs, list(drift), verdicts)


def _run(name: str, seed: int | None, nodes: list[_Node], latest: dict[str, list[Attempt]]) -> ShownRun:
    """Return one run: where a later node of it failed, that is how it stands."""
    nodes = [node for node in nodes if node.seed == seed and node.part != "profile"]
    ended = [latest[node.key][-1] for node in nodes if latest.get(node.key)]
    wrong = next((attempt for attempt in ended if attempt.outcome != "done"), None)
    outcome = wrong.outcome if wrong else "done" if len(ended) == len(nodes) else "missing"
    figures: dict[str, float] = {}
    for node in nodes:
        kind, _, place = node.part.partition("/")
        tries = [attempt for attempt in latest.get(node.key, []) if attempt.outcome == "done"]
        if kind == "score" and tries:
            figures |= _figures(place, tries[-1])
    trained = [latest[node.key][-1] for node in nodes if node.part == "train" and latest.get(node.key)]
    address = name if seed is None else f"{name}/seed={seed}"
    seconds = trained[0].seconds if trained else 0.0
    environment = (trained or ended)[0].environment if trained or ended else {}
    return ShownRun(address, seed, outcome, wrong.message if wrong else "", seconds, figures, environment)


def _figures(place: str, attempt: Attempt) -> dict[str, float]:
    """Return the metrics of a score node; a metric file has a node to itself, `test/brevity`."""
    split, _, own = place.partition("/")
    rows = {own: attempt.figures["figure"]} if own else attempt.figures
    return {
        f"{split}.{name}": float(value)
        for name, value in rows.items()
        if isinstance(value, (int, float)) and name != "examples"
    }


def _means(runs: list[ShownRun]) -> dict[str, tuple[float, float, int]]:
    """Return mean, spread and number of each figure over the runs that are done."""
    done = [run.figures for run in runs if run.outcome == "done"]
    means = {}
    for name in dict.fromkeys(name for figures in done for name in figures):
        values = [figures[name] for figures in done if isfinite(figures.get(name, nan))]
        if values:
            means[name] = (fmean(values), stdev(values) if len(values) > 1 else nan, len(values))
    return means


def _verdicts(plan: "Plan", state: State, name: str) -> list[str]:
    """Return the sentences of the study's family of comparisons that a configuration takes part in."""
    from lorafile.analysis.compare.verdict_text import sentence
    from lorafile.analysis.compare.verdicts import family
    from lorafile.results.gather import gather_scores

    results = gather_scores(plan, state)
    verdicts = family(results).verdicts
    return [sentence(results, each) for each in verdicts if name in (each.pair.one, each.pair.other)]


def node(state: State, names: Names, named: Named, count: int) -> ShownNode:
    """Return what state knows of a node.

    :param count: of how many test examples the predictions are shown
    :raises LoraError: where studies share a run, and scored it differently
    """
    figures = scores(state, names, named) if named.kind in MODEL_KINDS else {}
    made = history(state, named)
    first = predictions(state, names, named, count) if count else []
    return ShownNode(named, made, figures, first, _last_log(state, made))


def _last_log(state: State, made: History) -> tuple[str, ...]:
    """Return the end of the log of the last attempt, if it failed: of a program's own, else of the worker's."""
    last = made.attempts[-1] if made.attempts and not made.attempts[-1].finished else None
    digest = next((last.outputs[name] for name in _LOGS if name in last.outputs), None) if last else None
    if digest is None or not state.objects.has(digest):
        return ()
    text = state.objects.read(digest).decode(errors="replace")
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-_LOG_LINES:]


def scores(state: State, names: Names, run: Named) -> dict[str, float]:
    """Return the figures of a run as `split.metric`."""
    figures: dict[str, tuple[float, Named]] = {}
    for row, part, attempt in _measured(state, names, run, "score"):
        for name, value in _figures(part.partition("/")[2], attempt).items():
            first, other = figures.setdefault(name, (value, row))
            if str(value) != str(first) and row.declared:
                raise _differs(run, other, row)
    return {name: value for name, (value, _) in figures.items()}


def predictions(state: State, names: Names, run: Named, count: int) -> list[dict[str, Any]]:
    """Return what a run made of the first test examples (validation, where there is no test), with their answers.

    :return: one row each: `split`, `row`, and of `prompt`, `reference`, `answer`, `log_likelihood`, `tokens` what is
        there
    """
    parts: dict[str, Named] = {}
    by_split: dict[str, dict[int, dict[str, Any]]] = {}
    for named, part, attempt in _measured(state, names, run, "predict"):
        first = parts.setdefault(part, named)
        if first.key != named.key:
            if named.declared:
                raise _differs(run, first, named)
            continue
        split = part.split("/")[1]
        stored = state.node(named.key)
        prepared = state.latest([stored.inputs["data"]]) if stored else {}
        examples = [attempt for tries in prepared.values() for attempt in tries[-1:]]
        prepared_by = examples[0] if examples else attempt
        for digest in (prepared_by.outputs.get("examples.jsonl.gz"), attempt.outputs.get("predictions.jsonl.gz")):
            if digest is not None and state.objects.has(digest):
                for row in islice(state.objects.rows(digest), count):
                    by_split.setdefault(split, {}).setdefault(row["row"], {}).update(row)
    split = "test" if "test" in by_split else next(iter(by_split), "")
    rows = list(by_split.get(split, {}).values())[:count]
    return [{"split": split, "row": row["row"]} | {name: row[name] for name in _TEXTS if name in row} for row in rows]


def _differs(run: Named, first: Named, other: Named) -> LoraError:
    return LoraError(
        f'{first.study} and {other.study} share the run "{run_name(run.address)}" and evaluate it differently. '
        "Pass the spec with --spec."
    )


def _measured(state: State, names: Names, run: Named, kind: str) -> list[tuple[Named, str, Attempt]]:
    """Return the predictions or scores of a run, with their part of its address and their newest finished attempt.

    They are identified by what they read, never by their address: another run may have had the same one. What no study
    declares any more counts only where nothing else is there, the newest first.
    """
    keys = _keys(state, run)
    rows = [row for row in names.nodes if row.key in keys and row.kind == kind]
    rows = [row for row in rows if row.declared] or rows
    rows = [row for row in rows if run_name(row.address) == run_name(run.address)] or rows
    latest = state.latest([row.key for row in rows]) if rows else {}
    done = {key: [attempt for attempt in tries if attempt.outcome == "done"] for key, tries in latest.items()}
    parts = [(row, PART.fullmatch(row.address)) for row in rows]
    return [(row, part["node"], done[row.key][-1]) for row, part in parts if part and done.get(row.key)]


def _keys(state: State, run: Named) -> set[str]:
    """Return the keys of the predictions that belong to a node, and of their scores."""
    if run.kind == "score":
        stored = state.node(run.key)
        return {run.key, *(stored.inputs.values() if stored else ())}
    made = _readers(state, {run.key}, "predict") if run.kind in MODEL_KINDS else {run.key}
    return made | _readers(state, made, "score")


def _readers(state: State, keys: set[str], kind: str) -> set[str]:
    rows = state.rows(
        "SELECT n.key FROM nodes n, json_each(n.inputs) i "
        "WHERE n.kind = ? AND i.value IN (SELECT value FROM json_each(?))",
        kind,
        json.dumps(sorted(keys)),
    )
    return {key for (key,) in rows}
