"""How did training go: the loss of every configuration, diverged runs among them.

Curves are drawn as small multiples, one for each sweep; runs that diverged are drawn to their end.
"""

from math import ceil, floor, isfinite, log10
from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table
from lorafile.analysis.common.chart_parts import finish, tooltip
from lorafile.analysis.common.display_names import readable
from lorafile.analysis.common.factors import sweeps
from lorafile.analysis.common.format import number
from lorafile.analysis.factors.eligible import trends
from lorafile.results.results import Results, cells, grouped, missing, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

POINTS = 60  # the most points of one line: more cannot be told apart at this width
FEWEST, ALTOGETHER = 15, 6000  # of hundreds of lines none can be followed closely, and a page has to be drawn
PANEL = (300, 190)
_NAMED = 12  # lines of one panel that a legend names
HUES = 7  # hues that the theme has
CAPTION = (
    "Lines: mean over seeds; band: lowest to highest seed. Each run is divided into at most 60 equal segments; a "
    "point is the mean of one segment. Runs that did not finish or are still training have their own dashed lines; × "
    "marks their last finite loss. The axis is logarithmic if the loss falls to less than a third."
)


VALIDATION_CAPTION = (
    " Dashed: loss on validation while training, the mean over the seeds that were evaluated at that step. Ring: the "
    "step whose weights a run has."
)


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return the loss curves; nothing where no step was recorded."""
    thin = thinned(results)
    if thin.empty:
        return []
    tables = (table,) if (table := _evaluations(results)) is not None else ()
    sentences = [*_sentences(results, thin), *_selection(results)]
    analysis = Analysis("curves", "curves", "Training loss", "How did training go?", sentences, tables)
    return [analysis.with_chart(*_chart(results, thin))]


def thinned(results: Results) -> pd.DataFrame:
    """Return configuration, seed, outcome, step, loss: the mean loss of equal stretches of each run, at most 60.

    A stretch with no finite loss is left out; the outcome says that the run diverged there.
    """
    keys = ("configuration", "seed", "step", "loss")
    frame = pd.DataFrame({key: cells(results.curves, key) for key in keys})
    frame = frame[[not missing(step) for step in frame["step"]]]
    if frame.empty:
        return pd.DataFrame(columns=[*keys, "outcome"])
    frame = frame.astype({"step": float, "loss": float, "configuration": str})
    points = min(POINTS, max(FEWEST, ALTOGETHER // frame["configuration"].nunique()))
    width = (frame.groupby("configuration")["step"].transform("max") / points).clip(lower=1.0)
    frame["place"] = ((frame["step"] - 1).clip(lower=0) // width).clip(upper=points - 1)
    groups = frame.groupby(["configuration", "seed", "place"], dropna=False, sort=False)
    thin = groups.agg(step=("step", "mean"), loss=("loss", "mean")).reset_index().dropna(subset="loss")
    ended = _outcomes(results)
    pairs = zip(thin["configuration"], thin["seed"], strict=True)
    thin["outcome"] = [ended.get((name, _seed(seed)), "done") for name, seed in pairs]
    return thin


def _outcomes(results: Results) -> dict[tuple[str, int | None], str]:
    rows = rows_of(results.runs, "configuration", "seed", "outcome")
    trained = {name for name, method in results.methods.items() if method != "none"}
    return {(str(name), _seed(seed)): str(outcome or "missing") for name, seed, outcome in rows if name in trained}


def _seed(value: Any) -> int | None:
    """Return a seed as a whole number: a column that holds one missing seed is a column of floats."""
    return None if missing(value) else int(value)


def last_steps(curves: pd.DataFrame) -> dict[tuple[str, int | None], float]:
    """Return (configuration, seed) -> the last step with a finite loss."""
    rows = rows_of(curves, "configuration", "seed", "step", "loss")
    finite = ((name, seed, step) for name, seed, step, loss in rows if loss is not None and step is not None)
    steps = grouped(((str(name), _seed(seed)), float(step)) for name, seed, step in finite)
    return {run: max(numbers) for run, numbers in steps.items()}


def _sentences(results: Results, thin: pd.DataFrame) -> list[str]:
    ended, last = _outcomes(results), last_steps(results.curves)
    lines = [
        f"{name} (seed {seed}) diverged; its last finite loss is at step {last[name, seed]:.0f}."
        for (name, seed), outcome in ended.items()
        if outcome == "diverged" and (name, seed) in last
    ]
    if training := [key for key in ended if ended[key] == "running" and key in last]:
        runs = [f"{name} (seed {seed}, at step {last[name, seed]:.0f})" for name, seed in training]
        lines.append(f"Still training: {listing(runs)}.")
    if stopped := [key for key in ended if ended[key] in ("out-of-memory", "failed", "interrupted")]:
        runs = [f"{name} (seed {seed}, {ended[name, seed]})" for name, seed in stopped]
        lines.append(f"Ended early: {listing(runs)}.")
    done = thin[thin["outcome"] == "done"].sort_values("step")
    final = done.groupby(["configuration", "seed"], dropna=False)["loss"].last()
    means = final.groupby("configuration").mean()
    if len(means) > 1:
        low, high = str(means.idxmin()), str(means.idxmax())
        ends = f"{number(float(means.min()))} ({low}) and {number(float(means.max()))} ({high})"
        lines.append(f"The final training loss lies between {ends} nats per token (means over seeds).")
        lines.append("A training loss says nothing about new examples.")
    return lines


def _selection(results: Results) -> list[str]:
    """Say in which runs validation chose the step, and what that means."""
    columns = ("selected_on", "chosen_step", "steps", "ended_by", "outcome")
    runs = [run for run in rows_of(results.runs, *columns) if run[0] == "validation" and not missing(run[1])]
    if not runs:
        return []
    early = sum(ended == "early stopping" for *_, ended, _ in runs)
    steps = [int(chosen) for _, chosen, *_ in runs]
    between = f"step {steps[0]}" if min(steps) == max(steps) else f"steps {min(steps)} to {max(steps)}"
    stopped = f", and early stopping ended {early} of them" if early else ""
    return [
        f"Validation chose the weights of {plural(len(runs), 'run')}, at {between}{stopped}. Results on validation "
        "are optimistic for these runs; tests use test."
    ]


def _evaluations(results: Results) -> Table | None:
    """Return what each run's evaluations on validation came to; None where none had any."""
    keys = ("configuration", "seed", "evaluations", "best_step", "best_metric", "chosen_step", "steps", "ended_by")
    rows = [dict(zip(keys, row, strict=True)) for row in rows_of(results.runs, *keys) if not missing(row[2])]
    if not rows:
        return None
    texts: dict[str, ColumnKind] = dict.fromkeys(("configuration", "seed", "ended_by"), "text")
    kinds: dict[str, ColumnKind] = {**texts, "best_metric": "number"}
    columns = tuple(Column(key, key.replace("_", " "), kinds.get(key, "count")) for key in keys)
    return Table("Evaluations on validation while training", pd.DataFrame(rows), columns)


