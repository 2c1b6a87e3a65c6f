"""The candidates of tuned configurations: a row for each under each seed, those that lost or diverged among them."""

from typing import TYPE_CHECKING, Any

from lorafile.plan.plan import Plan
from lorafile.plan.tuning import candidate_replicates
from lorafile.results.runs import blocked_by, run_row
from lorafile.results.unfinished import standing, unfinished_runs
from lorafile.specs import Configuration
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("configuration", "candidate", "values", "seed", "outcome", "message", "key", "chosen", "added")


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
                run |= blocked_by(run, graph, history) | standing(run, open_runs.get(replicate.train or ""))
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
