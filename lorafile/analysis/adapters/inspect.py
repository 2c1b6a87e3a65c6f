"""What is inside the adapters: where their parameters are, how large and of what rank their updates, what drifts.

Heatmaps show norms and ranks by layer and type of module, lines the similarity to the base by layer.
"""

from collections import Counter
from math import nan
from statistics import fmean, stdev
from typing import Any, Literal

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.chart_parts import COLOURS, WIDTH, finish, padded, room, tooltip
from lorafile.analysis.common.factors import sweeps
from lorafile.analysis.common.format import amount, number
from lorafile.results.results import Results, grouped, missing, row_dicts, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

Row = dict[str, Any]
_DESCRIBED = 4  # configurations with sentences of their own
MEASURES = {
    "relative_norm": "‖ΔW‖ / ‖W‖",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "energy_rank": "rank at 90 % energy",
}
_MEASURED = [Column(key, title, "number", f"{key}.spread") for key, title in MEASURES.items()]
_PANELS = 8  # configurations that have a panel of their own; the tables have all
_PANEL = 250
_MAPS = {"inspect-norm": ("relative_norm", "‖ΔW‖ / ‖W‖"), "inspect-rank": ("effective_rank", "effective rank")}
_CAPTIONS = {
    "inspect-norm": "Size of the update relative to its weight (Frobenius norms), mean over seeds.",
    "inspect-rank": "exp of the entropy of the update's normalised singular values (Roy & Vetterli 2007): the "
    "number of directions it effectively uses. Mean over seeds.",
    "inspect-cka": "Linear CKA (Kornblith et al. 2019) between the hidden states and those of the untuned base, on "
    "the same held-out tokens. 1: identical up to rotation and scale. Layer 0: the embeddings. Mean over seeds.",
}


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what is inside the adapters; nothing where none was looked into."""
    rows = configuration_rows(results.inspections, results.runs)
    if not rows:
        return []
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
                f"{row['configuration']}: similarity to the base (CKA) is {last}, and {number(row['cka_min'])} at its "
                "lowest."
            )
    if converted := [row["configuration"] for row in rows if row.get("stored_parameters")]:
        lines.append(
            f"Stored with more parameters than were trained: {listing(converted)}. Their initialization changes the "
            "base weights, so PEFT saves them as plain LoRA with twice the rank. That update is shown here."
        )
    if blind := [row["configuration"] for row in rows if row["relative_norm"] is None]:
        lines.append(f"No weight update is defined for {listing(blind)}: the method changes activations, not weights.")
    return lines


def _described(rows: list[Row]) -> list[Row]:
    """Return the rows that sentences describe: all of a few; of many the largest and the smallest update."""
    sized = [row for row in rows if row["relative_norm"] is not None]
    if len(rows) <= _DESCRIBED or not sized:
        return rows[:_DESCRIBED]
    ends = [pick(sized, key=lambda row: row["relative_norm"]) for pick in (max, min)]
    return [row for row in rows if row in ends]


def _rank_sentence(row: Row, stored: int | None) -> str:
    text = f"{row['configuration']}: an update has an effective rank of {number(row['effective_rank'])}"
    text += f" of {stored}" if stored else ""
    share = amount("share", row["relative_norm"])
    return (
        f"{text}; {number(row['energy_rank'])} singular values hold 90 % of it (means over modules and seeds). Its "
        f"norm is {share} of the norm of the weight it is added to."
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
        Column("cka_min", "lowest CKA with the base", "number", "cka_min.spread"),
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
    title = "By module type, ± standard deviation over layers and seeds"
    return Table(title, pd.DataFrame(rows), filled(columns, rows))


def charts(
    modules: pd.DataFrame, representations: pd.DataFrame, by_sweep: dict[str, dict[str, str]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a heatmap of the relative norm, one of the effective rank, and CKA by layer, and the captions of all.

    What is not known has no chart.

    :param by_sweep: sweep -> its configurations; lines that no panel tells apart have a panel for each sweep
    """
    sized = (
        modules.dropna(subset=["layer", "relative_norm"]) if "relative_norm" in modules.columns else modules.iloc[:0]
    )
    everyone = list(dict.fromkeys(sized["configuration"])) if len(sized) else []
    shown, left = everyone[:_PANELS], everyone[_PANELS:]
    more = f" Only the first {_PANELS} configurations have a panel; not shown: {listing(left)}." if left else ""
    drawn = {name: _heatmap(modules, shown, key, title) for name, (key, title) in _MAPS.items()}
    drawn["inspect-cka"] = _similarity(representations, by_sweep)
    captions = {name: text + (more if name in _MAPS else "") for name, text in _CAPTIONS.items()}
    return {name: chart for name, chart in drawn.items() if chart is not None}, captions


