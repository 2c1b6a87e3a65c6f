"""The study in one chart: every configuration's seeds and mean, held against untuned and full fine-tuning."""

from typing import TYPE_CHECKING, Any, Literal

import altair as alt

from lorafile.analysis.common.chart_parts import (
    MEAN_TIPS,
    SEED_TIPS,
    WIDTH,
    Quality,
    finish,
    mean_rows,
    near_references,
    quality,
    room,
    seed_rows,
    tooltip,
)
from lorafile.analysis.common.format import on, score, sentence_case
from lorafile.analysis.common.published import MARK, figures
from lorafile.results.results import Results

if TYPE_CHECKING:
    import pandas as pd

MARKS = "Dots: one seed each. Diamond and bar: mean ± sample standard deviation over seeds. ×: runs without a figure."


def overview(results: Results, metric: str) -> Any:
    """Return every configuration's score as seeds, mean and spread, in the spec's order."""
    found = quality(results, metric)
    labels = {name: name for name in results.names}
    title = f"Every configuration: {on(metric, found.split)}"
    description = f"{title}. " + "; ".join(f"{name} {score(metric, found.scores[name].mean)}" for name in labels)
    return finish(dots(results, found, labels, own=True), title, description, margin=room(labels))


def caption(results: Results, metric: str) -> str:
    """Return what the overview's marks mean, and which references lie outside of it."""
    _, _, outside = near_references(results, quality(results, metric), results.names)
    marks = [MARKS, MARK] if figures(results, metric) else [MARKS]
    return " ".join([*marks, *(f"{sentence_case(text)}." for text in outside)])


def dots(results: Results, found: Quality, labels: dict[str, Any], width: int = WIDTH, own: bool = False) -> Any:
    """Return a dot plot: one row for each label, seeds as dots, mean ± spread, references as dashed lines."""
    domain, rules, _ = near_references(results, found, list(labels), own)
    order = list(dict.fromkeys(labels.values()))
    means, seeds = mean_rows(found, labels), seed_rows(found, labels)
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, grid=True, domain=False, ticks=False))
    x = alt.X("value:Q", title=found.title, scale=found.scale(domain), axis=found.axis())
    known = means[means["n"] > 0]
    layers = [
        alt.Chart(seeds).mark_point(style="seed").encode(x=x, y=y, tooltip=tooltip(*SEED_TIPS)),
        alt.Chart(known).mark_rule(style="spread").encode(x=alt.X("low:Q").title(found.title), x2="high:Q", y=y),
        alt.Chart(known).mark_point(style="mean").encode(x="mean:Q", y=y, tooltip=tooltip(*MEAN_TIPS)),
        _lost(means, y, found.more),
    ]
    if len(rules):
        layers = [*_rules(rules, domain), *layers]
    return alt.layer(*layers).properties(width=width, height=alt.Step(24))


def _lost(means: "pd.DataFrame", y: Any, more: bool) -> Any:
    """Return a mark at the worse edge for each configuration with runs that have no figure: censored, not dropped."""
    edge = alt.value(4) if more else alt.value("width")
    text = alt.Chart(means[means["note"] != ""]).mark_text(
        style="lost", align="left" if more else "right", dx=0 if more else -4
    )
    return text.encode(
        x=edge, y=y, text="note:N", tooltip=tooltip(("configuration:N", "configuration"), ("note:N", "runs"))
    )


def _rules(rules: "pd.DataFrame", domain: list[float]) -> list[Any]:
    """Return lines for the references, each labelled in a line of its own above the first row."""
    layers: list[Any] = []
    for place in range(len(rules)):
        row = rules.iloc[[place]]
        style = str(row["style"].item())
        base = alt.Chart(row).encode(x="mean:Q")
        align = _side(row["mean"].item(), domain) if style == "published" else "center"
        text = base.mark_text(style="reference-label", align=align, baseline="bottom", dy=-4 - 15 * place)
        if row["low"].item() < row["high"].item():
            layers.append(alt.Chart(row).mark_rect(style="published-error").encode(x="low:Q", x2="high:Q"))
        layers += [base.mark_rule(style=style), text.encode(y=alt.value(0), text="label:N")]
    return layers


def _side(mean: float, domain: list[float]) -> Literal["left", "center", "right"]:
    """Return how a long label is aligned so that it stays in the chart."""
    third = (domain[1] - domain[0]) / 3
    return "left" if mean < domain[0] + third else "right" if mean > domain[1] - third else "center"
