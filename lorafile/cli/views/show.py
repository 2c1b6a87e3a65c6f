"""Every text of `lora show`: a node's settings, its attempts, and its loss curve as a line of blocks."""

import json
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from lorafile.analysis.common.format import kind_of, number, score, with_spread
from lorafile.cli.views.console import json_text, show_section
from lorafile.cli.views.table import Column, show_table
from lorafile.engine.metrics.registry import METRICS
from lorafile.state import Attempt
from lorafile.state.node_details import History
from lorafile.study.run_summary import ShownConfiguration
from lorafile.units import duration, plural, size

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH, _NARROWEST = 60, 10  # blocks of a curve
COLOURS = {
    **dict.fromkeys(("diverged", "out-of-memory", "interrupted", "missing"), "yellow"),
    **{"done": "green", "running": "cyan", "not run yet": "dim", "failed": "red"},
}
_MATTERS = ("device", "threads", "torch", "transformers", "peft", "bitsandbytes", "lorafile")


def show_history(shown: History, out: Console) -> None:
    """Show what a node is, what was tried, and how its loss went."""
    colour = COLOURS.get(shown.standing, "yellow")
    out.print(f"[bold]{escape(shown.address)}[/]  [{colour}]{shown.standing}[/]")
    declared = f"declared by: {', '.join(shown.studies) or 'none'}"
    show_section("", node_lines(shown.kind, shown.version, shown.key, declared, shown.inputs), out)
    show_section("Settings", settings_lines(shown.settings), out)
    for at, attempt in enumerate(shown.attempts, 1):
        show_section(f"Attempt {at}", attempt_lines(attempt), out)
    show_section("Loss", [curve_line(shown, out.width if out.is_terminal else None)] if shown.curve else [], out)


def node_lines(
    kind: str, version: int | None, key: str, declared: str, inputs: dict[str, tuple[str, str]]
) -> list[str]:
    """Return what a node is, which studies declare it, and what it reads."""
    protocol = "" if version is None else f", protocol {version}"
    reads = [f"reads {role}: {address or 'a node'} ({digest[:12]}…)" for role, (digest, address) in inputs.items()]
    return [f"{kind}{protocol}, key {key}", declared, *reads]


def settings_lines(settings: dict[str, Any]) -> list[str]:
    """Return `section.setting = value`, a line for each that is set."""
    lines = []
    for section, values in settings.items():
        rows = values.items() if isinstance(values, dict) else [("", values)]
        named = [(f"{section}.{name}".rstrip("."), value) for name, value in rows if value is not None]
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in named]
    return lines


def attempt_lines(attempt: Attempt) -> list[str]:
    """Return the result of an attempt: how it ended, its figures, its files, and where it was made."""
    why = f": {attempt.message}" if attempt.message else ""
    lines = [f"{attempt.started}  {attempt.outcome} in {duration(attempt.seconds)}{why}"]
    lines += [f"{name} = {_figure(value)}" for name, value in attempt.figures.items() if name != "notes"]
    lines += [f"note: {note}" for note in attempt.figures.get("notes", [])]
    if attempt.outputs:
        lines.append(f"files ({size(attempt.bytes)}): {', '.join(attempt.outputs)}")
    made = [f"{name} {attempt.environment[name]}" for name in _MATTERS if attempt.environment.get(name) is not None]
    return [*lines, f"made with: {', '.join(made)}"] if made else lines


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def as_text(value: Any) -> str:
    """Return a text as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def curve_line(shown: History, width: int | None = None) -> str:
    """Return the loss as blocks, where it began and where it is, and how far the run has come.

    :param width: of the terminal; the blocks take what the words leave
    """
    losses = [float(row["loss"]) for row in shown.curve]
    steps = f"step {len(losses)}"
    if shown.unfinished is not None:
        kept = f", checkpoint at {shown.unfinished.checkpoint}" if shown.unfinished.checkpoint else ""
        steps += f" of {shown.unfinished.steps}{kept}"
    last = losses[-10:]
    words = f"  {losses[0]:.3f} → {sum(last) / len(last):.3f}  {steps} ({shown.standing})"
    room = _WIDTH if width is None else max(_NARROWEST, min(_WIDTH, width - len(words) - 2))
    return sparkline(losses, room) + words


def sparkline(values: list[float], width: int = _WIDTH) -> str:
    """Return numbers as blocks, each the mean of an equal stretch; a stretch that holds no finite number is a cross."""
    count = min(width, len(values))
    stretches = [values[len(values) * at // count : len(values) * (at + 1) // count] for at in range(count)]
    means = [sum(part) / len(part) for part in stretches]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] if math.isfinite(mean) else "×" for mean in means)


def history_json(
    shown: History, scores: dict[str, float], predictions: list[dict[str, Any]], log: Sequence[str] = ()
) -> str:
    """Return a node's history as documented JSON.

    :param scores: of its run, as `split.metric`
    :param predictions: the first ones of its run
    :param log: the end of what was printed, where its last attempt failed
    """
    run = shown.unfinished
    content = {
        "key": shown.key,
        "kind": shown.kind,
        "address": shown.address,
        "standing": shown.standing,
        "studies": shown.studies,
        "version": shown.version,
        "settings": shown.settings,
        "inputs": {role: {"key": key, "address": address} for role, (key, address) in shown.inputs.items()},
        "attempts": [attempt._asdict() for attempt in shown.attempts],
        "unfinished": run and {"steps": run.steps, "checkpoint": run.checkpoint, "live": run.live},
        "scores": scores,
        "predictions": predictions,
        "curve": shown.curve,
        "log": list(log),
    }
    return json_text(content)


_LETTERS = 200  # of one text of a prediction
_COSTS = {
    "train_allocated_bytes": "peak training memory",
    "generate_allocated_bytes": "peak memory while generating",
    "train_step_seconds": "training step time",
    "first_token_seconds": "time to first token, attached",
    "token_seconds": "time per token, attached",
    "merged_token_seconds": "time per token, merged",
    "base_token_seconds": "time per token, bare base",
}


def show_configuration(shown: ShownConfiguration, out: Console) -> None:
    """Show a configuration's figures first, then its seeds, verdicts, costs and settings."""
    done = sum(run.outcome == "done" for run in shown.runs)
    out.print(f"[bold]{escape(shown.name)}[/]  {done} of {len(shown.runs)} runs done")
    lines = [f"study: {shown.study}"]
    for name, (mean, spread, n) in shown.means.items():
        value = metric_value(name, mean) if math.isnan(spread) else _with_spread(name, mean, spread)
        lines.append(f"{metric_title(name)}: {value} ({plural(n, 'seed')})")
    show_section("", lines, out)
    if shown.environments:
        differing = escape(", ".join(shown.environments))
        out.print(f"[yellow]  † its runs come from different environments: {differing}[/]")
    out.print("[bold]Runs[/]")
    _show_runs(shown, out)
    show_section("Verdicts", shown.verdicts, out)
    show_section("Cost", _costs(shown.costs), out)
    show_section("Settings", settings_lines(shown.settings), out)