def _heatmap(modules: pd.DataFrame, shown: list[str], key: str, title: str) -> Any:
    """Return panels of layer × module type, one for each configuration, all on one scale of colour."""
    if not shown or key not in modules.columns:
        return None
    frame = modules[modules["configuration"].isin(shown)].dropna(subset=["layer", key])
    cells = frame.groupby(["configuration", "type", "layer"], sort=False)[key].mean().reset_index(name="value")
    if cells.empty:
        return None
    cells["shown"] = [number(float(value)) for value in cells["value"]]
    limits = [float(cells["value"].min()), float(cells["value"].max())]
    limits = limits if limits[0] < limits[1] else padded(*limits)
    types = list(dict.fromkeys(cells["type"]))
    panels = [_panel(cells[cells["configuration"] == name], name, types, (title, limits)) for name in shown]
    text = "; ".join(
        f"{name}: {number(float(part.min()))} to {number(float(part.max()))}"
        for name, part in cells.groupby("configuration", sort=False)["value"]
    )
    whole = alt.concat(*panels, columns=2, spacing=24).resolve_scale(color="shared")
    return finish(whole, title, f"{title} by layer and module type. {text}", margin=room(types) + 50, least=120)


def _panel(cells: pd.DataFrame, name: str, types: list[str], scale: tuple[str, list[float]]) -> Any:
    title, limits = scale
    # Linear, full fine-tuning would press all others into one colour.
    kind: Literal["log", "linear"] = "log" if 0 < 4 * limits[0] < limits[1] else "linear"
    marks = [limits[0], (limits[0] * limits[1]) ** 0.5 if kind == "log" else sum(limits) / 2, limits[1]]
    layers = sorted({int(layer) for layer in cells["layer"]})
    cells = cells.assign(layer=cells["layer"].astype(int))
    x = alt.X("layer:O", sort=layers, title="layer", axis=alt.Axis(labelAngle=0, labelOverlap="greedy", ticks=False))
    y = alt.Y("type:N", sort=types, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=160))
    legend = alt.Legend(title=title, orient="right", gradientLength=120, format=".3~g", values=marks)
    colour = alt.Color("value:Q", scale=alt.Scale(domain=limits, type=kind), legend=legend)
    tips = tooltip(("type:N", "module type"), ("layer:O", "layer"), ("shown:N", title))
    drawn = alt.Chart(cells).mark_rect().encode(x=x, y=y, color=colour, tooltip=tips)
    return drawn.properties(title=alt.Title(name, anchor="start", fontSize=12), width=_PANEL, height=alt.Step(20))


def _similarity(frame: pd.DataFrame, by_sweep: dict[str, dict[str, str]]) -> Any:
    """Return CKA along the layers, a line for each configuration."""
    if not len(frame) or frame["cka"].isna().all():
        return None
    means = frame.dropna(subset=["cka"]).groupby(["configuration", "layer"], sort=False)["cka"].mean().reset_index()
    order = list(dict.fromkeys(means["configuration"]))
    low = min(float(means["cka"].min()), 0.99)
    axis = alt.Axis(tickMinStep=1, format="d", grid=False)
    x = alt.X("layer:Q", title="layer", axis=axis, scale=alt.Scale(nice=False))
    scale = alt.Scale(domain=[low - (1 - low) * 0.08, 1 + (1 - low) * 0.04], zero=False, nice=False)
    y = alt.Y("cka:Q", title="CKA with the base", scale=scale, axis=alt.Axis(tickCount=6))
    tips = tooltip(("configuration:N", "configuration"), ("layer:Q", "layer"), ("cka:Q", "CKA"))

    def panel(names: list[str], width: int, title: str = "") -> Any:
        legend = alt.Legend(title=None, orient="bottom", columns=1 if title else 2, labelLimit=300)
        colour: dict[str, Any] = (
            {"color": alt.Color("configuration:N", sort=names, legend=legend)} if len(names) > 1 else {}
        )
        base = alt.Chart(means[means["configuration"].isin(names)]).encode(x=x, y=y, tooltip=tips, **colour)
        lines = (base.mark_line(style="mean-line") + base.mark_point(style="mean")).properties(width=width, height=200)
        return lines.properties(title=title) if title else lines

    drawn = panel(order, WIDTH)
    if len(order) > COLOURS:  # no two lines of a panel may look alike
        groups = {sweep: [name for name in order if name in members] for sweep, members in by_sweep.items()}
        panels = [panel(names, WIDTH // 2 - 40, f"sweep {sweep}") for sweep, names in groups.items() if names]
        drawn = alt.concat(*panels, columns=2, spacing=24).resolve_scale(color="independent")
    last = means.groupby("configuration", sort=False)["cka"].last()
    text = "; ".join(f"{name}: {number(float(value))} after the last block" for name, value in last.items())
    return finish(drawn, "Similarity to the base by layer", f"CKA with the base by layer. {text}", margin=110)
