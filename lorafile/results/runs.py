"""How each run ended, its figures and its curve; which stages of the study have ended, and can be looked at."""

import math
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from lorafile.files.run_directory import Unfinished, unfinished
from lorafile.graph.graph import Graph, Replicate
from lorafile.plan.plan import Plan
from lorafile.plan.tuning import candidate_replicates
from lorafile.specs import Configuration, Spec
from lorafile.specs.sweeps.stages import stage_configurations
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    import pandas as pd

Attempts = dict[str, Attempt]  # key -> the result of a node
History = dict[str, list[Attempt]]  # key -> every attempt at it, in order
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
    "packed",
)
_OF_VALIDATION = ("evaluations", "best_step", "best_metric", "chosen_step", "ended_by", "selected_on")
_WEIGHTS = ".safetensors"
_ENDED = ("done", "diverged", "out-of-memory")  # a result; a run that failed is to be tried again
_COLUMNS = ("configuration", "candidate", "values", "seed", "outcome", "message", "key", "chosen", "added")


def done(results: Attempts, key: str | None) -> Attempt | None:
    """Return the result of a node that is done; None where it has none, or another one."""
    attempt = results.get(key or "")
    return attempt if attempt is not None and attempt.outcome == "done" else None


def stored_rows(attempt: Attempt | None, name: str, state: State) -> Iterator[dict[str, Any]]:
    """Return the rows of a file that an attempt left; none where its bytes have gone."""
    digest = attempt.outputs.get(name) if attempt is not None else None
    return state.objects.rows(digest) if digest is not None and state.objects.has(digest) else iter(())


def run_row(c: Configuration, replicate: Replicate, results: Attempts, history: History) -> dict[str, Any]:
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
                run |= {"outcome": "diverged", "message": f"a result on {split} is not a finite number"}
    run |= _own_figures(replicate, results, history, run)
    if replicate.train and last is not None:
        run |= {name: last.figures.get(name) for name in _TRAIN_FIGURES}
        run |= {name: last.figures[name] for name in _OF_VALIDATION if name in last.figures}
        if "trainer" in last.figures:
            run |= {"trainer": last.figures["trainer"]["name"], "reads": last.figures["reads"]}
            run |= {"failed_checks": " ".join(checks)} if (checks := last.figures.get("failed_checks")) else {}
        if last.figures.get("imported"):
            run |= {"imported": True, "message": _imported(last)}
    return run


def _imported(attempt: Attempt) -> str:
    """Return where an imported run came from, what of it differs, and what could not be verified."""
    text = attempt.message
    for word, names in (("differs in", attempt.figures["differs"]), ("not verified", attempt.figures["unverified"])):
        text += f"; {word}: {', '.join(names)}" if names else ""
    return text


