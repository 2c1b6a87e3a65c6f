"""What is inside the adapters: where their parameters are, how large and of what rank their updates, what drifts."""

from collections import Counter
from math import nan
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.factors import sweeps
from lorafile.analysis.common.format import amount, number
from lorafile.results.results import Results, grouped, missing, row_dicts, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

Row = dict[str, Any]
_MOST = 4  # configurations with sentences of their own
MEASURES = {
    "relative_norm": "‖ΔW‖ / ‖W‖",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "energy_rank": "rank at 90 % energy",
}
_MEASURED = [Column(key, title, "number", f"{key}.spread") for key, title in MEASURES.items()]


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what is inside the adapters; nothing where none was looked into."""
    rows = configuration_rows(results.inspections, results.runs)
    if not rows:
        return []
    from lorafile.analysis.adapters.inspect_charts import charts

    question = "Where do the adapters change the model, by how much, and with what rank?"
    modules = results.inspected_modules
    lines, tables = _sentences(rows, _stored_ranks(modules)), (_summary(rows), _by_type(modules))
    drawn, captions = charts(modules, results.representations, sweeps(results))
    return [Analysis("inspect", "inspect", "Inside the adapters", question, lines, tables, drawn, captions)]


def configuration_rows(inspections: pd.DataFrame, runs: pd.DataFrame) -> list[Row]:
    """Return one row for each configuration: figures of its adapters, mean and spread over seeds."""
    parameters: dict[str, tuple[int, float]] = {}
    for name, trained, total in rows_of(runs, "configuration", "trainable_parameters", "total_parameters"):
        if trained and total:
            parameters.setdefault(name, (int(trained), trained / total))
    rows = []
    for (name,), seeds in _groups(inspections, "configuration").items():
        first = seeds[0]
        row: Row = {"configuration": name, "n": len(seeds)}
        row |= {key: first[key] for key in ("trainable_parameters", "trainable_share", "adapted_modules")}
        # PEFT converts a start that writes the base to twice its rank: more is stored than was trained.
        stored, (trained, share) = int(first["trainable_parameters"]), parameters.get(name, (None, None))
        if trained is not None and trained < stored:
            row |= {"trainable_parameters": trained, "trainable_share": share, "stored_parameters": stored}
        for key in (*MEASURES, "cka_min", "cka_last"):
            row |= _over_seeds(key, seeds)
        rows.append(row)
    return rows


def _groups(frame: pd.DataFrame, *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows of a table by some of its columns, in order."""
    return grouped((tuple(row[key] for key in keys), row) for row in row_dicts(frame))


def _over_seeds(key: str, rows: list[Row]) -> Row:
    values = [float(row[key]) for row in rows if not missing(row.get(key))]
    if not values:
        return {key: None, f"{key}.spread": None, f"{key}.n": None}
    spread = stdev(values) if len(values) > 1 else nan
    return {key: fmean(values), f"{key}.spread": spread, f"{key}.n": len(values)}


def _sentences(rows: list[Row], ranks: dict[str, int]) -> list[str]:
    """Return what the figures say.

    :param ranks: configuration -> the rank that every module of it has
    """
    described = _described(rows)
    lines = [
        _rank_sentence(row, ranks.get(row["configuration"])) for row in described if row["effective_rank"] is not None
    ]
    for row in described:
        if row["cka_min"] is not None:
            last = f"{number(row['cka_last'])} after the last block"
            lines.append(
                f"{row['configuration']}: similarity to the base (CKA) is {last}, {number(row['cka_min'])} at least."
            )
    if converted := [row["configuration"] for row in rows if row.get("stored_parameters")]:
        lines.append(
            f"Stored with more parameters than were trained: {listing(converted)}. Their start writes the base, and "
            "PEFT converts them to plain LoRA of twice the rank, whose update is told here."
        )
    if blind := [row["configuration"] for row in rows if row["relative_norm"] is None]:
        lines.append(
            f"No update of a weight is defined for {listing(blind)}: its method changes what flows past the weights."
        )
    return lines


def _described(rows: list[Row]) -> list[Row]:
    """Return the rows that sentences describe: all of a few; of many the largest and the smallest update."""
    sized = [row for row in rows if row["relative_norm"] is not None]
    if len(rows) <= _MOST or not sized:
        return rows[:_MOST]
    ends = [pick(sized, key=lambda row: row["relative_norm"]) for pick in (max, min)]
    return [row for row in rows if row in ends]


def _rank_sentence(row: Row, stored: int | None) -> str:
    text = f"{row['configuration']}: an update has an effective rank of {number(row['effective_rank'])}"
    text += f" of {stored}" if stored else ""
    share = amount("share", row["relative_norm"])
    return (
        f"{text}; {number(row['energy_rank'])} singular values hold 90 % of it, means over modules and seeds. It is "
        f"{share} as large as the weight that it is added to."
    )


def _stored_ranks(modules: pd.DataFrame) -> dict[str, int]:
    """Return configuration -> the rank that every module of it has; without those where they differ or have none."""
    ranks = grouped((name, int(rank)) for name, rank in rows_of(modules, "configuration", "rank") if rank is not None)
    return {name: values[0] for name, values in ranks.items() if len(set(values)) == 1}


def _summary(rows: list[Row]) -> Table:
    columns = (
        Column("configuration", "configuration"),
        Column("trainable_parameters", "trained parameters", "count"),
        Column("trainable_share", "share of all", "share"),
        Column("stored_parameters", "stored parameters", "count"),
        Column("adapted_modules", "modules", "count"),
        *_MEASURED,
        Column("cka_min", "least CKA with the base", "number", "cka_min.spread"),
    )
    return Table("Each configuration, mean over modules and seeds", pd.DataFrame(rows), filled(columns, rows))


def _by_type(modules: pd.DataFrame) -> Table:
    """Return one row for each configuration and type of module: parameters, norms and ranks."""
    rows: list[Row] = []
    totals: Counter[str] = Counter()
    for (name, kind), group in _groups(modules, "configuration", "type").items():
        seeds = len({row["seed"] for row in group})
        parameters = sum(row["parameters"] for row in group) // seeds
        totals[name] += parameters
        row: Row = {"configuration": name, "type": kind, "modules": len(group) // seeds, "parameters": parameters}
        for key in MEASURES:
            row |= _over_seeds(key, group)
        rows.append(row)
    rows = [row | {"share": row["parameters"] / max(totals[row["configuration"]], 1)} for row in rows]
    columns = (
        Column("configuration", "configuration"),
        Column("type", "module type"),
        Column("modules", "modules", "count"),
        Column("parameters", "parameters", "count"),
        Column("share", "share of the adapter", "share"),
        *_MEASURED,
    )
    title = "By type of module, ± standard deviation over layers and seeds"
    return Table(title, pd.DataFrame(rows), filled(columns, rows))