def _chart(results: Results, thin: pd.DataFrame) -> tuple[Any, str]:
    """Return a panel for each sweep with a curve, each configuration a line, and what the lines mean."""
    drawn = set(thin["configuration"])
    done = thin[thin["outcome"] == "done"]
    validation = validation_losses(results)
    domain = _domain(pd.concat([done if len(done) else thin, validation]))
    panels, caption = [], CAPTION
    every, names = sweeps(results), readable(results)
    for sweep, members in every.items():
        order, numeric = _ordered(results, sweep, members)
        if labels := {name: names.get(name, label) for name, label in order.items() if name in drawn}:
            panels.append(_panel(thin, validation, labels, sweep, domain, numeric))
    if any(len(members) > _NAMED for members in every.values()):
        caption += " Each panel's legend lists its first twelve configurations."
    if len(validation):
        caption += VALIDATION_CAPTION
    whole = alt.concat(*panels, columns=2, spacing={"row": 22, "column": 26}).resolve_scale(color="independent")
    description = "Training loss by step, one panel for each sweep."
    return finish(whole, "Training loss", description, margin=60, least=200), caption


def _ordered(results: Results, sweep: str, members: dict[str, str]) -> tuple[dict[str, str], bool]:
    """Return a sweep's members, and whether one numeric factor orders all of them, ascending."""
    for trend in trends(results):
        if trend.sweep == sweep and set(trend.numbers) >= set(members):
            return {name: members[name] for name in sorted(members, key=trend.numbers.__getitem__)}, True
    return members, False


def _panel(
    thin: pd.DataFrame,
    validation: pd.DataFrame,
    labels: dict[str, str],
    sweep: str,
    domain: list[float],
    numeric: bool,
) -> Any:
    own = thin[thin["configuration"].isin(labels)].assign(label=lambda frame: frame["configuration"].map(labels))
    done, cut = own[own["outcome"] == "done"], own[own["outcome"] != "done"]
    log = domain[0] > 0 and domain[1] / domain[0] > 3
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False, clamp=True)
    y = alt.Y("loss:Q", title="loss, nats per token", scale=scale, axis=_ticks(domain, log))
    x = alt.X("step:Q", title="optimizer step", axis=alt.Axis(tickCount=5, grid=False), scale=alt.Scale(nice=False))
    tips = tooltip(("configuration:N", "configuration"), ("step:Q", "step"), ("loss:Q", "loss"))
    colour = _colour(list(labels.values()), numeric)
    base = alt.Chart(_means(done)).encode(x=x, color=colour)
    layers = [
        base.mark_area(style="band").encode(y="low:Q", y2="high:Q"),
        base.mark_line(style="curve").encode(y=y, tooltip=tips),
        *_evaluated(validation, labels, x, y, colour),
        *_cut(cut, x, y),
    ]
    title = alt.Title(f"sweep {sweep}" if sweep else "configurations", fontSize=12, anchor="start", frame="group")
    return alt.layer(*layers).properties(width=PANEL[0], height=PANEL[1], title=title)


