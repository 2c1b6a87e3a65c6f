"""State to results: a study's finished work as the tables that analyses read."""

from typing import Any

from lorafile.plan.forecast.error import errors
from lorafile.plan.plan import Plan
from lorafile.results.adapters import adapter_tables
from lorafile.results.candidates import candidate_table, unchosen_run
from lorafile.results.claims_file import claims_file, read_claims
from lorafile.results.configurations import configuration_row
from lorafile.results.datacard import cards
from lorafile.results.details import StoredSamples, run_details
from lorafile.results.environments import Environments
from lorafile.results.extra_evaluations import answer_rows, beside_figures
from lorafile.results.interim_looks import dates, looks
from lorafile.results.outcomes import StoredOutcomes
from lorafile.results.repeats import repeat_rows
from lorafile.results.results import Results
from lorafile.results.runs import blocked_by, curve_rows, run_row
from lorafile.results.serving import StoredRefusals
from lorafile.results.study_facts import data_of, hides_answers, metrics_of, model_of
from lorafile.results.topics import topics
from lorafile.results.unfinished import standing, unfinished_curve, unfinished_runs
from lorafile.results.warnings import warnings
from lorafile.specs import Spec
from lorafile.state import Attempt, State

Rows = list[dict[str, Any]]
_RUN = ("configuration", "sweep", "seed", "outcome", "message", "key")


def gather(plan: Plan, state: State) -> Results:
    """Return what a study has found so far."""
    import pandas as pd

    graph, spec = plan.graph, plan.graph.spec
    history = state.latest(graph.nodes)
    places = Environments(plan)
    runs, curves = _runs(plan, state, history, places)
    looked, card = looks(spec, runs), cards(graph, plan.results, state)
    named, hidden = metrics_of(graph), hides_answers(graph)
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
        refusals=StoredRefusals(graph, plan.results, state),
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
            run |= beside_figures(graph, c.name, replicate, plan.results)
            runs.append(run | blocked_by(run, graph, history) | standing(run, here))
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
