"""Would a smaller rank have been enough: each trained LoRA cut to smaller ranks, beside those trained at them."""

from math import isnan, nan
from statistics import fmean
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import amount, difference, kind_of, metric_name, on, score, slug
from lorafile.analysis.common.scores import FIXED, Score, scores, split_of
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, cells, missing, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

RANK = "lora.r"
Row = dict[str, Any]
Rows = list[dict[str, Any]]
_TIPS = (("configuration:N", "configuration"), ("rank:Q", "rank"), ("kind:N", "how"), ("shown:N", "mean"))


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return quality against the rank that is kept; nothing where nothing was truncated."""
    metric = table.metric or results.primary
    rows = truncation_rows(results, metric)
    if not any(row["kept"] for row in rows):
        return []
    name = slug("truncation", "" if metric == results.primary else metric)
    question, lines = "Would a smaller rank have been enough?", sentences(results, metric, rows)
    made = Analysis("truncation", name, "Rank truncation", question, lines, (_table(results, metric, rows),))
    return [made.with_chart(_chart(results, metric, rows), _caption(rows))]


def truncation_rows(results: Results, metric: str) -> list[Row]:
    """Return one row for each truncated configuration and rank, its own rank first.

    Each has `configuration`, `rank`, `kept` (false: as trained), `score` over seeds, `loss` (mean over seeds of how
    much worse it is than the same seed's whole adapter), `energy`, `bytes`, and `trained` (the score of `twin`,
    the configuration that was trained at that rank, or None).
    """
    column = f"{split_of(results, metric)}.{metric}"
    whole = scores(results, column)
    cut = _cut(results, column)
    seeds = _by_seed(results, column)
    sign = -1 if more_is_better(metric) else 1
    rows: list[Row] = []
    for name in dict.fromkeys(name for name, _ in cut):
        own = next(found["own"] for (other, _), found in cut.items() if other == name)
        rows.append({"configuration": name, "rank": own, "kept": False, "score": whole[name], "loss": 0.0})
        rows[-1] |= {"energy": 1.0, "bytes": _mean(cells(_of(results, name), "adapter_bytes")), "trained": None}
        for (other, rank), found in cut.items():
            if other == name:
                paired = [sign * (value - seeds[name, seed]) for seed, value in found["values"].items()]
                twin = _trained_at(results, name, rank)
                row = {
                    "configuration": name,
                    "rank": rank,
                    "kept": True,
                    "score": Score.of(list(found["values"].values()), whole[name].wanted, ""),
                }
                row |= {"loss": fmean(paired) if paired else nan, "energy": _mean(found["energy"])}
                row |= {"bytes": _mean(found["bytes"]), "trained": whole[twin] if twin else None, "twin": twin}
                rows.append(row)
    return rows


def _cut(results: Results, column: str) -> dict[tuple[str, int], Row]:
    """Return (configuration, rank) -> its own rank, seed -> figure, energies and sizes."""
    table = results.truncations
    keys = ("configuration", "rank", "of_rank", "seed", column, "kept_energy", "adapter_bytes")
    known = _by_seed(results, column)
    found: dict[tuple[str, int], Row] = {}
    for name, rank, own, seed, value, energy, size in rows_of(table, *keys):
        row = found.setdefault((name, int(rank)), {"own": int(own), "values": {}, "energy": [], "bytes": []})
        if value is not None and (name, seed) in known:
            row["values"][seed] = float(value)
        row["energy"].append(energy)
        row["bytes"].append(size)
    return {key: row for key, row in found.items() if row["values"]}


def _by_seed(results: Results, column: str) -> dict[tuple[str, Any], float]:
    rows = rows_of(results.runs, "configuration", "seed", column)
    return {(name, seed): float(value) for name, seed, value in rows if value is not None}


def _mean(found: list[Any]) -> float:
    known = [float(value) for value in found if value is not None]
    return fmean(known) if known else nan


def _of(results: Results, name: str) -> pd.DataFrame:
    return results.runs[[other == name for other in cells(results.runs, "configuration")]]


def _trained_at(results: Results, name: str, rank: int) -> str | None:
    """Return the configuration that was trained at a rank with every other setting equal, where there is one."""
    table = results.configurations
    others = [str(column) for column in table.columns if column not in (*FIXED, RANK, "lora.lora_alpha")]
    settings = {row: [str(cells(table, key)[at]) for key in others] for at, row in enumerate(results.names)}
    ranks = dict(zip(results.names, cells(table, RANK), strict=True))
    alike = (other for other in results.names if settings[other] == settings[name] and ranks[other] == rank)
    return next(alike, None)


def sentences(results: Results, metric: str, rows: list[Row]) -> list[str]:
    """Return for each configuration the smallest rank that would have been enough, held against the seeds' spread."""
    lines = []
    for name in dict.fromkeys(row["configuration"] for row in rows):
        whole, *cut = (row for row in rows if row["configuration"] == name)
        lines.append(_answer(results, metric, whole, sorted(cut, key=lambda row: -row["rank"])))
    lines.append(
        "What was cut was trained at its full rank: an adapter that is trained at a smaller one may do better or worse."
    )
    if differ := [text for row in rows if (text := _beside(metric, row))]:
        lines.append(f"Cut beside trained at that rank: {listing(differ, 6)}.")
    return lines