def validation_losses(results: Results) -> pd.DataFrame:
    """Return configuration, seed, step, loss, chosen: the loss of each evaluation on validation that is finite."""
    keys = ["configuration", "seed", "step", "loss", "chosen"]
    if not len(results.validations):
        return pd.DataFrame(columns=keys)
    frame = results.validations[keys]
    return frame[[not missing(loss) and isfinite(loss) for loss in frame["loss"]]]


def _evaluated(validation: pd.DataFrame, labels: dict[str, str], x: Any, y: Any, colour: Any) -> list[Any]:
    """Return the loss on validation: dashed, the mean over seeds, and a ring at each run's own loss where it chose."""
    own = validation[validation["configuration"].isin(labels)]
    if own.empty:
        return []
    own = own.assign(label=own["configuration"].map(labels))
    means = own.groupby(["configuration", "label", "step"], sort=False)["loss"].mean().round(4).reset_index()
    tips = tooltip(("configuration:N", "configuration"), ("step:Q", "step"), ("loss:Q", "loss on validation"))
    lines = alt.Chart(means).mark_line(style="validation-curve").encode(x=x, y=y, color=colour, tooltip=tips)
    chosen = own[[bool(mark) for mark in own["chosen"]]].round({"loss": 4})
    rings = alt.Chart(chosen).mark_point(style="chosen-step").encode(x=x, y=y, color=colour, tooltip=tips)
    return [lines, rings]


def _ticks(domain: list[float], log: bool) -> Any:
    """Return the loss's axis; on a long logarithmic one 1, 2 and 5 of each decade, where Vega would draw all nine."""
    if not log or domain[1] / domain[0] < 30:
        return alt.Axis(tickCount=5, format="~g")
    decades = range(floor(log10(domain[0])), ceil(log10(domain[1])) + 1)
    ticks = [first * 10.0**decade for decade in decades for first in (1, 2, 5)]
    return alt.Axis(values=[tick for tick in ticks if domain[0] <= tick <= domain[1]], format="~g")


def _colour(order: list[str], numeric: bool) -> Any:
    """Return colours for a panel's lines: a ramp where a number orders them, hues where there are few, else a ramp."""
    columns = 2 if max(len(label) for label in order) <= 18 else 1
    legend = alt.Legend(
        title=None, orient="bottom", columns=columns, labelLimit=260, symbolType="stroke", symbolLimit=_NAMED
    )
    kind = "O" if numeric or len(order) > HUES else "N"
    return alt.Color(f"label:{kind}", sort=order, legend=legend, scale=alt.Scale(domain=order))


def _means(done: pd.DataFrame) -> pd.DataFrame:
    groups = done.groupby(["configuration", "label", "place"], sort=False)
    rows = groups.agg(step=("step", "mean"), loss=("loss", "mean"), low=("loss", "min"), high=("loss", "max"))
    return rows.reset_index().round({"step": 1, "loss": 4, "low": 4, "high": 4})


def _domain(frame: pd.DataFrame) -> list[float]:
    low, high = float(frame["loss"].quantile(0.002)), float(frame["loss"].quantile(0.998))
    room = 0.06 * (high - low) or 0.1
    return [max(low - room, low * 0.92) if low > 0 else low - room, high + room]


def _cut(cut: pd.DataFrame, x: Any, y: Any) -> list[Any]:
    """Return the runs that did not finish: dashed lines of their own, marked and named where they end."""
    if cut.empty:
        return []
    keys = ["configuration", "seed"]
    ends = cut.sort_values("step").groupby(keys, dropna=False, sort=False).tail(1)
    ends = ends.assign(text=[f"{label}: {how}" for label, how in zip(ends["label"], ends["outcome"], strict=True)])
    cut = cut.assign(run=[f"{name} {seed}" for name, seed in zip(cut["configuration"], cut["seed"], strict=True)])
    tips = tooltip(
        ("configuration:N", "configuration"), ("seed:N", "seed"), ("outcome:N", "outcome"), ("step:Q", "step")
    )
    text = alt.Chart(ends).mark_text(style="lost", align="left", dx=9, dy=-9, limit=200, fontSize=11)
    return [
        alt.Chart(cut).mark_line(style="lost-line").encode(x=x, y=y, detail="run:N"),
        alt.Chart(ends).mark_point(style="lost-point").encode(x=x, y=y, tooltip=tips),
        text.encode(x=x, y=y, text="text:N"),
    ]