def _own_figures(replicate: Replicate, results: Attempts, history: History, run: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of metric files; one that failed leaves its figure out and says so, and the run stands."""
    figures: dict[str, Any] = {}
    for (split, name), key in replicate.own.items():
        if key in results:
            figures[f"{split}.{name}"] = results[key].figures["figure"]
            figures.setdefault(f"{split}.examples", results[key].figures["examples"])
        elif run["outcome"] == "done" and (attempts := history.get(key)):
            figures["message"] = attempts[-1].message
        elif run["outcome"] == "done" and split not in replicate.score:
            figures |= _unscored(replicate, split, key, history)
    return figures


def _unscored(replicate: Replicate, split: str, score: str, history: History) -> dict[str, Any]:
    """Return how a run stands that is trained, but has no figures: as predictions or score ended, or not yet done."""
    for key in (*(key for (of_split, _), key in replicate.predict.items() if of_split == split), score):
        for last in history.get(key, [])[-1:]:
            if last.outcome != "done":
                return {"outcome": last.outcome, "message": last.message}
    return {"outcome": "missing", "message": "not predicted and scored yet"}


def blocked_by(run: dict[str, Any], graph: Graph, history: History) -> dict[str, Any]:
    """Return why a run was never begun: what it reads failed; nothing for any other run."""
    if run["outcome"] != "missing" or history.get(run["key"]):
        return {}
    for key in graph.nodes[run["key"]].inputs.values():
        for last in history.get(key, [])[-1:]:
            if not last.finished:
                return {"outcome": last.outcome, "message": f"{graph.nodes[key].address}: {last.message}"}
            if last.outcome != "done":  # the run that it starts from, whose outcome is not its own
                return {"message": f"{graph.nodes[key].address} {last.outcome}"}
    return {}


def curve_rows(
    c: Configuration, replicate: Replicate, history: History, state: State, progress: Unfinished | None
) -> list[dict[str, Any]]:
    """Return a row for each optimizer step of a run: of a finished one all, else as far as it has come."""
    finished = [attempt for attempt in history.get(replicate.train or "", []) if attempt.finished]
    rows = list(stored_rows(finished[-1], "curve.jsonl.gz", state)) if finished else []
    rows = rows or (progress.rows if progress else [])
    return [{"configuration": c.name, "seed": replicate.seed, **row} for row in rows]


def validation_rows(c: Configuration, replicate: Replicate, history: History, state: State) -> Iterator[dict[str, Any]]:
    """Yield a row for each evaluation of a finished run while it trained."""
    finished = [attempt for attempt in history.get(replicate.train or "", []) if attempt.finished]
    chosen = finished[-1].figures.get("chosen_step") if finished else None
    for row in stored_rows(finished[-1], "validation.jsonl.gz", state) if finished else ():
        loss = row.get("log_loss", row.get("mse"))
        yield {"configuration": c.name, "seed": replicate.seed, "loss": loss, "chosen": row["step"] == chosen, **row}


def unfinished_runs(graph: Graph, results: Attempts, state: State) -> dict[str, Unfinished]:
    """Return key -> how far a training run has come, for those without a result."""
    keys = [replicate.train for replicates in graph.replicates.values() for replicate in replicates]
    trained = [key for key in keys if key and key not in results]
    return {key: run for key in trained if (run := unfinished(state.running(key))) is not None}


def unfinished_status(run: dict[str, Any], progress: Unfinished | None) -> dict[str, Any]:
    """Return how a run stands that trains now, or that a killed apply left; nothing for any other."""
    if progress is None:
        return {}
    if progress.live:
        return {"outcome": "running", "message": f"at step {progress.step} of {progress.steps}"}
    kept = f"the next apply resumes from step {progress.checkpoint} of {progress.steps}" if progress.checkpoint else ""
    stopped = run["message"] or f"its apply was killed at step {progress.step} of {progress.steps}"
    outcome = "interrupted" if run["outcome"] == "missing" else run["outcome"]
    return {"outcome": outcome, "message": "; ".join(part for part in (stopped.rstrip("."), kept) if part)}


def repeat_rows(graph: Graph, results: Attempts, history: History) -> list[dict[str, Any]]:
    """Return a row for each declared repeat of a configuration's first seed."""
    rows = []
    for configuration in graph.spec.configurations:
        for again in graph.repeats.get(configuration.name, []):
            first = next(run for run in graph.replicates[configuration.name] if run.seed == again.seed)
            row = run_row(configuration, again, results, history) | {"repeat": again.repeat}
            row["same_weights"] = _same([(again.train or "", first.train or "")], results, _WEIGHTS)
            predictions = [(key, first.predict[output]) for output, key in again.predict.items()]
            rows.append(row | {"same_predictions": _same(predictions, results, "")})
    return rows


def _same(pairs: list[tuple[str, str]], results: Attempts, suffix: str) -> bool | None:
    """Return whether pairs of nodes left the same bytes; None where one has not left any.

    :param suffix: of the files that are looked at
    """
    files = [tuple(_digests(done(results, key), suffix) for key in pair) for pair in pairs]
    if not files or not all(digests for pair in files for digests in pair):
        return None
    return all(again == first for again, first in files)


def _digests(attempt: Attempt | None, suffix: str) -> dict[str, str]:
    files = attempt.outputs.items() if attempt is not None else ()
    return {name: digest for name, digest in files if name.endswith(suffix)}


def candidate_table(plan: Plan, history: History, state: State) -> "pd.DataFrame":
    """Return how each candidate stands under each seed, and its figures on validation."""
    import pandas as pd

    graph = plan.graph
    open_runs = unfinished_runs(graph, plan.results, state)
    rows: list[dict[str, Any]] = []
    for configuration in graph.spec.configurations:
        tuned = configuration.tuned
        if tuned is None:
            continue
        for candidate in tuned.candidates:
            values = tuned.values(candidate)
            about: dict[str, Any] = {"configuration": configuration.name, "candidate": candidate.name, "values": values}
            about["chosen"] = None if configuration.open else tuned.chosen == candidate.name
            about |= {"added": any(values[axis.setting] in axis.added for axis in tuned.axes), **values}
            for replicate in candidate_replicates(graph, candidate):
                run = run_row(candidate, replicate, plan.results, history)
                run |= blocked_by(run, graph, history) | unfinished_status(run, open_runs.get(replicate.train or ""))
                row = {name: run[name] for name in ("seed", "outcome", "message", "key")}
                rows.append(row | {name: run[name] for name in run if name.startswith("validation.")} | about)
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)])))


def looks(spec: Spec, runs: list[dict[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Return the seeds of each look: a stage is one when it has ended, and every stage before it."""
    stages = takewhile(lambda stage: stage[1] >= stage[2], _progress(spec, runs))
    return (tuple(spec.tables.study.seeds), *(seeds for seeds, _, _ in stages))


def dates(looked: tuple[tuple[int, ...], ...], runs: list[dict[str, Any]], results: Attempts) -> tuple[str, ...]:
    """Return when the last run of each look was begun, as `2026-11-21`."""
    begun = {seed: [""] for seeds in looked for seed in seeds}
    for run in runs:
        if run["seed"] in begun and run["key"] in results:
            begun[run["seed"]].append(results[run["key"]].started[:10])
    return tuple(max(day for seed in seeds for day in begun[seed]) for seeds in looked)


def under_way(spec: Spec, runs: list[dict[str, Any]]) -> list[str]:
    """Say which stages have runs without a result, so that no verdict reads their seeds yet."""
    return [
        f"Stage {number} is in progress: {ended} of its {wanted} runs have ended. No verdict uses them until all have."
        for number, (_, ended, wanted) in enumerate(_progress(spec, runs), 1)
        if ended < wanted
    ]


def _progress(spec: Spec, runs: list[dict[str, Any]]) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Yield the seeds of each stage, how many of its runs have ended, and how many there are."""
    for number, stage in enumerate(spec.tables.stage):
        seeds = set(stage.seeds)
        names = {c.name for c in stage_configurations(number, spec.tables, spec.configurations)}
        outcomes = [run["outcome"] for run in runs if run["configuration"] in names and run["seed"] in seeds]
        yield tuple(stage.seeds), sum(outcome in _ENDED for outcome in outcomes), len(names) * len(seeds)
