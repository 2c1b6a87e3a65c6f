"""Charts of what is inside adapters: norms and ranks by layer and module type; similarity to the base by layer."""

from typing import Any, Literal

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import COLOURS, WIDTH, finish, padded, room, tooltip
from lorafile.analysis.common.format import number
from lorafile.units import listing

_MOST = 8  # configurations that have a panel of their own; the tables have all
_PANEL = 250
_MAPS = {"inspect-norm": ("relative_norm", "‖ΔW‖ / ‖W‖"), "inspect-rank": ("effective_rank", "effective rank")}
_CAPTIONS = {
    "inspect-norm": "Size of the update beside that of its weight (Frobenius norms), mean over seeds.",
    "inspect-rank": "exp of the entropy of the update's normalised singular values (Roy & Vetterli 2007): how many "
    "directions it really uses. Mean over seeds.",
    "inspect-cka": "Linear CKA (Kornblith et al. 2019) of hidden states with the untuned base's, at the same "
    "tokens of held-out text. 1: alike up to rotation and scale. Layer 0: the embeddings. Mean over seeds.",
}


def charts(
    modules: pd.DataFrame, representations: pd.DataFrame, sweeps: dict[str, dict[str, str]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a heatmap of the relative norm, one of the effective rank, and CKA by layer, and the captions of all.

    What is not known has no chart.

    :param sweeps: sweep -> its configurations; lines that no panel tells apart have a panel for each sweep
    """
    sized = (
        modules.dropna(subset=["layer", "relative_norm"]) if "relative_norm" in modules.columns else modules.iloc[:0]
    )
    everyone = list(dict.fromkeys(sized["configuration"])) if len(sized) else []
    shown, left = everyone[:_MOST], everyone[_MOST:]
    more = f" Without a panel, being more than {_MOST}: {listing(left)}." if left else ""
    drawn = {name: _heatmap(modules, shown, key, title) for name, (key, title) in _MAPS.items()}
    drawn["inspect-cka"] = _similarity(representations, sweeps)
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


def _similarity(frame: pd.DataFrame, sweeps: dict[str, dict[str, str]]) -> Any:
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
        groups = {sweep: [name for name in order if name in members] for sweep, members in sweeps.items()}
        panels = [panel(names, WIDTH // 2 - 40, f"sweep {sweep}") for sweep, names in groups.items() if names]
        drawn = alt.concat(*panels, columns=2, spacing=24).resolve_scale(color="independent")
    last = means.groupby("configuration", sort=False)["cka"].last()
    text = "; ".join(f"{name}: {number(float(value))} after the last block" for name, value in last.items())
    return finish(drawn, "Similarity to the base by layer", f"CKA with the base by layer. {text}", margin=110)
