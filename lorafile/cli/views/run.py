"""Every text of `lora show` on a configuration, and on what came of a run: seeds, means, costs, predictions."""

import json
from math import isnan
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorafile.analysis.common.format import kind_of, number, score, with_spread
from lorafile.cli.views.node import COLOURS, finite, settings_lines
from lorafile.cli.views.plan import FORMAT_VERSION
from lorafile.engine.metrics.registry import METRICS
from lorafile.study.run_summary import ShownConfiguration
from lorafile.units import duration, size

_LETTERS = 200  # of one text of a prediction
_COSTS = {
    "train_allocated_bytes": "peak training memory",
    "generate_allocated_bytes": "peak memory while generating",
    "train_step_seconds": "time of a training step",
    "first_token_seconds": "time to the first token, attached",
    "token_seconds": "time per token, attached",
    "merged_token_seconds": "time per token, merged",
}


def show_configuration(found: ShownConfiguration, out: Console) -> None:
    """Show a configuration's figures first, then its seeds, verdicts, costs and settings."""
    done = sum(run.outcome == "done" for run in found.runs)
    out.print(f"[bold]{escape(found.name)}[/]  {done} of {len(found.runs)} runs done")
    out.print(escape(f"  study: {found.study}"))
    for name, (mean, spread, n) in found.means.items():
        split, _, metric = name.partition(".")
        seeds = f"{n} seed" if n == 1 else f"{n} seeds"
        told = f"{metric.replace('_', ' ')} on {split}: {_mean(metric, mean, spread)} ({seeds})"
        out.print(escape(f"  {told}"), highlight=False)
    if found.environments:
        out.print(
            f"[yellow]  † its runs come from environments that differ: {escape(', '.join(found.environments))}[/]"
        )
    out.print("[bold]Runs[/]")
    out.print(_runs(found))
    for title, lines in (("Verdicts", found.verdicts), ("Cost", _costs(found.costs))):
        if lines:
            out.print(f"[bold]{title}[/]")
            for line in lines:
                out.print(escape(f"  {line}"), highlight=False)
    if found.settings:
        out.print("[bold]Settings[/]")
        for line in settings_lines(found.settings):
            out.print(escape(f"  {line}"))


def _mean(metric: str, mean: float, spread: float) -> str:
    if metric not in METRICS:  # a metric file: state knows no unit of it
        return number(mean) if isnan(spread) else with_spread("number", mean, spread)
    return score(metric, mean) if isnan(spread) else with_spread(kind_of(metric), mean, spread)


def _one(metric: str, value: float | None) -> str:
    return "" if value is None else score(metric, value) if metric in METRICS else number(value)


def _runs(found: ShownConfiguration) -> Table:
    names = list(dict.fromkeys(name for run in found.runs for name in run.figures))
    table = Table(box=None, pad_edge=True, header_style="dim")
    for title in ("seed", "outcome", "training time"):
        table.add_column(title)
    for name in names:
        split, _, metric = name.partition(".")
        table.add_column(f"{metric.replace('_', ' ')} on {split}", justify="right")
    for run in found.runs:
        colour = COLOURS.get(run.outcome, "yellow")
        told = f"{run.outcome}: {run.message}" if run.message else run.outcome
        row = [
            "none needed" if run.seed is None else str(run.seed),
            f"[{colour}]{escape(told)}[/]",
            duration(run.seconds) if run.seconds else "",
        ]
        table.add_row(*row, *(_one(name.partition(".")[2], run.figures.get(name)) for name in names))
    return table


def _costs(costs: dict[str, Any]) -> list[str]:
    lines = []
    for name, told in _COSTS.items():
        value = costs.get(name)
        if value is not None:
            shown = size(value) if name.endswith("bytes") else f"{1000 * value:.3g} ms"
            lines.append(f"{told}: {shown} ({costs['device']})")
    return lines


def show_results(figures: dict[str, float], predictions: list[dict[str, Any]], out: Console) -> None:
    """Show a run's scores, and some of its predictions."""
    if figures:
        out.print("[bold]Scores[/]")
    for name, value in figures.items():
        split, _, metric = name.partition(".")
        out.print(escape(f"  {metric.replace('_', ' ')} on {split}: {_one(metric, value)}"), highlight=False)
    for row in predictions:
        out.print(f"[bold]Prediction, {row['split']} example {row['row']}[/]")
        for name, value in row.items():
            if name not in ("split", "row"):
                out.print(escape(f"  {name.replace('_', ' ')}: {_short(value)}"), highlight=False)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.strip().replace("\n", " ⏎ ")
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} … ({len(text)} letters)"


def configuration_json(found: ShownConfiguration) -> str:
    """Return a configuration as documented JSON."""
    content = {
        "format_version": FORMAT_VERSION,
        "configuration": found.name,
        "study": found.study,
        "settings": found.settings,
        "runs": [run.__dict__ for run in found.runs],
        "means": {name: {"mean": mean, "sd": sd, "seeds": n} for name, (mean, sd, n) in found.means.items()},
        "environments_differ_in": found.environments,
        "costs": found.costs,
        "verdicts": found.verdicts,
    }
    return json.dumps(finite(content), indent=2, allow_nan=False)
