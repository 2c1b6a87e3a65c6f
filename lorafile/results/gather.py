"""State to results: a study's finished work as the tables that analyses read."""

from typing import Any

from lorafile.files.digests import json_digest
from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.metrics import metric_names
from lorafile.graph.settings import stored_rank
from lorafile.plan.forecast.calibration import errors
from lorafile.plan.plan import Plan
from lorafile.results.claims_file import claims_file, read_claims
from lorafile.results.datacard import cards
from lorafile.results.environments import Environments
from lorafile.results.merging import merge_rows
from lorafile.results.outcomes import StoredSamples, run_details, serving_refusals, stored_outcomes
from lorafile.results.registration import commit_of, registration_sentences
from lorafile.results.results import Results
from lorafile.results.runs import (
    Attempts,
    History,
    blocked_by,
    candidate_table,
    curve_rows,
    dates,
    done,
    looks,
    repeat_rows,
    run_row,
    stored_rows,
    unfinished_runs,
    unfinished_status,
    validation_rows,
)
from lorafile.results.study_facts import configuration_rows, data_of, hides_answers, model_of, topics
from lorafile.results.warnings import warnings
from lorafile.specs import Configuration, Spec
from lorafile.state import State

Rows = list[dict[str, Any]]
_LETTERS = 16  # of a digest that only tells equal from unequal
_RUN = ("configuration", "sweep", "seed", "outcome", "message", "key")
_INSPECTED = {"inspected_modules": "modules.jsonl.gz", "representations": "representations.jsonl.gz"}


def gather(plan: Plan, state: State) -> Results:
    """Return what a study has found so far."""
    import pandas as pd

    graph, spec = plan.graph, plan.graph.spec
    history = state.latest(graph.nodes)
    places = Environments(plan)
    runs, curves, validations = _runs(plan, state, history, places)
    looked, card = looks(spec, runs), cards(graph, plan.results, state)
    named, hidden = metric_names(graph), hides_answers(graph)
    tables = adapter_tables(graph, plan.results, history, state)
    adapters: dict[str, Any] = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    profiles = _profiles(plan, places)
    columns = list(dict.fromkeys([*_RUN, *(name for run in runs for name in run)]))
    configurations = configuration_rows(spec.configurations, runs, graph.sections)
    attempts = [attempt for one_node in history.values() for attempt in one_node]
    unlocked = sum(attempt.environment.get("state_lock") == "none" for attempt in attempts)
    return Results(
        **_declared(spec),
        primary=named[spec.primary],
        metrics=tuple(named.values()),
        configurations=pd.DataFrame(configurations),
        runs=pd.DataFrame(runs, columns=columns),
        profiles=pd.DataFrame(profiles),
        curves=pd.DataFrame(curves, columns=["configuration", "seed", "step", "epoch", "loss", "learning_rate"]),
        validations=pd.DataFrame(validations),
        environments=places.rows,
        data=data_of(plan),
        answers=pd.DataFrame([] if hidden else answer_rows(graph, plan.results, state)),
        answers_private=hidden,
        model=model_of(graph),
        forecast_errors=errors(attempts),
        warnings=warnings(plan, runs, card, places, profiles),
        card=card,
        registration=tuple(registration_sentences(spec, history)),
        commit=commit_of(spec),
        unlocked=(unlocked, len(attempts)),
        outcomes=stored_outcomes(graph, plan.results, state),
        details=run_details(graph),
        samples=StoredSamples(graph, plan.results, state),
        repeats=pd.DataFrame(repeat_rows(graph, plan.results, history)),
        refusals=serving_refusals(graph, plan.results, state),
        looks=looked,
        look_dates=dates(looked, runs, plan.results),
        candidates=candidate_table(plan, history, state),
        tuning=tuple(plan.tuning),
        **adapters,
    )


def gather_scores(plan: Plan, state: State) -> Results:
    """Return a study's configurations, runs and outcomes, and nothing else: what its comparisons are made of."""
    import pandas as pd

    graph, spec, named = plan.graph, plan.graph.spec, metric_names(plan.graph)
    history = state.latest(graph.nodes, forecasts=False)
    runs = [
        run_row(c, replicate, plan.results, history)
        for c in spec.configurations
        if not c.open
        for replicate in graph.replicates[c.name]
    ]
    nothing = pd.DataFrame()
    configurations = configuration_rows(spec.configurations, runs, graph.sections)
    columns = list(dict.fromkeys([*_RUN, *(name for run in runs for name in run)]))
    return Results(
        **_declared(spec),
        primary=named[spec.primary],
        metrics=tuple(named.values()),
        configurations=pd.DataFrame(configurations),
        runs=pd.DataFrame(runs, columns=columns),
        profiles=nothing,
        curves=nothing,
        outcomes=stored_outcomes(graph, plan.results, state),
        looks=looks(spec, runs),
        tuning=tuple(plan.tuning),
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
        "file": str(spec.file),
        "folder": spec.file.parent,
        "topics": topics(spec.configurations),
    }


