"""Runs that are not finished: how far each has come, and its curve so far."""

from typing import Any

from lorafile.files.run_directory import Unfinished, unfinished
from lorafile.graph.graph import Graph, Replicate
from lorafile.specs import Configuration
from lorafile.state import Attempt, State


def unfinished_runs(graph: Graph, results: dict[str, Attempt], state: State) -> dict[str, Unfinished]:
    """Return key -> how far a training run has come, for those without a result."""
    keys = [replicate.train for replicates in graph.replicates.values() for replicate in replicates]
    found = {key: unfinished(state.running(key)) for key in keys if key and key not in results}
    return {key: run for key, run in found.items() if run is not None}


def standing(run: dict[str, Any], found: Unfinished | None) -> dict[str, Any]:
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
