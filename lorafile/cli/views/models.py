"""Every text about one model outside of a study's plan: what was fetched, evaluated, imported, answered."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import json_text, show_warnings
from lorafile.cli.views.table import Column, show_table
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


def fetched_json(fetched: list[Fetched]) -> str:
    """Return what was fetched as documented JSON."""
    rows = [{**row.__dict__, "where": str(row.where)} for row in fetched]
    return json_text({"fetched": rows, "bytes": sum(row.bytes for row in fetched)})


def offline_advice(fetched: list[Fetched], to: Path | None) -> list[str]:
    """Say how the files are used on a machine without a network."""
    remote = [row for row in fetched if row.how in ("downloaded", "cached")]
    if not remote:
        return ["Nothing comes from the hub: everything is already here."]
    if to is None:
        from huggingface_hub import constants

        return [
            f"For offline use: copy {constants.HF_HUB_CACHE} to that machine (or share it), set HF_HOME to its parent "
            "directory, and set HF_HUB_OFFLINE=1."
        ]
    lines = [f"For offline use: copy {to} to that machine, set HF_HUB_OFFLINE=1, and set these paths in the spec:"]
    return lines + [f'  {row.kind}.path = "{row.where}"' for row in remote]


def evaluation_json(evaluation: Evaluation) -> str:
    """Return an evaluation as documented JSON."""
    checkpoint = evaluation.checkpoint
    content = {
        "checkpoint": {"name": checkpoint.name, "kind": checkpoint.kind, "digest": checkpoint.digest},
        "study": evaluation.plan.study,
        "figures": evaluation.figures,
        "base": evaluation.base,
        "profile": evaluation.profile,
        "ran": len(evaluation.applied.attempts),
        "warnings": evaluation.warnings,
        "failed": [{"address": a.address, "outcome": a.outcome, "message": a.message} for a in evaluation.failed],
    }
    return json_text(content)


def show_evaluation(evaluation: Evaluation, out: Console) -> None:
    """Show a checkpoint's figures, next to the untuned base's where state has them."""
    show_warnings(evaluation.warnings, out)
    for attempt in evaluation.failed:
        out.print(f"[red]{attempt.outcome}:[/] {escape(attempt.address)}: {escape(attempt.message)}")
    columns = [Column("metric"), Column("split"), Column("value", right=True), Column("untuned base", right=True)]
    rows = []
    for split, figures in evaluation.figures.items():
        for name, value in figures.items():
            base = evaluation.base.get(split, {}).get(name)
            rows.append([name, split, _number(value), _number(base)])
    for name, value in evaluation.profile.items():
        shown = size(value) if name.endswith("_bytes") and value is not None else _number(value)
        rows.append([name, "profile", shown, ""])
    if rows:
        show_table(columns if evaluation.base else columns[:-1], rows, out)
    if not evaluation.plan.work:
        out.print("Everything was already in the state; nothing was run.")
    if evaluation.figures and not evaluation.base:
        out.print('The state has no results for the untuned base. Add a configuration with method = "none".')


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def show_imports(imports: list[Import], dry_run: bool, out: Console) -> None:
    """Show what each directory became, or would become, and what of it differs or could not be verified."""
    for item in imports:
        what = "already exists, from" if item.there else "would be imported from" if dry_run else "imported from"
        out.print(f"{escape(item.node.address)} {what} {escape(item.source)}")
        if item.match.differs:
            out.print(f"  [yellow]differs:[/] {escape('; '.join(item.match.differs))}")
        if item.match.unverified:
            out.print(f"  [dim]not verified: {escape(', '.join(item.match.unverified))}[/]")
        if item.run.diverged:
            out.print("  [yellow]diverged:[/] its final loss is not a number")
    new = sum(not item.there for item in imports)
    if dry_run:
        out.print(f"{new} to import; nothing was written.")
    elif new:
        out.print(f"{new} imported. Next: lora apply predicts and scores them; the report marks them.")


def answers_json(run: str, prompt: str, text: str, answers: dict[str, str]) -> str:
    """Return one question and its answers as documented JSON; `text` is what the model reads."""
    return json_text({"run": run, "prompt": prompt, "text": text, "answers": answers})