def _answer(results: Results, metric: str, whole: Row, cut: list[Row]) -> str:
    """Say which rank was enough, going down until one is worse by more than the spread over seeds."""
    name, spread = whole["configuration"], whole["score"].spread
    place = on(metric, split_of(results, metric))
    if isnan(spread):
        told = listing([f"rank {row['rank']} is {_worse(metric, row['loss'])}" for row in cut], 6)
        return f"{name}: with one seed there is no spread to say whether a smaller rank was enough; cut, {told}."
    enough = None
    for row in cut:
        if row["loss"] > spread:
            break
        enough = row
    held = f"the spread over seeds is {difference(metric, spread)}"
    if enough is None:
        first = cut[0]
        return (
            f"{name}: no smaller rank that was tried would have been enough: at rank {first['rank']} {place} is "
            f"{_worse(metric, first['loss'])}; {held}."
        )
    return (
        f"{name}: rank {enough['rank']} would have been enough. Cut from {whole['rank']} to it, {place} is "
        f"{score(metric, enough['score'].mean)} against {score(metric, whole['score'].mean)}, "
        f"{_worse(metric, enough['loss'])}; {held}, which that does not exceed."
    )


def _worse(metric: str, loss: float) -> str:
    if loss == 0:
        return "the same"
    return f"{'worse' if loss > 0 else 'better'} by {difference(metric, loss)}"


def _beside(metric: str, row: Row) -> str:
    twin = row["trained"]
    if twin is None or not twin.known:
        return ""
    cut, trained = score(metric, row["score"].mean), score(metric, twin.mean)
    return f"{row['configuration']} at rank {row['rank']} {cut}, trained {trained}"


def _table(results: Results, metric: str, rows: list[Row]) -> Table:
    lines = []
    for row in rows:
        one, twin = row["score"], row["trained"]
        line = {"configuration": row["configuration"], "rank": row["rank"], "energy": row["energy"]}
        line |= {"size": row["bytes"], "mean": one.mean, "spread": one.spread, "n": one.n, "loss": row["loss"]}
        known = twin is not None and twin.known
        line |= {"trained": twin.mean if known else None, "trained.spread": twin.spread if known else None}
        lines.append(line | {"trained.n": twin.n if known else None})
    kind, place = kind_of(metric), on(metric, split_of(results, metric))
    columns = [
        Column("configuration", "configuration"),
        Column("rank", "rank kept", "count"),
        Column("mean", place, kind, "spread", "n"),
        Column("loss", f"{metric_name(metric)} lost", kind),
        Column("trained", "trained at that rank", kind, "trained.spread", "trained.n"),
        Column("energy", "share of the update kept", "share"),
        Column("size", "saved size", "bytes"),
    ]
    known = [column for column in columns if any(not missing(line[column.key]) for line in lines)]
    smallest = amount("count", min(row["rank"] for row in rows))
    return Table(f"Cut to smaller ranks, down to {smallest}", pd.DataFrame(lines), tuple(known))


def _chart(results: Results, metric: str, rows: Rows) -> Any:
    """Return one line for each configuration, its own rank included; hollow squares: trained at that rank."""
    import altair as alt

    from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, quality, tooltip

    found = quality(results, metric)
    frame = _frame(metric, rows)
    ranks = sorted({int(rank) for rank in frame["rank"]})
    scale = alt.Scale(type="log", domain=[ranks[0] / 1.1, ranks[-1] * 1.1], nice=False)
    axis = alt.Axis(values=ranks, format="~g", grid=False, labelOverlap="greedy")
    x = alt.X("rank:Q", scale=scale, axis=axis, title="rank kept")
    domain = domain_of(metric, float(frame["low"].min()), float(frame["high"].max()))
    y = alt.Y("mean:Q", title=found.title, scale=found.scale(domain), axis=found.axis())
    order = list(dict.fromkeys(row["configuration"] for row in rows))
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=300)
    colour: dict[str, Any] = {}
    if len(order) > 1:
        colour["color"] = alt.Color("configuration:N", sort=order, legend=legend)
    cut, trained = frame[frame["kind"] != "trained"], frame[frame["kind"] == "trained"]
    base = alt.Chart(cut).encode(x=x, y=y, tooltip=tooltip(*_TIPS), **colour)
    layers = [
        base.mark_line(style="mean-line"),
        base.mark_rule(style="spread").encode(y=alt.Y("low:Q", title=found.title), y2="high:Q"),
        base.mark_point(style="mean"),
    ]
    if len(trained):
        square = alt.Chart(trained.drop_duplicates(["configuration", "rank"])).mark_point(style="trained-point")
        layers.append(square.encode(x=x, y=y, tooltip=tooltip(*_TIPS)))
    text = "; ".join(f"{row['configuration']} at {row['rank']}: {row['shown']}" for row in cut.to_dict("records"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=280)
    return finish(whole, "Quality against the rank kept", f"{found.title} by rank kept. {text}", margin=110)


def _caption(rows: Rows) -> str:
    """Return what the marks mean."""
    text = "Line and bar: mean ± sample standard deviation over seeds; the rightmost point is the adapter as trained."
    trained = any(row["trained"] is not None for row in rows)
    return f"{text} Squares: adapters that were trained at that rank." if trained else text


def _frame(metric: str, rows: Rows) -> pd.DataFrame:
    found = []
    for row in rows:
        for kind, one in (("cut" if row["kept"] else "as trained", row["score"]), ("trained", row["trained"])):
            if one is not None and one.known:
                spread = 0.0 if isnan(one.spread) else one.spread
                name = row["configuration"] if kind != "trained" else row["twin"]
                place = {"configuration": name, "rank": row["rank"], "kind": kind, "mean": one.mean}
                place |= {"low": one.mean - spread, "high": one.mean + spread}
                found.append(place | {"shown": score(metric, one.mean)})
    return pd.DataFrame(found)
