"""What was found inside adapters, what became of them at smaller ranks, and how they merged: a row for each."""

from typing import Any

from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.settings import stored_rank
from lorafile.results.runs import run_row
from lorafile.specs import Configuration
from lorafile.specs.tables.settings import MergeTable
from lorafile.state import Attempt, State

Rows = list[dict[str, Any]]
Held = dict[str, Attempt]


def adapter_tables(graph: Graph, results: Held, history: dict[str, list[Attempt]], state: State) -> dict[str, Rows]:
    """Return the rows of `inspections`, `inspected_modules`, `representations`, `truncations` and `merges`."""
    found: dict[str, Rows] = {name: [] for name in TABLES}
    merging = graph.spec.tables.merge
    for configuration in graph.spec.configurations:
        for replicate in graph.replicates[configuration.name]:
            for name, rows in _inspected(configuration, replicate, results, state).items():
                found[name] += rows
            if replicate.truncated:
                own = stored_rank(graph.sections[configuration.name]["adapter"])
                found["truncations"] += truncation_rows(configuration, replicate, results, history, own)
            if merging is not None:
                found["merges"] += merge_rows(configuration, replicate, results, merging)
    return found


TABLES = ("inspections", "inspected_modules", "representations", "truncations", "merges")


def _inspected(c: Configuration, replicate: Replicate, results: Held, state: State) -> dict[str, Rows]:
    attempt = results.get(replicate.inspect or "")
    if attempt is None or attempt.outcome != "done":
        return {}
    about = {"configuration": c.name, "seed": replicate.seed}
    files = {"inspected_modules": "modules.jsonl.gz", "representations": "representations.jsonl.gz"}
    found = {"inspections": [{**about, **attempt.figures}]}
    for name, file in files.items():
        digest = attempt.outputs[file]
        there = state.objects.has(digest)
        found[name] = [{**about, **row} for row in state.objects.rows(digest)] if there else []
    return found


def truncation_rows(
    c: Configuration, replicate: Replicate, results: Held, history: dict[str, list[Attempt]], own: int
) -> Rows:
    """Return how each smaller rank stands, like a run; its figures, and what share of the update it kept.

    :param own: the rank that the whole adapter is stored with
    """
    rows = []
    for rank, cut in replicate.truncated.items():
        attempt = results.get(cut.train or "")
        kept = {"kept_energy": attempt.figures.get("kept_energy")} if attempt is not None else {}
        rows.append({**run_row(c, cut, results, history), "rank": rank, "of_rank": own, **kept})
    return rows


def merge_rows(c: Configuration, replicate: Replicate, results: Held, table: MergeTable) -> Rows:
    """Return how the merged model differs at each type, and whether that passes the declared gate.

    The gate is held against stored figures here, so that another tolerance merges nothing again.
    """
    rows = []
    for dtype, key in replicate.merge.items():
        attempt = results.get(key)
        if attempt is not None and attempt.outcome == "done":
            failures = gate_failures(attempt.figures, table)
            about = {"configuration": c.name, "seed": replicate.seed, "dtype": dtype}
            rows.append({**about, **attempt.figures, "passes": not failures, "failures": failures})
    return rows


def gate_failures(figures: dict[str, Any], table: MergeTable) -> list[str]:
    """Return what of a gate a merged model fails, in words; nothing where it passes."""
    if not figures["finite"]:
        return ["logits that are no numbers"]
    found = []
    moved, agreed = abs(figures["log_loss_difference"]), figures["argmax_agreement"]
    if table.max_log_loss_difference is not None and moved > table.max_log_loss_difference:
        found.append(
            f"a log loss that moves by {moved:.3g}, more than {table.max_log_loss_difference:g} nats per token"
        )
    if table.min_argmax_agreement is not None and agreed < table.min_argmax_agreement:
        found.append(f"an argmax that agrees at {agreed:.2%} of tokens, fewer than {table.min_argmax_agreement:.2%}")
    largest = figures["max_logit_difference"]
    if table.max_logit_difference is not None and largest > table.max_logit_difference:
        found.append(f"a logit that differs by {largest:.3g}, more than {table.max_logit_difference:g}")
    return found
