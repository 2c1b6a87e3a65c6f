"""What came of each run: its outcome, its figures and its curve."""

import math
from typing import TYPE_CHECKING, Any

from lorafile.files.run_directory import Unfinished, unfinished
from lorafile.graph.graph import Graph, Replicate
from lorafile.plan.plan import Plan
from lorafile.plan.tuning import candidate_replicates
from lorafile.specs import Configuration
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    import pandas as pd


_TRAIN_FIGURES = (
    "seconds",
    "steps",
    "supervised_tokens",
    "tokens",
    "trainable_parameters",
    "total_parameters",
    "adapter_bytes",
    "final_loss",
    "micro_batch_split",
)
_WEIGHTS = ".safetensors"
_COLUMNS = ("configuration", "candidate", "values", "seed", "outcome", "message", "key", "chosen", "added")


def run_row(
    c: Configuration, replicate: Replicate, results: dict[str, Attempt], history: dict[str, list[Attempt]]
) -> dict[str, Any]:
    """Return how one run stands, and its figures."""
    leading = replicate.train or next(iter(replicate.predict.values()))
    attempts = history.get(leading, [])
    last = results.get(leading) or (attempts[-1] if attempts else None)
    run: dict[str, Any] = {"configuration": c.name, "sweep": c.sweep, "seed": replicate.seed}
    run |= {"outcome": last.outcome if last else "missing", "message": last.message if last else "", "key": leading}
    for split, key in replicate.score.items():
        scored = results.get(key)
        if scored is None and run["outcome"] == "done":
            run |= _unscored(replicate, split, key, history)
        elif scored is not None:
            run |= {f"{split}.{name}": value for name, value in scored.figures.items()}
            if not all(math.isfinite(value) for value in scored.figures.values()):
                run |= {"outcome": "diverged", "message": f"a figure on {split} is no finite number"}
    run |= _own_figures(replicate, results, history, run)
    if replicate.train and last is not None:
        run |= {name: last.figures.get(name) for name in _TRAIN_FIGURES}
        if last.figures.get("imported"):
            run |= {"imported": True, "message": _imported(last)}
    return run


def _imported(attempt: Attempt) -> str:
    """Return where an imported run came from, what of it differs, and what nobody could verify."""
    told = attempt.message
    for word, names in (("differs in", attempt.figures["differs"]), ("not verified", attempt.figures["unverified"])):
        told += f"; {word}: {', '.join(names)}" if names else ""
    return told


def _own_figures(
    replicate: Replicate, results: dict[str, Attempt], history: dict[str, list[Attempt]], run: dict[str, Any]
) -> dict[str, Any]:
    """Return the figures of metric files; one that failed leaves its figure out and says so, and the run stands."""
    found: dict[str, Any] = {}
    for (split, name), key in replicate.own.items():
        if key in results:
            found[f"{split}.{name}"] = results[key].figures["figure"]
            found.setdefault(f"{split}.examples", results[key].figures["examples"])
        elif run["outcome"] == "done" and (attempts := history.get(key)):
            found["message"] = attempts[-1].message
        elif run["outcome"] == "done" and split not in replicate.score:
            found |= _unscored(replicate, split, key, history)
    return found


def _unscored(replicate: Replicate, split: str, score: str, history: dict[str, list[Attempt]]) -> dict[str, Any]:
    """Return how a run stands that is trained, but has no figures: as predictions or score ended, or not yet done."""
    for key in (*(key for (of_split, _), key in replicate.predict.items() if of_split == split), score):
        attempts = history.get(key, [])
        if attempts and attempts[-1].outcome != "done":
            return {"outcome": attempts[-1].outcome, "message": attempts[-1].message}
    return {"outcome": "missing", "message": "not predicted and scored yet"}


def blocked_by(run: dict[str, Any], graph: Graph, history: dict[str, list[Attempt]]) -> dict[str, Any]:
    """Return why a run was never begun: what it reads failed; nothing for any other run."""
    if run["outcome"] != "missing" or history.get(run["key"]):
        return {}
    for key in graph.nodes[run["key"]].inputs.values():
        attempts = history.get(key, [])
        if attempts and not attempts[-1].finished:
            return {"outcome": attempts[-1].outcome, "message": f"{graph.nodes[key].address}: {attempts[-1].message}"}
    return {}