def _runs(plan: Plan, state: State, history: History, places: Environments) -> tuple[Rows, Rows, Rows]:
    """Return a row for each run, one for each step of its curve, and one for each of its evaluations."""
    graph, spec = plan.graph, plan.graph.spec
    open_runs = unfinished_runs(graph, plan.results, state)
    waiting = {status.configuration: status.why_open for status in plan.tuning if not status.chosen}
    runs: Rows = []
    curves: Rows = []
    validations: Rows = []
    for c in spec.configurations:
        if c.open:  # it is not known yet which of the candidates it is
            about = {"configuration": c.name, "sweep": c.sweep, "outcome": "missing", "key": ""}
            about["message"] = waiting.get(c.name, "")
            runs += [{**about, "seed": seed} for seed in spec.tables.study.seeds]
        for replicate in graph.replicates[c.name]:
            run, progress = run_row(c, replicate, plan.results, history), open_runs.get(replicate.train or "")
            run |= places.of_run(replicate) | question_tokens(graph, replicate, plan.results)
            run |= extra_figures(graph, c.name, replicate, plan.results)
            runs.append(run | blocked_by(run, graph, history) | unfinished_status(run, progress))
            curves += curve_rows(c, replicate, history, state, progress)
            validations += validation_rows(c, replicate, history, state)
    return runs, curves, validations


def question_tokens(graph: Graph, replicate: Replicate, results: Attempts) -> dict[str, float]:
    """Return how many tokens a held-out example has on average, solved examples in its prompt included."""
    keys = {split: graph.nodes[key].inputs["data"] for (split, _), key in replicate.predict.items()}
    attempt = done(results, keys.get("test") or keys.get("validation"))
    if attempt is None or not attempt.figures.get("examples") or "tokens" not in attempt.figures:
        return {}
    return {"question_tokens": attempt.figures["tokens"] / attempt.figures["examples"]}


def _profiles(plan: Plan, places: Environments) -> list[dict[str, Any]]:
    rows = []
    for configuration, key in plan.graph.profiles.items():
        if attempt := done(plan.results, key):
            node = plan.graph.nodes[key]
            base = [node.settings[name] for name in ("model", "quantization", "profile")]
            about = {"configuration": configuration, "device": attempt.device, "environment": places.of(key)}
            about |= {"key": key, "base": json_digest([*base, node.inputs], sort_keys=True)[:_LETTERS]}
            rows.append({**about, **attempt.figures})
    return rows


def extra_figures(graph: Graph, name: str, replicate: Replicate, results: Attempts) -> dict[str, Any]:
    """Return `reference.log_loss`, `.before` and their difference `.change`; `lm_eval.<task>.<metric>` of each task."""
    extra: dict[str, Any] = {}
    for what, key in replicate.extra.items():
        attempt = done(results, key)
        if attempt is None:
            continue
        figures = attempt.figures
        if what == "reference":
            before = results.get(graph.before[name]["reference"])
            extra["reference.log_loss"] = figures["log_loss"]
            if before is not None:
                extra["reference.before"] = before.figures["log_loss"]
                extra["reference.change"] = figures["log_loss"] - before.figures["log_loss"]
        elif what.startswith("lm-eval/"):
            task = what.removeprefix("lm-eval/")
            extra |= {f"lm_eval.{task}.{metric}": value for metric, value in figures.items()}
    return extra


def answer_rows(graph: Graph, results: Attempts, state: State) -> list[dict[str, Any]]:
    """Return a row for each prompt and configuration: `configuration`, `prompt`, `untuned`, `tuned`.

    Tuned is the first seed's answer, and nothing for a configuration that is not trained.
    """

    def answers(key: str | None) -> dict[int, tuple[str, str]]:  # number of a prompt -> (prompt, answer)
        rows = stored_rows(results.get(key or ""), "predictions.jsonl.gz", state)
        return {row["row"]: (row["reference"], row["answer"]) for row in rows}

    rows = []
    for configuration in graph.spec.configurations:
        replicates = graph.replicates[configuration.name]
        before = answers(graph.before.get(configuration.name, {}).get("prompts"))
        tuned = answers(replicates[0].extra.get("prompts") if replicates and replicates[0].train else None)
        for number in before or tuned:
            prompt, _ = before.get(number) or tuned[number]
            row = {"configuration": configuration.name, "number": number + 1, "prompt": prompt}
            pairs = {"untuned": before.get(number), "tuned": tuned.get(number)}
            rows.append(row | {who: pair[1] if pair else None for who, pair in pairs.items()})
    return rows


def adapter_tables(graph: Graph, results: Attempts, history: History, state: State) -> dict[str, Rows]:
    """Return the rows of `inspections`, `inspected_modules`, `representations`, `truncations` and `merges`."""
    tables: dict[str, Rows] = {name: [] for name in ("inspections", *_INSPECTED, "truncations", "merges")}
    merging = graph.spec.tables.merge
    for c in graph.spec.configurations:
        for replicate in graph.replicates[c.name]:
            if attempt := done(results, replicate.inspect):
                about = {"configuration": c.name, "seed": replicate.seed}
                tables["inspections"].append({**about, **attempt.figures})
                for name, file in _INSPECTED.items():
                    tables[name] += [{**about, **row} for row in stored_rows(attempt, file, state)]
            if replicate.truncated:
                own = stored_rank(graph.sections[c.name]["adapter"])
                tables["truncations"] += truncation_rows(c, replicate, results, history, own)
            if merging is not None:
                tables["merges"] += merge_rows(c, replicate, results, merging)
    return tables


def truncation_rows(c: Configuration, replicate: Replicate, results: Attempts, history: History, own: int) -> Rows:
    """Return how each smaller rank stands, like a run; its figures, and what share of the update it kept.

    :param own: the rank that the whole adapter is stored with
    """
    rows = []
    for rank, cut in replicate.truncated.items():
        attempt = results.get(cut.train or "")
        kept = {"kept_energy": attempt.figures.get("kept_energy")} if attempt is not None else {}
        rows.append({**run_row(c, cut, results, history), "rank": rank, "of_rank": own, **kept})
    return rows
