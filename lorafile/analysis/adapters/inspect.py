"""What is inside the adapters: where their parameters are, how large and of what rank their updates, what drifts."""

from math import nan
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import amount, number
from lorafile.results.results import Results, missing, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

Row = dict[str, Any]
_MOST = 4  # configurations with sentences of their own
MEASURES = ("relative_norm", "effective_rank", "stable_rank", "energy_rank")


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what is inside the adapters; nothing where none was looked into."""
    rows = configuration_rows(results)
    if not rows:
        return []
    from lorafile.analysis.adapters.inspect_charts import captions, charts

    question = "Where do the adapters change the model, by how much, and with what rank?"
    lines, tables = _sentences(results, rows), (_summary(rows), _by_type(results))
    drawn, about = charts(results), captions(results)
    return [Analysis("inspect", "inspect", "Inside the adapters", question, lines, tables, drawn, about)]


def configuration_rows(results: Results) -> list[Row]:
    """Return one row for each configuration: figures of its adapters, mean and spread over seeds."""
    rows = []
    for name, mine in _groups(results.inspections, ["configuration"]).items():
        first = mine[0]
        row: Row = {"configuration": name[0], "n": len(mine)}
        row |= {key: first[key] for key in ("trainable_parameters", "trainable_share", "adapted_modules")}
        row |= _trained(results, str(name[0]), int(first["trainable_parameters"]))
        for key in (*MEASURES, "cka_min", "cka_last"):
            row |= _over_seeds(key, mine)
        rows.append(row)
    return rows


def _trained(results: Results, name: str, stored: int) -> Row:
    """Return what was trained, where more is stored: PEFT converts a start that writes the base to twice its rank."""
    keys = ("configuration", "trainable_parameters", "total_parameters")
    runs = rows_of(results.runs, *keys)
    trained, total = next(((own, every) for of, own, every in runs if of == name and own and every), (None, None))
    if trained is None or trained >= stored:
        return {}
    return {"trainable_parameters": int(trained), "trainable_share": trained / total, "stored_parameters": stored}


def _groups(frame: pd.DataFrame, keys: list[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows of a table by some of its columns, in order."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in frame.to_dict("records"):
        found.setdefault(tuple(row[key] for key in keys), []).append({str(key): value for key, value in row.items()})
    return found


def _over_seeds(key: str, rows: list[Row]) -> Row:
    known = [float(row[key]) for row in rows if not missing(row.get(key))]
    if not known:
        return {key: None, f"{key}.spread": None, f"{key}.n": None}
    spread = stdev(known) if len(known) > 1 else nan
    return {key: fmean(known), f"{key}.spread": spread, f"{key}.n": len(known)}


def _sentences(results: Results, rows: list[Row]) -> list[str]:
    told = _telling(rows)
    lines = [_rank_sentence(row, _stored_rank(results, row["configuration"])) for row in told]
    lines = [line for line in lines if line]
    for row in told:
        if not missing(row["cka_min"]):
            last = f"{number(row['cka_last'])} after the last block"
            lines.append(
                f"{row['configuration']}: similarity to the base (CKA) is {last}, {number(row['cka_min'])} at least."
            )
    if converted := [row["configuration"] for row in rows if row.get("stored_parameters")]:
        lines.append(
            f"Stored with more parameters than were trained: {listing(converted)}. Their start writes the base, and "
            "PEFT converts them to plain LoRA of twice the rank, whose update is told here."
        )
    if blind := [row["configuration"] for row in rows if missing(row["relative_norm"])]:
        lines.append(
            f"No update of a weight is defined for {listing(blind)}: its method changes what flows past the weights."
        )
    return lines


def _telling(rows: list[Row]) -> list[Row]:
    """Return the rows that are told in sentences: all of a few; of many the largest and the smallest update."""
    known = [row for row in rows if not missing(row["relative_norm"])]
    if len(rows) <= _MOST or not known:
        return rows[:_MOST]
    ends = (max(known, key=lambda row: row["relative_norm"]), min(known, key=lambda row: row["relative_norm"]))
    return [row for row in rows if row in ends]


def _rank_sentence(row: Row, stored: int | None) -> str:
    if missing(row["effective_rank"]):
        return ""
    text = f"{row['configuration']}: an update has an effective rank of {number(row['effective_rank'])}"
    text += f" of {stored}" if stored else ""
    share = amount("share", row["relative_norm"])
    return (
        f"{text}; {number(row['energy_rank'])} singular values hold 90 % of it, means over modules and seeds. It is "
        f"{share} as large as the weight that it is added to."
    )


def _stored_rank(results: Results, name: str) -> int | None:
    """Return the rank that every module of a configuration has; None where they differ or have none."""
    frame = results.inspected_modules
    if "rank" not in frame.columns:
        return None
    ranks = {int(rank) for rank in frame[frame["configuration"] == name]["rank"] if not missing(rank)}
    return ranks.pop() if len(ranks) == 1 else None


def _summary(rows: list[Row]) -> Table:
    columns = [
        Column("configuration", "configuration"),
        Column("trainable_parameters", "trained parameters", "count"),
        Column("trainable_share", "share of all", "share"),
        Column("stored_parameters", "stored parameters", "count"),
        Column("adapted_modules", "modules", "count"),
        *_measured(),
        Column("cka_min", "least CKA with the base", "number", "cka_min.spread"),
    ]
    return Table("Each configuration, mean over modules and seeds", pd.DataFrame(rows), _known(columns, rows))


def _measured() -> list[Column]:
    titles = ("‖ΔW‖ / ‖W‖", "effective rank", "stable rank", "rank at 90 % energy")
    return [Column(key, title, "number", f"{key}.spread") for key, title in zip(MEASURES, titles, strict=True)]


def _known(columns: list[Column], rows: list[Row]) -> tuple[Column, ...]:
    return tuple(column for column in columns if any(not missing(row.get(column.key)) for row in rows))


def _by_type(results: Results) -> Table:
    """Return one row for each configuration and type of module: parameters, norms and ranks."""
    rows = []
    for (name, kind), mine in _groups(results.inspected_modules, ["configuration", "type"]).items():
        seeds = len({row["seed"] for row in mine})
        row: Row = {"configuration": name, "type": kind, "modules": len(mine) // seeds}
        row["parameters"] = sum(row["parameters"] for row in mine) // seeds
        for key in MEASURES:
            row |= _over_seeds(key, mine)
        rows.append(row)
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["configuration"]] = totals.get(row["configuration"], 0) + row["parameters"]
    rows = [row | {"share": row["parameters"] / max(totals[row["configuration"]], 1)} for row in rows]
    columns = [
        Column("configuration", "configuration"),
        Column("type", "module type"),
        Column("modules", "modules", "count"),
        Column("parameters", "parameters", "count"),
        Column("share", "share of the adapter", "share"),
        *_measured(),
    ]
    return Table(
        "By type of module, ± standard deviation over layers and seeds", pd.DataFrame(rows), _known(columns, rows)
    )
