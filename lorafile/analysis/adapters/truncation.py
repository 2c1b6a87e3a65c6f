"""Would a smaller rank have been enough: each trained LoRA cut to smaller ranks, next to those trained at them."""

from itertools import takewhile
from math import isnan, nan
from statistics import fmean
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.chart_parts import WIDTH, Quality, domain_of, finish, quality, series_colour, tooltip
from lorafile.analysis.common.format import amount, difference, kind_of, metric_name, on, score, slug
from lorafile.analysis.common.scores import FIXED, Score, scores, split_of
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, grouped, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

RANK = "lora.r"
CAPTION = "Line and bar: mean ± sample standard deviation over seeds; the rightmost point is the adapter as trained."
Row = dict[str, Any]
_TIPS = (("configuration:N", "configuration"), ("rank:Q", "rank"), ("kind:N", "how"), ("shown:N", "mean"))


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return quality against the rank that is kept; nothing where nothing was truncated."""
    metric = table.metric or results.primary
    split = split_of(results, metric)
    rows = truncation_rows(results, metric, split)
    if not rows:
        return []
    name = slug("truncation", "" if metric == results.primary else metric)
    question, lines = "Would a smaller rank have been enough?", sentences(metric, split, rows)
    analysis = Analysis("truncation", name, "Rank truncation", question, lines, (_table(metric, split, rows),))
    twins = " Squares: adapters trained at that rank." if any(row["trained"] for row in rows) else ""
    return [analysis.with_chart(_chart(quality(results, metric), rows), CAPTION + twins)]


def truncation_rows(results: Results, metric: str, split: str) -> list[Row]:
    """Return one row for each truncated configuration and rank, its own rank first.

    Each has `configuration`, `rank`, `kept` (false: as trained), `score` over seeds, `loss` (mean over seeds of how
    much worse it is than the same seed's whole adapter), `energy`, `bytes`, and `trained` (the score of `twin`,
    the configuration that was trained at that rank, or None).
    """
    column = f"{split}.{metric}"
    whole = scores(results, column)
    runs = rows_of(results.runs, "configuration", "seed", column)
    figures = {(name, seed): float(value) for name, seed, value in runs if value is not None}
    sizes: dict[str, list[Any]] = grouped(rows_of(results.runs, "configuration", "adapter_bytes"))
    keys = ("configuration", "rank", "of_rank", "seed", column, "kept_energy", "adapter_bytes")
    cuts = grouped(((name, int(rank)), row) for name, rank, *row in rows_of(results.truncations, *keys))
    sign = -1 if more_is_better(metric) else 1
    rows: dict[str, list[Row]] = {}
    for (name, rank), cut in cuts.items():
        values = {seed: float(value) for _, seed, value, *_ in cut if value is not None and (name, seed) in figures}
        if not values:
            continue
        own: Row = {"configuration": name, "rank": int(cut[0][0]), "kept": False, "score": whole[name], "loss": 0.0}
        own |= {"energy": 1.0, "bytes": _mean(sizes[name]), "trained": None}
        twin = _trained_at(results, name, rank)
        row: Row = {"configuration": name, "rank": rank, "kept": True}
        row |= {"score": Score.of(list(values.values()), whole[name].wanted, "")}
        row |= {"loss": fmean(sign * (value - figures[name, seed]) for seed, value in values.items())}
        row |= {"energy": _mean([energy for *_, energy, _ in cut]), "bytes": _mean([size for *_, size in cut])}
        rows.setdefault(name, [own]).append(row | {"trained": whole[twin] if twin else None, "twin": twin})
    return [row for members in rows.values() for row in members]


def _mean(cells: list[Any]) -> float:
    values = [float(value) for value in cells if value is not None]
    return fmean(values) if values else nan


def _trained_at(results: Results, name: str, rank: int) -> str | None:
    """Return the configuration that was trained at a rank with every other setting equal, where there is one."""
    table = results.configurations
    others = [str(column) for column in table.columns if column not in (*FIXED, RANK, "lora.lora_alpha")]
    settings = dict(zip(results.names, map(str, rows_of(table, *others)), strict=True))
    ranks = results.setting(RANK)
    alike = (other for other in results.names if settings[other] == settings[name] and ranks[other] == rank)
    return next(alike, None)


def sentences(metric: str, split: str, rows: list[Row]) -> list[str]:
    """Return for each configuration the smallest rank that would have been enough, given the spread over seeds."""
    lines = []
    for whole, *cut in grouped((row["configuration"], row) for row in rows).values():
        lines.append(_answer(metric, on(metric, split), whole, sorted(cut, key=lambda row: -row["rank"])))
    lines.append(
        "The truncated adapters were trained at full rank; an adapter trained at a smaller rank may do better or worse."
    )
    compared = [
        f"{row['configuration']} at rank {row['rank']} {score(metric, row['score'].mean)}, trained "
        f"{score(metric, row['trained'].mean)}"
        for row in rows
        if row["trained"] is not None and row["trained"].known
    ]
    return [*lines, f"Truncated and trained at that rank: {listing(compared, 6)}."] if compared else lines


def _answer(metric: str, place: str, whole: Row, cut: list[Row]) -> str:
    """Say which rank was enough, going down until one is worse by more than the spread over seeds."""
    name, spread = whole["configuration"], whole["score"].spread
    if isnan(spread):
        losses = listing([f"rank {row['rank']} is {_worse(metric, row['loss'])}" for row in cut], 6)
        return f"{name}: one seed gives no spread to judge by whether a smaller rank is enough; truncated, {losses}."
    enough = list(takewhile(lambda row: row["loss"] <= spread, cut))
    if not enough:
        return (
            f"{name}: no smaller rank that was tried would have been enough: at rank {cut[0]['rank']} {place} is "
            f"{_worse(metric, cut[0]['loss'])}; the spread over seeds is {difference(metric, spread)}."
        )
    least = enough[-1]
    return (
        f"{name}: rank {least['rank']} would have been enough. Truncated from {whole['rank']} to {least['rank']}, "
        f"{place} is {score(metric, least['score'].mean)} instead of {score(metric, whole['score'].mean)}, "
        f"{_worse(metric, least['loss'])}. That does not exceed the spread over seeds, {difference(metric, spread)}."
    )


def _worse(metric: str, loss: float) -> str:
    if loss == 0:
        return "the same"
    return f"{'worse' if loss > 0 else 'better'} by {difference(metric, loss)}"


def _table(metric: str, split: str, rows: list[Row]) -> Table:
    lines = []
    for row in rows:
        figure, twin = row["score"], row["trained"]
        line = {"configuration": row["configuration"], "rank": row["rank"], "energy": row["energy"]}
        line |= {"size": row["bytes"], "mean": figure.mean, "spread": figure.spread, "n": figure.n, "loss": row["loss"]}
        trained = (twin.mean, twin.spread, twin.n) if twin is not None and twin.known else (None, None, None)
        lines.append(line | dict(zip(("trained", "trained.spread", "trained.n"), trained, strict=True)))
    kind = kind_of(metric)
    columns = (
        Column("configuration", "configuration"),
        Column("rank", "rank kept", "count"),
        Column("mean", on(metric, split), kind, "spread", "n"),
        Column("loss", f"{metric_name(metric)} lost", kind),
        Column("trained", "trained at that rank", kind, "trained.spread", "trained.n"),
        Column("energy", "share of the update kept", "share"),
        Column("size", "saved size", "bytes"),
    )
    smallest = amount("count", min(row["rank"] for row in rows))
    return Table(f"Truncated to smaller ranks, down to {smallest}", pd.DataFrame(lines), filled(columns, lines))


def _chart(shown: Quality, rows: list[Row]) -> Any:
    """Return one line for each configuration, its own rank included; hollow squares: trained at that rank."""
    frame = _frame(shown.metric, rows)
    ranks = sorted({int(rank) for rank in frame["rank"]})
    scale = alt.Scale(type="log", domain=[ranks[0] / 1.1, ranks[-1] * 1.1], nice=False)
    axis = alt.Axis(values=ranks, format="~g", grid=False, labelOverlap="greedy")
    x = alt.X("rank:Q", scale=scale, axis=axis, title="rank kept")
    domain = domain_of(shown.metric, float(frame["low"].min()), float(frame["high"].max()))
    y = alt.Y("mean:Q", title=shown.title, scale=shown.scale(domain), axis=shown.axis())
    colour = series_colour(list(dict.fromkeys(row["configuration"] for row in rows)), "configuration:N")
    cut, trained = frame[frame["kind"] != "trained"], frame[frame["kind"] == "trained"]
    base = alt.Chart(cut).encode(x=x, y=y, tooltip=tooltip(*_TIPS), **colour)
    layers = [
        base.mark_line(style="mean-line"),
        base.mark_rule(style="spread").encode(y=alt.Y("low:Q", title=shown.title), y2="high:Q"),
        base.mark_point(style="mean"),
    ]
    if len(trained):
        square = alt.Chart(trained.drop_duplicates(["configuration", "rank"])).mark_point(style="trained-point")
        layers.append(square.encode(x=x, y=y, tooltip=tooltip(*_TIPS)))
    text = "; ".join(f"{row['configuration']} at {row['rank']}: {row['shown']}" for row in cut.to_dict("records"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=280)
    return finish(whole, "Quality against the rank kept", f"{shown.title} by rank kept. {text}", margin=110)


def _frame(metric: str, rows: list[Row]) -> pd.DataFrame:
    points = []
    for row in rows:
        for kind, figure in (("cut" if row["kept"] else "as trained", row["score"]), ("trained", row["trained"])):
            if figure is not None and figure.known:
                spread = 0.0 if isnan(figure.spread) else figure.spread
                name = row["configuration"] if kind != "trained" else row["twin"]
                point = {"configuration": name, "rank": row["rank"], "kind": kind, "mean": figure.mean}
                point |= {"low": figure.mean - spread, "high": figure.mean + spread}
                points.append(point | {"shown": score(metric, figure.mean)})
    return pd.DataFrame(points)
