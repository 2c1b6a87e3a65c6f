"""Quality on validation along the candidates of a setting, one line for each configuration, and what was lost below."""

from dataclasses import replace
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import (
    COLOURS,
    WIDTH,
    Quality,
    domain_of,
    finish,
    mean_rows,
    quality,
    room,
    seed_rows,
    seeds_and_means,
)
from lorafile.analysis.common.format import score, setting, slug
from lorafile.analysis.training.candidates import Candidate
from lorafile.results.results import Results

CAPTION = (
    "Dots: one seed each. Lines and bars: mean ± sample standard deviation over seeds, on validation. Ring: the chosen "
    "candidate. Below, for each configuration: × how many runs of a candidate have no figure, and why."
)
_WIDE = 10.0  # from this ratio of largest to smallest value on an axis is logarithmic
_STEEP = 30.0


def charts_of(results: Results, metric: str, settings: list[str], found: list[Candidate], name: str) -> dict[str, Any]:
    """Return a chart for each tuned setting, the others at their chosen values, of as many configurations as colours.

    :param name: of the analysis; that of its charts begin with it
    """
    made: dict[str, Any] = {}
    everyone = list(dict.fromkeys(one.configuration for one in found))
    for factor in settings:
        for start in range(0, len(everyone), COLOURS):
            among = everyone[start : start + COLOURS]
            shown = [one for one in _slice(found, factor) if one.configuration in among]
            if any(one.score.known for one in shown):
                part = factor.rpartition(".")[2] if len(settings) > 1 else ""
                key = slug(name, part, str(start // COLOURS + 1) if start else "")
                made[key] = _chart(results, metric, factor, shown)
    return made


def _slice(found: list[Candidate], factor: str) -> list[Candidate]:
    """Return the candidates that have the chosen values of every other setting; all, where nothing else is tuned."""
    winners = {one.configuration: one.values for one in found if one.chosen}

    def beside(one: Candidate) -> bool:
        chosen = winners.get(one.configuration, one.values)
        return all(one.values[name] == value for name, value in chosen.items() if name != factor)

    return [one for one in found if beside(one)]


def _chart(results: Results, metric: str, factor: str, shown: list[Candidate]) -> Any:
    base = quality(results, metric, "validation")
    figures = {(one.name, seed): value for one in shown for seed, value in one.figures.items()}
    found = replace(base, scores={one.name: one.score for one in shown}, values=figures)
    numeric = all(isinstance(one.values[factor], (int, float)) for one in shown)
    places = {one.name: one.values[factor] if numeric else setting(one.values[factor]) for one in shown}
    owners = {one.name: one.configuration for one in shown}
    order = list(dict.fromkeys(owners.values()))
    x = _x(factor, list(dict.fromkeys(places.values())), numeric)
    colour = alt.Color("series:N", sort=order, legend=None)
    curve = _curve(found, places, owners, {one.name for one in shown if one.chosen}, (x, colour))
    strip = _strip(found, places, owners, (x, colour))
    text = "; ".join(
        f"{one.configuration} at {one.label}: {score(metric, one.score.mean) if one.score.known else one.score.lost}"
        for one in shown
    )
    whole = alt.vconcat(curve, strip, spacing=6).resolve_scale(x="shared", color="shared")
    title = f"{found.title.rsplit(', %', 1)[0]} by {factor}"
    return finish(whole, title, f"{title}. {text}", margin=room(order))


def _curve(
    found: Quality, places: dict[str, Any], owners: dict[str, str], chosen: set[str], encoding: tuple[Any, Any]
) -> Any:
    x, colour = encoding
    means, seeds = (make(found, places, "x") for make in (mean_rows, seed_rows))
    means, seeds = (frame.assign(series=frame["configuration"].map(owners)) for frame in (means, seeds))
    means = means.assign(chosen=means["configuration"].isin(chosen))
    low, high = found.span(list(places))
    steep = low > 0 and high / low > _STEEP and found.format == ".3~g"
    scale = (
        alt.Scale(type="log", domain=[low / 1.15, high * 1.15], nice=False)
        if steep
        else found.scale(domain_of(found.metric, low, high))
    )
    title = found.title + (", logarithmic" if steep else "")
    y = alt.Y("value:Q", title=title, scale=scale, axis=found.axis())
    above = x.copy()
    above["axis"] = alt.Axis(labels=False, ticks=False, title=None, grid=False, domain=False)
    picked = alt.Chart(means[means["chosen"] & (means["n"] > 0)]).encode(x=above, y="mean:Q")
    layers = seeds_and_means(seeds, means, above, y, {"color": colour})
    return alt.layer(*layers, picked.mark_point(style="picked")).properties(width=WIDTH, height=280)


def _strip(found: Quality, places: dict[str, Any], owners: dict[str, str], encoding: tuple[Any, Any]) -> Any:
    """Return a row for each configuration: its colour and name, a mark for each candidate, and what was lost there."""
    x, colour = encoding
    rows = [
        {"configuration": name, "x": place, "series": owners[name], "lost": f"× {found.scores[name].lost}"}
        | {"whole": not found.scores[name].lost}
        for name, place in places.items()
    ]
    frame = pd.DataFrame(rows)
    order = list(dict.fromkeys(owners.values()))
    y = alt.Y("series:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, ticks=False, domain=False))
    base = alt.Chart(frame).encode(x=x, y=y, color=colour)
    layers = [
        base.transform_filter("datum.whole").mark_line(style="curve"),
        base.transform_filter("datum.whole").mark_point(style="mean"),
        alt.Chart(frame[~frame["whole"]]).mark_text(style="lost").encode(x=x, y=y, text="lost:N"),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=alt.Step(24))


def _x(factor: str, values: list[Any], numeric: bool) -> Any:
    if not numeric:
        return alt.X("x:N", title=factor, sort=[*values])
    ordered = sorted(values)
    rates = ordered[0] > 0 and ordered[-1] / ordered[0] >= _WIDE
    room = (ordered[-1] / ordered[0]) ** 0.08 if rates else (ordered[-1] - ordered[0]) * 0.08
    domain = [ordered[0] / room, ordered[-1] * room] if rates else [ordered[0] - room, ordered[-1] + room]
    scale = alt.Scale(type="log" if rates else "linear", domain=domain, nice=False, zero=False, padding=0)
    form = ".2~e" if factor.endswith("learning_rate") else "~g"
    axis = alt.Axis(values=ordered, format=form, grid=False, labelOverlap="greedy")
    return alt.X("x:Q", title=f"{factor}, logarithmic" if rates else factor, scale=scale, axis=axis)