def curve_rows(
    c: Configuration, replicate: Replicate, history: dict[str, list[Attempt]], state: State
) -> list[dict[str, Any]]:
    """Return a row for each optimizer step of a finished run."""
    finished = [attempt for attempt in history.get(replicate.train or "", []) if attempt.finished]
    digest = finished[-1].outputs.get("curve.jsonl.gz") if finished else None
    if digest is None or not state.objects.has(digest):
        return []
    about = {"configuration": c.name, "seed": replicate.seed}
    return [{**about, **row} for row in state.objects.rows(digest)]


def unfinished_runs(graph: Graph, results: dict[str, Attempt], state: State) -> dict[str, Unfinished]:
    """Return key -> how far a training run has come, for those without a result."""
    keys = [replicate.train for replicates in graph.replicates.values() for replicate in replicates]
    found = {key: unfinished(state.running(key)) for key in keys if key and key not in results}
    return {key: run for key, run in found.items() if run is not None}


def unfinished_status(run: dict[str, Any], found: Unfinished | None) -> dict[str, Any]:
    """Return how a run stands that trains now, or that a killed apply left; nothing for any other."""
    if found is None:
        return {}
    if found.live:
        return {"outcome": "running", "message": f"at step {found.step} of {found.steps}"}
    kept = f"the next apply goes on from step {found.checkpoint} of {found.steps}" if found.checkpoint else ""
    told = run["message"] or f"its apply was killed at step {found.step} of {found.steps}"
    outcome = "interrupted" if run["outcome"] == "missing" else run["outcome"]
    return {"outcome": outcome, "message": "; ".join(part for part in (told.rstrip("."), kept) if part)}


def unfinished_curve(c: Configuration, replicate: Replicate, found: Unfinished | None) -> list[dict[str, Any]]:
    """Return a row for each optimizer step of a run that is not finished."""
    return [{"configuration": c.name, "seed": replicate.seed, **row} for row in found.rows] if found else []


def cut_micro_batches(runs: list[dict[str, Any]]) -> list[str]:
    """Say which runs computed their micro-batches in parts."""
    cut = [f"{run['configuration']}/seed={run['seed']}" for run in runs if run.get("micro_batch_split")]
    if not cut:
        return []
    listed = ", ".join(cut[:8]) + (f" and {len(cut) - 8} more" if len(cut) > 8 else "")
    word = "run" if len(cut) == 1 else "runs"
    return [
        f"{len(cut)} {word} ran with smaller micro-batches after out-of-memory; effective batch, order and loss are "
        f"those that the spec asks for: {listed}."
    ]


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


def candidate_table(plan: Plan, history: dict[str, list[Attempt]], state: State) -> "pd.DataFrame":
    """Return how each candidate stands under each seed, and its figures on validation."""
    import pandas as pd

    graph = plan.graph
    open_runs = unfinished_runs(graph, plan.results, state)
    rows: list[dict[str, Any]] = []
    for configuration in graph.spec.configurations:
        about = configuration.tuned
        for candidate in about.candidates if about else ():
            values = about.values(candidate) if about else {}
            added = any(values[axis.setting] in axis.added for axis in about.axes) if about else False
            for replicate in candidate_replicates(graph, candidate):
                run = run_row(candidate, replicate, plan.results, history)
                run |= blocked_by(run, graph, history) | unfinished_status(run, open_runs.get(replicate.train or ""))
                known = {name: value for name, value in run.items() if name.startswith("validation.")}
                row = {**{name: run[name] for name in ("seed", "outcome", "message", "key")}, **known}
                row |= {"configuration": configuration.name, "candidate": candidate.name, "values": values}
                chosen = None if configuration.open else about is not None and about.chosen == candidate.name
                rows.append(row | {"chosen": chosen, "added": added, **values})
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)])))


def unchosen_run(configuration: Configuration, seed: int, why: str) -> dict[str, Any]:
    """Return the run of a tuned configuration before its choice: it is not known yet which of the candidates it is."""
    about = {"configuration": configuration.name, "sweep": configuration.sweep, "seed": seed}
    return {**about, "outcome": "missing", "message": why, "key": ""}
