"""Every text about one model outside of a study's plan: what was fetched, evaluated, imported, answered."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorafile.cli.views.console import FORMAT_VERSION
from lorafile.lock.fetch import Fetched
from lorafile.models.evaluate import Evaluation
from lorafile.models.import_runs import Import
from lorafile.units import size

_HOW = {
    "downloaded": "downloaded to",
    "cached": "already in the hub cache,",
    "local": "already here,",
    "builtin": "built in,",
}


def fetched_line(row: Fetched) -> str:
    """Return what came, its size, and where it is."""
    revision = f" at {row.revision[:12]}" if row.revision else ""
    return f"{row.kind:5} {row.name}{revision}  {size(row.bytes)}  {_HOW[row.how]} {row.where}"


def fetched_json(found: list[Fetched]) -> dict[str, Any]:
    """Return what was fetched as documented JSON."""
    rows = [{**row.__dict__, "where": str(row.where)} for row in found]
    return {"format_version": FORMAT_VERSION, "fetched": rows, "bytes": sum(row.bytes for row in found)}


def offline_advice(found: list[Fetched], to: Path | None) -> list[str]:
    """Say how the files are used on a machine without a network."""
    remote = [row for row in found if row.how in ("downloaded", "cached")]
    if not remote:
        return ["Nothing comes from a hub: all of it is here already."]
    if to is None:
        from huggingface_hub import constants

        return [
            f"Without a network: copy {constants.HF_HUB_CACHE} to that machine (or share it), and set HF_HOME to the "
            "directory that holds it, and HF_HUB_OFFLINE=1."
        ]
    lines = [f"Without a network: copy {to} to that machine, set HF_HUB_OFFLINE=1, and name these in the spec:"]
    return lines + [f'  {row.kind}.path = "{row.where}"' for row in remote]


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as documented JSON; figures that are no finite number are null."""
    checkpoint = found.checkpoint
    return {
        "format_version": FORMAT_VERSION,
        "checkpoint": {"name": checkpoint.name, "kind": checkpoint.kind, "digest": checkpoint.digest},
        "study": found.plan.study,
        "figures": _finite(found.figures),
        "base": _finite(found.base),
        "profile": _finite(found.profile),
        "ran": len(found.applied.attempts),
        "warnings": found.warnings,
        "failed": [{"address": a.address, "outcome": a.outcome, "message": a.message} for a in found.failed],
    }


def show_evaluation(found: Evaluation, out: Console) -> None:
    """Show a checkpoint's figures, beside the untuned base's where state has them."""
    for warning in found.warnings:
        out.print(f"[yellow]Warning:[/] {escape(warning)}")
    for attempt in found.failed:
        out.print(f"[red]{attempt.outcome}:[/] {escape(attempt.address)}: {escape(attempt.message)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("metric", "split", "value", *(["untuned base"] if found.base else [])):
        table.add_column(title, justify="left" if title in ("metric", "split") else "right")
    for split, figures in found.figures.items():
        for name, value in figures.items():
            base = found.base.get(split, {}).get(name)
            table.add_row(name, split, _number(value), *([_number(base)] if found.base else []))
    for name, value in found.profile.items():
        table.add_row(name, "profile", _cost(name, value), *([""] if found.base else []))
    if table.row_count:
        out.print(table)
    if not found.plan.work:
        out.print("All of it was in the state already; nothing was run.")
    if found.figures and not found.base:
        out.print('The state has no figures of the untuned base: a configuration with method = "none" gives them.')


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:d}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _cost(name: str, value: Any) -> str:
    return size(value) if name.endswith("_bytes") and value is not None else _number(value)


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in figures.items()
    }


def show_imports(imports: list[Import], dry_run: bool, out: Console) -> None:
    """Show what each directory became, or would become, and what of it differs or could not be verified."""
    for one in imports:
        what = "is there already, from" if one.there else "would be imported from" if dry_run else "imported from"
        out.print(f"{escape(one.node.address)} {what} {escape(one.source)}")
        if one.match.differs:
            out.print(f"  [yellow]differs:[/] {escape('; '.join(one.match.differs))}")
        if one.match.unverified:
            out.print(f"  [dim]not verified: {escape(', '.join(one.match.unverified))}[/]")
        if one.run.diverged:
            out.print("  [yellow]diverged:[/] its loss was no number in the end")
    new = sum(not one.there for one in imports)
    if dry_run:
        out.print(f"{new} to import; nothing was written.")
    elif new:
        out.print(f"{new} imported. Next: lora apply predicts and scores them; the report marks them.")


def answers_json(run: str, prompt: str, text: str, answers: dict[str, str]) -> dict[str, Any]:
    """Return one question and its answers as documented JSON; `text` is what the model reads."""
    return {"format_version": FORMAT_VERSION, "run": run, "prompt": prompt, "text": text, "answers": answers}
