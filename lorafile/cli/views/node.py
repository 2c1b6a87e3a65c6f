"""Every text of `lora show`: a node's settings, its attempts, and its loss curve as a line of blocks."""

import json
import math
from typing import Any

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.plan import FORMAT_VERSION
from lorafile.state import Attempt
from lorafile.state.node_history import History
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
    for number, attempt in enumerate(found.attempts, 1):
        out.print(f"[bold]Attempt {number}[/]")
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
