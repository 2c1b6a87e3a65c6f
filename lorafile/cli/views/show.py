"""Every text of `lora show`: a node's settings, its attempts, and its loss curve as a line of blocks."""

import json
import math
from math import isnan
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorafile.analysis.common.format import kind_of, number, score, with_spread
from lorafile.cli.views.console import FORMAT_VERSION
from lorafile.engine.metrics.registry import METRICS
from lorafile.state import Attempt
from lorafile.state.node_details import History
from lorafile.study.run_summary import ShownConfiguration
from lorafile.units import duration, size

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
COLOURS = {"done": "green", "running": "cyan", "not run yet": "dim", "failed": "red"}
_MATTERS = ("device", "threads", "torch", "transformers", "peft", "bitsandbytes", "lorafile")


def show_history(found: History, out: Console) -> None:
    """Show what a node is, what was tried, and how its loss went."""
    colour = COLOURS.get(found.standing, "yellow")
    out.print(f"[bold]{escape(found.address)}[/]  [{colour}]{found.standing}[/]")
    version = "" if found.version is None else f", protocol {found.version}"
    out.print(f"  {found.kind}{version}, key {found.key}")
    told = ", ".join(found.studies) or "none any more"
    out.print(escape(f"  declared by: {told}"))
    for role, (key, address) in found.inputs.items():
        out.print(escape(f"  reads {role}: {address or 'a node'} ({key[:12]}…)"))
    if found.settings:
        out.print("[bold]Settings[/]")
        for line in settings_lines(found.settings):
            out.print(escape(f"  {line}"))
    for at, attempt in enumerate(found.attempts, 1):
        out.print(f"[bold]Attempt {at}[/]")
        for line in attempt_lines(attempt):
            out.print(escape(f"  {line}"))
    if found.curve:
        out.print("[bold]Loss[/]")
        out.print(escape(f"  {curve_line(found)}"))


def settings_lines(settings: dict[str, Any]) -> list[str]:
    """Return `section.setting = value`, a line for each that is set."""
    lines = []
    for section, values in settings.items():
        rows = values.items() if isinstance(values, dict) else [("", values)]
        named = [(f"{section}.{name}".rstrip("."), value) for name, value in rows if value is not None]
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in named]
    return lines


def attempt_lines(attempt: Attempt) -> list[str]:
    """Return what came of an attempt: how it ended, its figures, its files, and where it was made."""
    why = f": {attempt.message}" if attempt.message else ""
    lines = [f"{attempt.started}  {attempt.outcome} in {duration(attempt.seconds)}{why}"]
    lines += [f"{name} = {_figure(value)}" for name, value in attempt.figures.items() if name != "notes"]
    lines += [f"note: {note}" for note in attempt.figures.get("notes", [])]
    if attempt.outputs:
        lines.append(f"files ({size(attempt.bytes)}): {', '.join(attempt.outputs)}")
    where = [f"{name} {attempt.environment[name]}" for name in _MATTERS if attempt.environment.get(name) is not None]
    return [*lines, f"made with: {', '.join(where)}"] if where else lines


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)


def curve_line(found: History) -> str:
    """Return the loss as blocks, where it began and where it is, and how far the run has come."""
    losses = [float(row["loss"]) for row in found.curve]
    steps = f"step {len(losses)}"
    if found.unfinished is not None:
        kept = f", checkpoint at {found.unfinished.checkpoint}" if found.unfinished.checkpoint else ""
        steps += f" of {found.unfinished.steps}{kept}"
    last = losses[-10:]
    return f"{sparkline(losses)}  {losses[0]:.3f} → {sum(last) / len(last):.3f}  {steps} ({found.standing})"


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """Return numbers as blocks, each the mean of an equal stretch; a stretch that holds no finite number is a cross."""
    count = min(width, len(values))
    stretches = [values[len(values) * at // count : len(values) * (at + 1) // count] for at in range(count)]
    means = [sum(part) / len(part) for part in stretches]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] if math.isfinite(mean) else "×" for mean in means)


def history_json(found: History, scores: dict[str, float], predictions: list[dict[str, Any]]) -> str:
    """Return a node's history as documented JSON.

    :param scores: of its run, as `split.metric`; `predictions`: the first ones
    """
    run = found.unfinished
    content = {
        "format_version": FORMAT_VERSION,
        "key": found.key,
        "kind": found.kind,
        "address": found.address,
        "standing": found.standing,
        "studies": found.studies,
        "version": found.version,
        "settings": found.settings,
        "inputs": {role: {"key": key, "address": address} for role, (key, address) in found.inputs.items()},
        "attempts": [attempt._asdict() for attempt in found.attempts],
        "unfinished": run and {"steps": run.steps, "checkpoint": run.checkpoint, "live": run.live},
        "scores": scores,
        "predictions": predictions,
        "curve": found.curve,
    }
    return json.dumps(finite(content), indent=2, allow_nan=False)


def finite(value: Any) -> Any:
    """Return a value as JSON has it: what is no finite number is null."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
