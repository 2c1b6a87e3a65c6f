"""What came of each run: its outcome, its figures and its curve."""

import math
from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.specs import Configuration
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
    "micro_batch_split",
)


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
