"""Forgetting drawn: the change of the reference text's loss against quality, a point for each configuration."""

from typing import Any

import altair as alt

from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, mean_rows, padded, quality, tooltip
from lorafile.analysis.common.format import number
from lorafile.analysis.common.label_layout import Axes, place_labels, texts
from lorafile.analysis.common.scores import Score
from lorafile.results.results import Results

HEIGHT = 320
CAPTION = (
    "Each diamond is a configuration, the mean over seeds; bars: ± sample standard deviation over seeds. Dashed line: "
    "nothing forgotten. Point at a mark for its name and figures."
)


def chart(results: Results, metric: str, known: dict[str, Score]) -> Any:
    """Return the change of the reference loss (up: forgotten) against the metric."""
    found = quality(results, metric)
    rows = mean_rows(found, {name: name for name in known if found.scores[name].known})
    rows["change"] = [known[name].mean for name in rows["configuration"]]
    spread = [known[name].spread if known[name].n > 1 else 0.0 for name in rows["configuration"]]
    rows["least"], rows["most"] = rows["change"] - spread, rows["change"] + spread
    rows["changed"] = [number(value) for value in rows["change"]]
    low, high = min(0.0, float(rows["least"].min())), max(0.0, float(rows["most"].max()))
    x_domain = domain_of(found.metric, *found.span(list(rows["configuration"])))
    x = alt.X("mean:Q", title=found.title, scale=found.scale(x_domain))
    x = x.axis(format=found.format, tickCount=6)
    title = "change of the reference loss, nats per token"
    y_domain = padded(low, high)
    y = alt.Y("change:Q", title=title, scale=alt.Scale(domain=y_domain, nice=False))
    tips = tooltip(("configuration:N", "configuration"), ("shown:N", found.metric), ("changed:N", "change"))
    base = alt.Chart(rows)
    layers = [
        alt.Chart().mark_rule(style="reference").encode(y=alt.datum(0)),
        base.mark_rule(style="spread").encode(x=alt.X("low:Q").title(found.title), x2="high:Q", y=y),
        base.mark_rule(style="spread").encode(x=x, y=alt.Y("least:Q").title(title), y2="most:Q"),
        base.mark_point(style="mean").encode(x=x, y=y, tooltip=tips),
    ]
    ends = {"x": "mean", "x_low": "low", "x_high": "high", "y": "change", "y_low": "least", "y_high": "most"}
    places = rows.assign(front=False, order=0, **{name: rows[column] for name, column in ends.items()})
    labels = place_labels(places, Axes(x_domain, y_domain, (False, False), (WIDTH, HEIGHT)), line=False)
    layers += texts(labels, alt.X("x:Q"), alt.Y("y:Q"))  # the axes are the points'
    whole = alt.layer(*layers, data=rows).properties(width=WIDTH, height=HEIGHT)
    text = "; ".join(f"{row['configuration']}: {row['changed']}" for row in rows.to_dict("records"))
    return finish(whole, "Forgetting", f"{title} against {found.title}. {text}", margin=90)
