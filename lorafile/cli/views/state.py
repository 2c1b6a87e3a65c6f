"""Every text of `lora state`: lists, all of one node, and what would be forgotten."""

import json
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from lorafile.analysis.common.format import number, score
from lorafile.cli.terminal import printable
from lorafile.cli.views.node import COLOURS, attempt_lines, finite, settings_lines
from lorafile.cli.views.plan import FORMAT_VERSION
from lorafile.engine.metrics.registry import METRICS
from lorafile.state.listing import Listed
from lorafile.state.names import Named
from lorafile.state.show import Stored, StoredAttempt
from lorafile.units import duration, size

_MOST = 12


def show_list(rows: list[Listed], out: Console) -> None:
    """Show a line for each row, and how many there are; figures that no row has take no room."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    names = [name for name in names if name.startswith("test.")] or names
    titles = ["name", "study", "outcome", "begun", "time", *names, "key"]
    table = [_cells(row, names) for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *table, strict=True)]
    styled = out.is_terminal and not out.no_color
    lines = [click.style(_line(titles, widths), dim=True)] if rows else []
    for row, cells in zip(rows, table, strict=True):
        outcome = click.style(cells[2].ljust(widths[2]), fg=COLOURS.get(row.outcome, "yellow"))
        lines.append("  ".join([_line(cells[:2], widths), outcome, _line(cells[3:], widths[3:]).rstrip()]))
    if lines:  # at once: a terminal's library would take seconds for ten thousand lines
        click.echo("\n".join(lines), color=styled)
    failed = sum(row.outcome != "done" for row in rows)
    told = f", {failed} of them not done" if failed else ""
    out.print(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}{told}." if rows else "Nothing here is so.")


def _cells(row: Listed, names: list[str]) -> list[str]:
    about = [row.name, row.study, row.outcome, row.started[:16].replace("T", " "), duration(row.seconds)]
    return [*map(printable, about), *(_metric(name, row.metrics.get(name)) for name in names), row.key[:12]]


def _metric(name: str, value: float | None) -> str:
    metric = name.partition(".")[2]
    return "" if value is None else score(metric, value) if metric in METRICS else number(value)


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))


def list_json(rows: list[Listed]) -> str:
    """Return a list as documented JSON."""
    content = {"format_version": FORMAT_VERSION, "rows": [row.__dict__ for row in rows]}
    return json.dumps(finite(content), indent=2, allow_nan=False)


def show_stored(found: Stored, out: Console) -> None:
    """Show all of a node, its attempts oldest first."""
    out.print(f"[bold]{escape(found.address)}[/]")
    version = "" if found.node is None else f", protocol {found.node.version}"
    out.print(f"  {found.kind}{version}, key {found.key}")
    declared = ", ".join(f"{study} as {address}" for study, address in found.declared) or "no study any more"
    out.print(escape(f"  declared by {declared}"))
    for role, (key, address) in found.inputs.items():
        out.print(escape(f"  reads {role}: {address or 'a node'} ({key[:12]}…)"))
    for key, address in found.read_by[:_MOST]:
        out.print(escape(f"  read by {address or 'a node'} ({key[:12]}…)"))
    if len(found.read_by) > _MOST:
        out.print(f"  … and {len(found.read_by) - _MOST} more")
    for one in found.stands_for:
        out.print(f"  [yellow]its result is used for {one.new[:12]}… since {one.since}:[/] {escape(one.reason)}")
    if found.replaced is not None:
        one = found.replaced
        out.print(f"  [yellow]the result of {one.old[:12]}… is used for it since {one.since}:[/] {escape(one.reason)}")
    if found.running is not None:
        out.print(escape(f"  unfinished: {found.running}"))
    if found.node is not None:
        out.print("[bold]Settings[/]")
        for line in settings_lines(found.node.settings):
            out.print(escape(f"  {line}"))
    for attempt in found.attempts:
        _show_attempt(attempt, out)


def _show_attempt(one: StoredAttempt, out: Console) -> None:
    out.print(f"[bold]Attempt {one.number}[/]{escape(f'  ({one.attempt.study}, {one.attempt.address})')}")
    if one.removed:
        out.print(f"  [yellow]counts no more since {escape(one.removed)}[/]")
    for line in attempt_lines(one.attempt):
        if not line.startswith(("files (", "made with: ")):
            out.print(escape(f"  {line}"))
    for role, files in one.attempt.reads.items():
        for name, digest in files.items():
            out.print(escape(f"  read {role}: {name} {digest}"))
    for file in one.files:
        colour = {"here": "green", "missing": "red"}.get(file.standing, "dim")
        out.print(f"  [{colour}]{file.standing}[/] {escape(f'{file.name} ({size(file.bytes)}) {file.path}')}")
    environment = {name: value for name, value in one.attempt.environment.items() if value is not None}
    out.print(escape("  made with: " + ", ".join(f"{name} {_told(value)}" for name, value in environment.items())))


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def stored_json(found: Stored) -> str:
    """Return all of a node as documented JSON."""
    attempts = [
        {
            "attempt": one.number,
            "removed": one.removed or None,
            **{name: value for name, value in one.attempt._asdict().items() if name != "outputs"},
            "files": [{**file.__dict__, "path": str(file.path)} for file in one.files],
        }
        for one in found.attempts
    ]
    content = {
        "format_version": FORMAT_VERSION,
        "key": found.key,
        "kind": found.kind,
        "address": found.address,
        "version": found.node.version if found.node else None,
        "settings": found.node.settings if found.node else {},
        "declared": [{"study": study, "address": address} for study, address in found.declared],
        "inputs": {role: {"key": key, "address": address} for role, (key, address) in found.inputs.items()},
        "read_by": [{"key": key, "address": address} for key, address in found.read_by],
        "stands_for": [one.__dict__ for one in found.stands_for],
        "replaced_by": found.replaced.__dict__ if found.replaced else None,
        "running": str(found.running) if found.running else None,
        "attempts": attempts,
    }
    return json.dumps(finite(content), indent=2, allow_nan=False)


def show_forgettable(nodes: list[Named], out: Console) -> None:
    """Show what would be forgotten, and whose it is."""
    for node in nodes[:_MOST]:
        out.print(f"  [red]-[/] {escape(node.address)}  [dim]{escape(node.study)}, {node.key[:12]}…[/]")
    if len(nodes) > _MOST:
        out.print(f"  … and {len(nodes) - _MOST} more")
    if not nodes:
        out.print("Nothing of that has a result; there is nothing to forget.")
