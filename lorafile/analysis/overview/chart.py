"""The study in one chart: every configuration's seeds and mean, compared with untuned and full fine-tuning."""

from typing import TYPE_CHECKING, Any, Literal

import altair as alt

from lorafile.analysis.common.chart_parts import (
    MEAN_TIPS,
    SEED_TIPS,
    WIDTH,
    Quality,
    finish,
    mean_rows,
    names_axis,
    near_references,
    quality,
    room,
    seed_rows,
    tooltip,
)
from lorafile.analysis.common.display_names import display_names
from lorafile.analysis.common.format import on, score, sentence_case
from lorafile.analysis.common.published import MARK, figures
from lorafile.results.results import Results

if TYPE_CHECKING:
    import pandas as pd

MARKS = "Dots: one seed each. Diamond and bar: mean ± sample standard deviation over seeds. ×: runs without a result."


def overview(results: Results, metric: str) -> tuple[Any, str]:
    """Return every configuration's score as seeds, mean and spread, in the spec's order, and what the marks mean."""
    shown = quality(results, metric)
    labels = display_names(results)
    title = f"Every configuration: {on(metric, shown.split)}"
    description = f"{title}. " + "; ".join(f"{name} {score(metric, shown.scores[name].mean)}" for name in labels)
    _, _, outside = near_references(results, shown, results.names)
    caption = [MARKS, *([MARK] if figures(results, metric) else []), *(f"{sentence_case(text)}." for text in outside)]
    drawn = dots(results, shown, labels, own=True)
    return finish(drawn, title, description, margin=room(labels.values())), " ".join(caption)


def dots(results: Results, shown: Quality, labels: dict[str, Any], width: int = WIDTH, own: bool = False) -> Any:
    """Return a dot plot: one row for each label, seeds as dots, mean ± spread, references as dashed lines."""
    domain, rules, _ = near_references(results, shown, list(labels), own)
    means, seeds = mean_rows(shown, labels), seed_rows(shown, labels)
    y = names_axis(list(dict.fromkeys(labels.values())), grid=True)
    x = alt.X("value:Q", title=shown.title, scale=shown.scale(domain), axis=shown.axis())
    finished = alt.Chart(means[means["n"] > 0])
    layers = [
        *_rules(rules, domain),
        alt.Chart(seeds).mark_point(style="seed").encode(x=x, y=y, tooltip=tooltip(*SEED_TIPS)),
        finished.mark_rule(style="spread").encode(x=alt.X("low:Q").title(shown.title), x2="high:Q", y=y),
        finished.mark_point(style="mean").encode(x="mean:Q", y=y, tooltip=tooltip(*MEAN_TIPS)),
        _lost(means, y, shown.more),
    ]
    return alt.layer(*layers).properties(width=width, height=alt.Step(24))


def _lost(means: "pd.DataFrame", y: Any, more: bool) -> Any:
    """Return a mark at the worse edge for each configuration with runs that have no figure: censored, not dropped."""
    edge = alt.value(4) if more else alt.value("width")
    align: Literal["left", "right"] = "left" if more else "right"
    text = alt.Chart(means[means["note"] != ""]).mark_text(style="lost", align=align, dx=0 if more else -4)
    tips = tooltip(("configuration:N", "configuration"), ("note:N", "runs"))
    return text.encode(x=edge, y=y, text="note:N", tooltip=tips)


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
