"""What a claim rests on: the runs and measurements of its configurations, each with a digest of its figures."""

import hashlib
import json
from typing import Any

from lorafile.analysis.common.cost_measures import COSTS
from lorafile.analysis.common.scores import cells, profiles, split_of
from lorafile.analysis.compare.pairs import named_configuration
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import ClaimTable, Limits
from lorafile.specs.tables.evaluate import metric_label

_LETTERS = 16  # of a digest: enough that none changes unseen, and short enough to be read in a diff


def metric_of(results: Results, claim: ClaimTable) -> str:
    """Return the metric that a claim is about, as results call it."""
    named = next((table.metric for table in results.declared if claim.analysis and table.name == claim.analysis), None)
    wanted = metric_label(named or claim.metric or results.primary)
    return next((metric for metric in results.metrics if metric == wanted), wanted)


def configurations(results: Results, claim: ClaimTable) -> list[str]:
    """Return the one or two configurations of a claim; a name may be an alias."""
    return [named_configuration(results, name) or name for name in (claim.one, claim.other) if name is not None]


def limits(claim: ClaimTable) -> dict[str, Any]:
    """Return the limits of cost that a claim sets."""
    return {name: getattr(claim, name) for name in Limits.model_fields if getattr(claim, name) is not None}


def of_quality(claim: ClaimTable) -> bool:
    """Return whether a claim says anything of a metric, and not only of cost."""
    return any(value is not None for value in (claim.is_, claim.at_most_below, claim.at_least, claim.at_most))


def rests_on(results: Results, claim: ClaimTable) -> dict[str, str]:
    """Return the runs and measurements of a claim -> digest of the figures that it is checked against."""
    metric, bounds = metric_of(results, claim), limits(claim)
    split, about = split_of(results, metric), configurations(results, claim)
    of_runs = [COSTS[name].column for name in bounds if name in COSTS and COSTS[name].source == "runs"]
    of_runs += ["trainable_parameters", "total_parameters"] if "trainable_share" in bounds else []
    columns = [*([f"{split}.{metric}"] if of_quality(claim) else []), *of_runs]
    found: dict[str, str] = {}
    rows = zip(*(cells(results.runs, key) for key in ("configuration", "seed", "outcome", "key")), strict=True)
    figures = list(zip(*(cells(results.runs, column) for column in columns), strict=True)) if columns else []
    for at, (name, seed, outcome, key) in enumerate(rows):
        if columns and name in about and outcome != "missing":
            seed = None if seed is None else int(seed)
            each = _each(results, (name, seed, split), metric) if of_quality(claim) else None
            found[name if seed is None else f"{name}/seed={seed}"] = _digest([key, outcome, figures[at], each])
    measured = [COSTS[name].column for name in bounds if name in COSTS and COSTS[name].source == "profiles"]
    table, _ = profiles(results)
    if measured and about[0] in cells(table, "configuration"):
        row = table[table["configuration"] == about[0]].iloc[:1]
        found[f"{about[0]}:profile"] = _digest([cells(row, name)[0] for name in ("device", *measured)])
    return found


def _each(results: Results, run: tuple[str, int | None, str], metric: str) -> list[float] | None:
    frame = results.outcomes.get(run)
    return None if frame is None or metric not in frame else [float(value) for value in frame[metric]]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:_LETTERS]
