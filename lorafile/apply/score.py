"""`score`: the metrics of one split from its stored predictions. Torch-free, done where a plan is applied."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorafile.engine.metrics.custom import CustomMetric, run_custom_metric
from lorafile.engine.metrics.registry import Rows, built_in, influence_of
from lorafile.engine.request import Result
from lorafile.errors import LoraError, MissingExtra
from lorafile.files.jsonl import read_lines, write_lines
from lorafile.plan.plan import Plan

Predictions = dict[str, Rows]


@dataclass(frozen=True)
class ScoreTask:
    """One `score` node to be computed.

    :ivar inputs: output -> the files of the predictions
    :ivar out: where the outcomes are written
    :ivar own: the metric file that it is for, where it is for one
    :ivar timeout: the most seconds that a metric file may take
    """

    key: str
    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    out: Path
    own: CustomMetric | None
    timeout: float


def score(task: ScoreTask) -> Result:
    """Compute what a `score` node declares, and what each example adds to it; a metric that fails is an outcome."""
    inputs, out = task.inputs, task.out
    predictions = {role: list(read_lines(files["predictions.jsonl.gz"])) for role, files in inputs.items()}
    first = next(iter(predictions.values()))
    each = [{"row": row["row"]} for row in first]
    try:
        if task.own is not None:
            found = {"figure": run_custom_metric(task.own, first, task.timeout)}
        else:
            found = _built_in(task.settings, predictions, each)
    except LoraError as error:
        return Result("failed", str(error))
    except Exception as error:  # one metric that cannot read its rows is one outcome, and not the end of the apply
        return Result("failed", f"evaluate.metrics: {type(error).__name__}: {error}")
    for name, (_, outcomes) in found.items():
        each = [{**row, name: value} for row, value in zip(each, outcomes, strict=True)]
    write_lines(out / "outcomes.jsonl.gz", each)
    figures = {"examples": len(first), **{name: figure for name, (figure, _) in found.items()}}
    return Result(figures=figures, files=["outcomes.jsonl.gz"])


def _built_in(
    settings: dict[str, Any], predictions: Predictions, each: list[dict[str, Any]]
) -> dict[str, tuple[float, list[float]]]:
    """Return metric -> (figure, outcomes); noted beside them: weights of a mean, influences on a figure."""
    found = {}
    options = settings.get("options", {})
    for name in settings["metrics"]:
        metric = built_in(name, head="likelihood" not in predictions)
        rows = predictions[metric.needs]
        found[name] = metric.compute(rows, **options.get(name, {}))
        if metric.weight:
            for noted, row in zip(each, rows, strict=True):
                noted[metric.weight] = row[metric.weight]
        if metric.influence:
            for noted, value in zip(each, metric.influence(rows, **options.get(name, {})), strict=True):
                noted[influence_of(name)] = value
    return found


def check_libraries(plan: Plan) -> None:
    """Check, before anything is paid for, that what scores the plan's predictions is installed.

    :raises MissingExtra: naming the first metric whose library is not
    """
    for change in plan.work:
        task = plan.graph.nodes[change.key].settings.get("task", {})
        if task.get("output") == "lm_eval" and find_spec("lm_eval") is None:
            raise MissingExtra("evaluate.lm_eval_tasks", "lm-eval", "lm-eval")
        for name in plan.graph.nodes[change.key].settings.get("metrics", ()) if change.kind == "score" else ():
            library = built_in(name).library
            if library and find_spec(library) is None:
                raise MissingExtra(f"The metric {name}", library.replace("_", "-"), "metrics")
