"""`score`: the metrics of one split from its stored predictions. Imports no torch."""

from pathlib import Path
from typing import Any

from lorafile.engine.metrics.custom import run_custom_metric
from lorafile.engine.metrics.extraction import without_reasoning
from lorafile.engine.metrics.registry import Rows, built_in, influence_of
from lorafile.engine.request import Request, Result
from lorafile.errors import LoraError
from lorafile.files.jsonl import read_lines, write_lines


def score(request: Request, out: Path) -> Result:
    """Compute what a `score` node declares, and what each example adds to it; a metric that fails is an outcome."""
    predictions = {role: list(read_lines(files["predictions.jsonl.gz"])) for role, files in request.inputs.items()}
    if request.settings.get("reasoning"):
        predictions = {role: [without_reasoning(row) for row in rows] for role, rows in predictions.items()}
    first = next(iter(predictions.values()))
    each = [{"row": row["row"]} for row in first]
    try:
        if "metric" in request.paths:
            scores = {"figure": run_custom_metric(request.paths["metric"], first, request.execution["metric_timeout"])}
        else:
            scores = _built_in(request.settings, predictions, each)
    except LoraError as error:
        return Result("failed", str(error))
    except Exception as error:  # one metric that cannot read its rows is one outcome, and not the end of the apply
        return Result("failed", f"evaluate.metrics: {type(error).__name__}: {error}")
    for name, (_, outcomes) in scores.items():
        each = [{**row, name: value} for row, value in zip(each, outcomes, strict=True)]
    write_lines(out / "outcomes.jsonl.gz", each)
    figures = {"examples": len(first), **{name: figure for name, (figure, _) in scores.items()}}
    return Result(figures=figures, files=["outcomes.jsonl.gz"])


def _built_in(
    settings: dict[str, Any], predictions: dict[str, Rows], each: list[dict[str, Any]]
) -> dict[str, tuple[float, list[float]]]:
    """Return metric -> (figure, outcomes); noted in `each`: weights of a mean, influences on a figure."""
    scores = {}
    options = settings.get("options", {})
    for name in settings["metrics"]:
        metric = built_in(name, head="likelihood" not in predictions)
        rows = predictions[metric.needs]
        scores[name] = metric.compute(rows, **options.get(name, {}))
        if metric.weight:
            for noted, row in zip(each, rows, strict=True):
                noted[metric.weight] = row[metric.weight]
        if metric.influence:
            for noted, value in zip(each, metric.influence(rows, **options.get(name, {})), strict=True):
                noted[influence_of(name)] = value
    return scores
