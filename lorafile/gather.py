"""State to results: a study's finished work as the tables that analyses read."""

import math
from typing import Any

from lorafile.engine.lines import read_lines
from lorafile.graph import Graph, Replicate
from lorafile.lockfile import identity
from lorafile.plan import Action, Plan
from lorafile.results import Results
from lorafile.specs import Configuration
from lorafile.specs.configurations import quantization_name
from lorafile.state import Attempt, State

_TRAIN_FIGURES = (
    "seconds",
    "steps",
    "supervised_tokens",
    "tokens",
    "trainable_parameters",
    "total_parameters",
    "adapter_bytes",
    "final_loss",
)
_RUN = ("configuration", "sweep", "seed", "outcome", "message", "key")


def gather(plan: Plan, state: State) -> Results:
    """Return what a study has found so far."""
    import pandas as pd

    graph, spec = plan.graph, plan.graph.spec
    history = state.latest(graph.nodes)
    runs = [
        _run(c, replicate, plan.results, history) for c in spec.configurations for replicate in graph.replicates[c.name]
    ]
    curves = [
        row
        for c in spec.configurations
        for replicate in graph.replicates[c.name]
        for row in _curve(c, replicate, history, state)
    ]
    columns = list(dict.fromkeys([*_RUN, *(name for run in runs for name in run)]))
    return Results(
        study=spec.name,
        question=spec.tables.study.question,
        title=spec.tables.report.title or spec.name,
        primary=spec.primary,
        metrics=tuple(spec.tables.evaluate.metrics),
        seeds=tuple(spec.tables.study.seeds),
        configurations=pd.DataFrame([_configuration(c, spec.configurations, runs) for c in spec.configurations]),
        runs=pd.DataFrame(runs, columns=columns),
        profiles=pd.DataFrame(_profiles(plan)),
        curves=pd.DataFrame(curves, columns=["configuration", "seed", "step", "epoch", "loss", "learning_rate"]),
        environments=_environments(plan),
        data=_data(plan),
        model=_model(graph),
        warnings=[*plan.warnings, *_warnings(plan, runs)],
    )


def _run(
    c: Configuration, replicate: Replicate, results: dict[str, Attempt], history: dict[str, list[Attempt]]
) -> dict[str, Any]:
    leading = replicate.train or next(iter(replicate.score.values()))
    attempts = history.get(leading, [])
    last = results.get(leading) or (attempts[-1] if attempts else None)
    run: dict[str, Any] = {"configuration": c.name, "sweep": c.sweep, "seed": replicate.seed}
    run |= {"outcome": last.outcome if last else "missing", "message": last.message if last else "", "key": leading}
    for split, key in replicate.score.items():
        scored = results.get(key)
        if scored is None and run["outcome"] == "done":
            run |= _unscored(replicate, split, history)
        elif scored is not None:
            run |= {f"{split}.{name}": value for name, value in scored.figures.items()}
            if not all(math.isfinite(value) for value in scored.figures.values()):
                run |= {"outcome": "diverged", "message": f"a figure on {split} is no finite number"}
    if replicate.train and last is not None:
        run |= {name: last.figures.get(name) for name in _TRAIN_FIGURES}
    return run


def _unscored(replicate: Replicate, split: str, history: dict[str, list[Attempt]]) -> dict[str, Any]:
    """Return how a run stands that is trained, but has no figures: as its predictions ended, or not yet done."""
    for (of_split, _), key in replicate.predict.items():
        attempts = history.get(key, [])
        if of_split == split and attempts and attempts[-1].outcome != "done":
            return {"outcome": attempts[-1].outcome, "message": attempts[-1].message}
    return {"outcome": "missing", "message": "not predicted and scored yet"}


