"""State to results: a study's finished work as the tables that analyses read."""

from typing import Any

from lorafile.claims import claims_file, read_claims
from lorafile.datacard import cards, leak_sentences
from lorafile.gather.adapters import adapter_tables
from lorafile.gather.beside import answer_rows, beside_figures
from lorafile.gather.candidates import candidate_table, unchosen_run
from lorafile.gather.configurations import configuration_row
from lorafile.gather.details import StoredSamples, run_details
from lorafile.gather.environments import Environments
from lorafile.gather.looks import dates, looks, under_way
from lorafile.gather.outcomes import StoredOutcomes
from lorafile.gather.repeats import repeat_rows
from lorafile.gather.runs import curve_rows, held_up, run_row
from lorafile.gather.serving import StoredRefusals
from lorafile.gather.topics import topics
from lorafile.gather.unfinished import cut_micro_batches, standing, unfinished_curve, unfinished_runs
from lorafile.graph import Graph
from lorafile.lockfile import identity
from lorafile.metrics import OF_HEADS
from lorafile.nodes.metrics import is_head
from lorafile.plan import Action, Plan
from lorafile.results import OwnName, Results
from lorafile.specs.evaluate_settings import label
from lorafile.state import State

_RUN = ("configuration", "sweep", "seed", "outcome", "message", "key")


def gather(plan: Plan, state: State) -> Results:
    """Return what a study has found so far."""
    import pandas as pd

    graph, spec = plan.graph, plan.graph.spec
    history = state.latest(graph.nodes)
    places = Environments(plan)
    open_runs = unfinished_runs(graph, plan.results, state)
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    waiting = {one.configuration: one.why_open for one in plan.tuning if not one.chosen}
    for c in spec.configurations:
        if c.open:
            runs += [unchosen_run(c, seed, waiting.get(c.name, "")) for seed in spec.tables.study.seeds]
        for replicate in graph.replicates[c.name]:
            run, here = run_row(c, replicate, plan.results, history), open_runs.get(replicate.train or "")
            run |= places.of_run(replicate)
            run |= beside_figures(graph, c.name, replicate, plan.results)
            runs.append(run | held_up(run, graph, history) | standing(run, here))
            curves += curve_rows(c, replicate, history, state) or unfinished_curve(c, replicate, here)
    looked = looks(spec, runs)
    named = _metrics(graph)
    hidden = _private(graph)
    card = cards(graph, plan.results, state)
    columns = list(dict.fromkeys([*_RUN, *(name for run in runs for name in run)]))
    return Results(
        study=spec.name,
        question=spec.tables.study.question,
        title=spec.tables.report.title or spec.name,
        primary=named[spec.primary],
        metrics=tuple(named.values()),
        seeds=tuple(spec.tables.study.seeds),
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
        data=_data(plan),
        answers=pd.DataFrame([] if hidden else answer_rows(graph, plan.results, state)),
        answers_private=hidden,
        reference=spec.reference.path if spec.reference else "",
        model=_model(graph),
        warnings=[
            *plan.warnings,
            *(line for one in card for line in leak_sentences(one)),
            *_unpacked(plan),
            *_warnings(plan, runs),
            *places.mixed(graph),
            *under_way(spec, runs),
        ],
        card=card,
        outcomes=StoredOutcomes(graph, plan.results, state),
        details=run_details(graph),
        samples=StoredSamples(graph, plan.results, state),
        repeats=pd.DataFrame(repeat_rows(graph, plan.results, history)),
        refusals=StoredRefusals(graph, plan.results, state),
        verdict=spec.tables.verdict,
        declared=tuple(spec.tables.analysis),
        looks=looked,
        look_dates=dates(looked, runs, plan.results),
        claims=tuple(spec.tables.claim),
        recorded=read_claims(claims_file(spec.file)) if spec.tables.claim else {},
        published=tuple(spec.tables.reference),
        folder=spec.file.parent,
        topics=topics(spec.configurations),
        candidates=candidate_table(plan, history, state),
        tuning=tuple(plan.tuning),
        **{name: pd.DataFrame(rows) for name, rows in adapter_tables(graph, plan.results, history, state).items()},
    )


