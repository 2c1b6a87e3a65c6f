"""State to results: a study's finished work as the tables that analyses read."""

from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.metrics import metric_names
from lorafile.plan.forecast.calibration import errors
from lorafile.plan.plan import Plan
from lorafile.results.adapters import adapter_tables
from lorafile.results.claims_file import claims_file, read_claims
from lorafile.results.datacard import cards
from lorafile.results.environments import Environments
from lorafile.results.interim_looks import dates, looks
from lorafile.results.outcomes import ServingRefusals, StoredOutcomes, StoredSamples, run_details
from lorafile.results.results import Results
from lorafile.results.runs import (
    blocked_by,
    candidate_table,
    curve_rows,
    repeat_rows,
    run_row,
    unchosen_run,
    unfinished_curve,
    unfinished_runs,
    unfinished_status,
)
from lorafile.results.study_facts import configuration_row, data_of, hides_answers, model_of, topics
from lorafile.results.warnings import warnings
from lorafile.specs import Spec
from lorafile.state import Attempt, State

Rows = list[dict[str, Any]]
_RUN = ("configuration", "sweep", "seed", "outcome", "message", "key")
Held = dict[str, Attempt]


def gather(plan: Plan, state: State) -> Results:
    """Return what a study has found so far."""
    import pandas as pd

    graph, spec = plan.graph, plan.graph.spec
    history = state.latest(graph.nodes)
    places = Environments(plan)
    runs, curves = _runs(plan, state, history, places)
    looked, card = looks(spec, runs), cards(graph, plan.results, state)
    named, hidden = metric_names(graph), hides_answers(graph)
    tables = adapter_tables(graph, plan.results, history, state)
    adapters: dict[str, Any] = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    columns = list(dict.fromkeys([*_RUN, *(name for run in runs for name in run)]))
    return Results(
        **_declared(spec),
        primary=named[spec.primary],
        metrics=tuple(named.values()),
        configurations=pd.DataFrame(
            [
                configuration_row(c, spec.configurations, runs, graph.sections[c.name]["adapter"])
                for c in spec.configurations
            ]
        ),
        runs=pd.DataFrame(runs, columns=columns),
        profiles=pd.DataFrame(_profiles(plan, places)),
        curves=pd.DataFrame(curves, columns=["configuration", "seed", "step", "epoch", "loss", "learning_rate"]),
        environments=places.rows,
        data=data_of(plan),
        answers=pd.DataFrame([] if hidden else answer_rows(graph, plan.results, state)),
        answers_private=hidden,
        model=model_of(graph),
        forecast_errors=errors(attempt for attempts in history.values() for attempt in attempts),
        warnings=warnings(plan, runs, card, places),
        card=card,
        outcomes=StoredOutcomes(graph, plan.results, state),
        details=run_details(graph),
        samples=StoredSamples(graph, plan.results, state),
        repeats=pd.DataFrame(repeat_rows(graph, plan.results, history)),
        refusals=ServingRefusals(graph, plan.results, state),
        looks=looked,
        look_dates=dates(looked, runs, plan.results),
        candidates=candidate_table(plan, history, state),
        tuning=tuple(plan.tuning),
        **adapters,
    )


def _declared(spec: Spec) -> dict[str, Any]:
    """Return what the spec alone says of a study."""
    tables = spec.tables
    return {
        "study": spec.name,
        "question": tables.study.question,
        "title": tables.report.title or spec.name,
        "seeds": tuple(tables.study.seeds),
        "reference": spec.reference.path if spec.reference else "",
        "verdict": tables.verdict,
        "declared": tuple(tables.analysis),
        "claims": tuple(tables.claim),
        "recorded": read_claims(claims_file(spec.file)) if tables.claim else {},
        "published": tuple(tables.reference),
        "folder": spec.file.parent,
        "topics": topics(spec.configurations),
    }


def _runs(plan: Plan, state: State, history: dict[str, list[Attempt]], places: Environments) -> tuple[Rows, Rows]:
    """Return a row for each run, and one for each step of its curve."""
    graph, spec = plan.graph, plan.graph.spec
    open_runs = unfinished_runs(graph, plan.results, state)
    waiting = {one.configuration: one.why_open for one in plan.tuning if not one.chosen}
    runs: Rows = []
    curves: Rows = []
    for c in spec.configurations:
        if c.open:
            runs += [unchosen_run(c, seed, waiting.get(c.name, "")) for seed in spec.tables.study.seeds]
        for replicate in graph.replicates[c.name]:
            run, here = run_row(c, replicate, plan.results, history), open_runs.get(replicate.train or "")
            run |= places.of_run(replicate)
            run |= extra_figures(graph, c.name, replicate, plan.results)
            runs.append(run | blocked_by(run, graph, history) | unfinished_status(run, here))
            curves += curve_rows(c, replicate, history, state) or unfinished_curve(c, replicate, here)
    return runs, curves


def _profiles(plan: Plan, places: Environments) -> list[dict[str, Any]]:
    rows = []
    for configuration, key in plan.graph.profiles.items():
        attempt = plan.results.get(key)
        if attempt is not None and attempt.outcome == "done":
            where = {"device": attempt.device, "environment": places.of(key)}
            rows.append({"configuration": configuration, **where, **attempt.figures})
    return rows


def extra_figures(graph: Graph, name: str, replicate: Replicate, results: Held) -> dict[str, Any]:
    """Return `reference.log_loss`, `.before` and their difference `.change`; `lm_eval.<task>.<metric>` of each task."""
    found: dict[str, Any] = {}
    for what, key in replicate.extra.items():
        if key not in results or results[key].outcome != "done":
            continue
        figures = results[key].figures
        if what == "reference":
            before = results.get(graph.before[name]["reference"])
            found["reference.log_loss"] = figures["log_loss"]
            if before is not None:
                found["reference.before"] = before.figures["log_loss"]
                found["reference.change"] = figures["log_loss"] - before.figures["log_loss"]
        elif what.startswith("lm-eval/"):
            task = what.removeprefix("lm-eval/")
            found |= {f"lm_eval.{task}.{metric}": value for metric, value in figures.items()}
    return found


def answer_rows(graph: Graph, results: Held, state: State) -> list[dict[str, Any]]:
    """Return a row for each prompt and configuration: `configuration`, `prompt`, `untuned`, `tuned`.

    Tuned is the first seed's answer, and nothing for a configuration that is not trained.
    """
    found = []
    for configuration in graph.spec.configurations:
        replicates = graph.replicates[configuration.name]
        before = _answers(graph.before.get(configuration.name, {}).get("prompts"), results, state)
        key = replicates[0].extra.get("prompts") if replicates and replicates[0].train else None
        tuned = _answers(key, results, state)
        for row in before or tuned:
            answers = {"untuned": before.get(row, (None, None))[1], "tuned": tuned.get(row, (None, None))[1]}
            prompt = (before.get(row) or tuned[row])[0]
            found.append({"configuration": configuration.name, "number": row + 1, "prompt": prompt, **answers})
    return found


def _answers(key: str | None, results: Held, state: State) -> dict[int, tuple[str, str]]:
    """Return number of a prompt -> (prompt, answer)."""
    attempt = results.get(key or "")
    digest = attempt.outputs.get("predictions.jsonl.gz") if attempt is not None else None
    if digest is None or not state.objects.has(digest):
        return {}
    rows = state.objects.rows(digest)
    return {row["row"]: (row["reference"], row["answer"]) for row in rows}