def _configuration(c: Configuration, everyone: tuple[Configuration, ...], runs: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [run for run in runs if run["configuration"] == c.name]
    outcomes = [run["outcome"] for run in mine]
    row: dict[str, Any] = {
        "configuration": c.name,
        "sweep": c.sweep,
        "aliases": list(c.aliases),
        "method": c.method,
        "trained": c.method != "none",
    }
    row |= {"replicates": len(mine), "done": outcomes.count("done")}
    row["outcomes"] = ", ".join(f"{outcome} {outcomes.count(outcome)}" for outcome in dict.fromkeys(outcomes))
    return row | {
        setting: _value(c, setting) for setting in dict.fromkeys(name for other in everyone for name in other.varied)
    }


def _value(c: Configuration, setting: str) -> Any:
    """Return a setting as the spec wrote it for this configuration, or its default; None where it does not apply."""
    if setting in c.varied:
        return c.varied[setting]
    section, _, name = setting.partition(".")
    if section == "method":
        return c.method
    if section == "quantization":
        return quantization_name(c.quantization)
    table: Any = {
        "lora": c.lora,
        "train": c.train and c.train.model_dump(),
        "model": c.model.model_dump(),
        "data": c.data.model_dump(),
    }.get(section)
    for part in name.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table


def _curve(
    c: Configuration, replicate: Replicate, history: dict[str, list[Attempt]], state: State
) -> list[dict[str, Any]]:
    finished = [attempt for attempt in history.get(replicate.train or "", []) if attempt.finished]
    digest = finished[-1].outputs.get("curve.jsonl.gz") if finished else None
    if digest is None or not state.objects.has(digest):
        return []
    about = {"configuration": c.name, "seed": replicate.seed}
    return [{**about, **row} for row in read_lines(state.objects.path(digest))]


def _profiles(plan: Plan) -> list[dict[str, Any]]:
    rows = []
    for configuration, key in plan.graph.profiles.items():
        attempt = plan.results.get(key)
        if attempt is not None and attempt.outcome == "done":
            rows.append({"configuration": configuration, "device": attempt.device, **attempt.figures})
    return rows


def _environments(plan: Plan) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, attempt in plan.results.items():
        if plan.graph.nodes[key].kind in ("train", "predict", "profile"):
            found.setdefault(str(sorted(attempt.environment.items(), key=str)), attempt.environment)
    return list(found.values())


def _data(plan: Plan) -> dict[str, Any]:
    spec = plan.graph.spec
    prepared = plan.graph.splits[spec.configurations[0].name]
    form = plan.graph.nodes[next(iter(prepared.values()))].settings["data"]["format"]
    splits = {}
    for split, key in prepared.items():
        splits[split] = plan.results[key].figures if key in plan.results else {}
    table = spec.tables.data
    return {
        "path": table.path,
        "format": form,
        "max_length": table.max_length,
        "splits": splits,
    }


def _model(graph: Graph) -> dict[str, Any]:
    table = graph.spec.tables.model
    lock = graph.lock.models[identity(table)]
    architecture = (lock.settings.get("architectures") or [lock.settings.get("model_type", "unknown")])[0]
    return {
        "path": table.path,
        "architecture": architecture,
        "parameters": lock.parameters,
        "dtype": lock.dtype,
        "revision": lock.revision,
    }


def _warnings(plan: Plan, runs: list[dict[str, Any]]) -> list[str]:
    """Say what a reader has to know before the first figure."""
    found = []
    missing = [run for run in runs if run["outcome"] in ("missing", "failed", "interrupted")]
    if missing:
        found.append(f"This study is partial: {len(missing)} of {len(runs)} runs have no result yet.")
    for outcome, word in (("diverged", "diverged"), ("out-of-memory", "ran out of memory")):
        number = sum(run["outcome"] == outcome for run in runs)
        if number:
            found.append(f"{number} of {len(runs)} runs {word}; they are shown as such and are in no average.")
    drifted = sum(change.action is Action.DRIFT for change in plan.changes)
    if drifted:
        found.append(f"{drifted} results were computed in another environment than today's.")
    for split, figures in _data(plan)["splits"].items():
        if figures.get("too_long"):
            found.append(
                f"{figures['too_long']} examples of the {split} split exceed max_length and were dropped or cut."
            )
        if figures.get("unknown_tokens"):
            found.append(f"{figures['unknown_tokens']} tokens of the {split} split are unknown to the tokenizer.")
    return found
