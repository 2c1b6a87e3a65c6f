"""How did training go: the loss of every configuration, diverged runs among them."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.common.format import number
from lorafile.results.results import Results, cells, grouped, missing, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing

POINTS = 60  # the most points of one line: more cannot be told apart at this width
FEWEST, ALTOGETHER = 15, 6000  # of hundreds of lines none can be followed closely, and a page has to be drawn


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return the loss curves; nothing where no step was recorded."""
    thin = thinned(results)
    if thin.empty:
        return []
    from lorafile.analysis.training.curves_chart import caption, chart

    analysis = Analysis("curves", "curves", "Training loss", "How did training go?", _sentences(results, thin))
    return [analysis.with_chart(chart(results, thin), caption(results))]


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
        f"{name} (seed {seed}) diverged; its last finite loss is that of step {last[name, seed]:.0f}."
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
        lines.append(f"At the end the training loss lies between {ends} nats per token, means over seeds.")
        lines.append("A training loss says nothing about new examples.")
    return lines