def metric_title(name: str) -> str:
    """Say in words what was measured on which split: return `exact match on test` of `test.exact_match`."""
    split, _, metric = name.partition(".")
    return f"{metric.replace('_', ' ')} on {split}"


def _with_spread(name: str, mean: float, spread: float) -> str:
    metric = name.partition(".")[2]
    return with_spread(kind_of(metric) if metric in METRICS else "number", mean, spread)


def metric_value(name: str, value: float | None) -> str:
    """Return the value of `split.metric` as text; state knows no unit of a metric file."""
    metric = name.partition(".")[2]
    return "" if value is None else score(metric, value) if metric in METRICS else number(value)


def _show_runs(shown: ShownConfiguration, out: Console) -> None:
    names = list(dict.fromkeys(name for run in shown.runs for name in run.figures))
    outcome = Column("outcome", "text", styles=COLOURS)
    columns = [Column("seed"), outcome, Column("training time", right=True, omit=2)]
    columns += [Column(metric_title(name), right=True, omit=0 if name.startswith("test.") else 1) for name in names]
    rows = []
    for run in sorted(shown.runs, key=lambda run: -1 if run.seed is None else run.seed):
        seed = "none needed" if run.seed is None else str(run.seed)
        ended = f"{run.outcome}: {run.message}" if run.message else run.outcome
        row = [seed, ended, duration(run.seconds) if run.seconds else ""]
        rows.append([*row, *(metric_value(name, run.figures.get(name)) for name in names)])
    show_table(columns, rows, out, indent=2)


def _costs(costs: dict[str, Any]) -> list[str]:
    lines = []
    for name, title in _COSTS.items():
        if (value := costs.get(name)) is not None:
            shown = size(value) if name.endswith("bytes") else f"{1000 * value:.3g} ms"
            lines.append(f"{title}: {shown} ({costs['device']})")
    return lines


def show_results(figures: dict[str, float], predictions: list[dict[str, Any]], out: Console) -> None:
    """Show a run's scores, and some of its predictions."""
    scores = [f"{metric_title(name)}: {metric_value(name, value)}" for name, value in figures.items()]
    show_section("Scores", scores, out)
    for row in predictions:
        texts = {name: value for name, value in row.items() if name not in ("split", "row")}
        lines = [f"{name.replace('_', ' ')}: {_short(value)}" for name, value in texts.items()]
        show_section(f"Prediction, {row['split']} example {row['row']}", lines, out)


def _short(value: Any) -> str:
    text = as_text(value).strip().replace("\n", " ⏎ ")
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} … ({len(text)} characters)"


def configuration_json(shown: ShownConfiguration) -> str:
    """Return a configuration as documented JSON."""
    content = {
        "configuration": shown.name,
        "study": shown.study,
        "settings": shown.settings,
        "runs": [run.__dict__ for run in shown.runs],
        "means": {name: {"mean": mean, "sd": sd, "seeds": n} for name, (mean, sd, n) in shown.means.items()},
        "environments_differ_in": shown.environments,
        "costs": shown.costs,
        "verdicts": shown.verdicts,
    }
    return json_text(content)