def _private(graph: Graph) -> bool:
    """Return whether there are prompts that no report shows: a tuned model's answers can hold what it was tuned on."""
    prompts = graph.spec.tables.evaluate.prompts
    if prompts is None or prompts.private is not None:
        return bool(prompts and prompts.private)
    return bool(graph.spec.tables.data.private)


def _metrics(graph: Graph) -> dict[str, str]:
    """Return every metric by name; that of a metric file, and of a head's loss, knows its own unit and direction."""
    found = {}
    heads = all(map(is_head, graph.spec.configurations))
    for name in map(label, graph.spec.tables.evaluate.metrics):
        own = graph.own.get(name) or (OF_HEADS.get(name) if heads else None)
        found[name] = OwnName(name, own.unit, own.more_is_better) if own else name
    return found


def _profiles(plan: Plan, places: Environments) -> list[dict[str, Any]]:
    rows = []
    for configuration, key in plan.graph.profiles.items():
        attempt = plan.results.get(key)
        if attempt is not None and attempt.outcome == "done":
            where = {"device": attempt.device, "environment": places.of(key)}
            rows.append({"configuration": configuration, **where, **attempt.figures})
    return rows


def _data(plan: Plan) -> dict[str, Any]:
    spec = plan.graph.spec
    prepared = plan.graph.splits[spec.configurations[0].name]
    section = plan.graph.nodes[next(iter(prepared.values()))].settings["data"]
    splits = {}
    for split, key in prepared.items():
        splits[split] = plan.results[key].figures if key in plan.results else {}
    table = spec.tables.data
    return {
        "path": table.path,
        "format": section["format"],
        **({"template": section["template"]} if section.get("template") else {}),
        "max_length": table.max_length,
        **({"private": True} if table.private else {}),
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


def _unpacked(plan: Plan) -> list[str]:
    """Say which models could not keep packed documents apart."""
    told = [attempt.figures.get("unpacked") for attempt in plan.results.values()]
    return list(dict.fromkeys(sentence for sentence in told if sentence))


def _failed_metrics(plan: Plan) -> list[str]:
    """Say which metric files gave no figure, and why; the runs themselves stand."""
    told: dict[str, list[str]] = {}
    for change in plan.changes:
        if change.action is Action.RETRY and "metric_file" in plan.graph.nodes[change.key].settings:
            told.setdefault(change.address.rpartition("/")[2], []).append(change.reason.removeprefix("failed: "))
    return [f"The metric {name} has no figure in {len(why)} places: {why[0]}" for name, why in told.items()]


def _warnings(plan: Plan, runs: list[dict[str, Any]]) -> list[str]:
    """Say what a reader has to know before the first figure."""
    found = []
    missing = [run for run in runs if run["outcome"] in ("missing", "failed", "interrupted", "running")]
    if missing:
        found.append(f"This study is partial: {len(missing)} of {len(runs)} runs have no result yet.")
    for outcome, word in (("diverged", "diverged"), ("out-of-memory", "ran out of memory")):
        number = sum(run["outcome"] == outcome for run in runs)
        if number:
            found.append(f"{number} of {len(runs)} runs {word}; they are shown as such and are in no average.")
    imported = [f"{run['configuration']}/seed={run['seed']}" for run in runs if run.get("imported")]
    if imported:
        listed = ", ".join(imported[:8]) + (f" and {len(imported) - 8} more" if len(imported) > 8 else "")
        word = "run was" if len(imported) == 1 else "runs were"
        found.append(f"{len(imported)} {word} imported, not trained under this protocol: {listed}.")
    found += cut_micro_batches(runs)
    found += _failed_metrics(plan)
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
