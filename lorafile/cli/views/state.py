"""Every text of `lora state`: lists, all of one node, and what would be forgotten."""

import json
from collections import Counter
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from lorafile.analysis.common.format import number, score
from lorafile.cli.terminal import printable
from lorafile.cli.views.console import FORMAT_VERSION
from lorafile.cli.views.show import COLOURS, attempt_lines, finite, settings_lines
from lorafile.engine.metrics.registry import METRICS
from lorafile.state.gc import Garbage
from lorafile.state.integrity.repair import RepairReport
from lorafile.state.integrity.verify import Verification
from lorafile.state.listing import NodeRow
from lorafile.state.names import Named
from lorafile.state.node_details import AttemptDetails, NodeDetails
from lorafile.state.transfer.exporter import BundleSummary
from lorafile.state.transfer.importer import ImportSummary
from lorafile.units import duration, size

_MOST = 12


def show_list(rows: list[NodeRow], out: Console) -> None:
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


def _cells(row: NodeRow, names: list[str]) -> list[str]:
    about = [row.name, row.study, row.outcome, row.started[:16].replace("T", " "), duration(row.seconds)]
    return [*map(printable, about), *(_metric(name, row.metrics.get(name)) for name in names), row.key[:12]]


def _metric(name: str, value: float | None) -> str:
    metric = name.partition(".")[2]
    return "" if value is None else score(metric, value) if metric in METRICS else number(value)


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))


def list_json(rows: list[NodeRow]) -> str:
    """Return a list as documented JSON."""
    content = {"format_version": FORMAT_VERSION, "rows": [row.__dict__ for row in rows]}
    return json.dumps(finite(content), indent=2, allow_nan=False)


def show_stored(found: NodeDetails, out: Console) -> None:
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


def _show_attempt(one: AttemptDetails, out: Console) -> None:
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


def stored_json(found: NodeDetails) -> str:
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


def show_bundled(found: BundleSummary, out: Console) -> None:
    """Say what a bundle holds."""
    about = f"{found.attempts} attempts at {found.nodes} nodes, {found.objects} files ({size(found.bytes)})"
    out.print(escape(f"Wrote {found.file}: {about}. Take it in with: lora state import {found.file.name}"))
    if found.absent:
        out.print(f"[yellow]{found.absent} files are not in it: they are not here any more.[/]")


def show_merged(merged: ImportSummary, out: Console) -> None:
    """Say what an import has brought, and what stayed as it was."""
    out.print(
        escape(
            f"Took {merged.attempts} attempts and {merged.objects} files ({size(merged.bytes)}) from {merged.source}."
        )
    )
    if merged.known:
        out.print(f"{merged.known} attempts were here already.")
    if merged.kept:
        out.print(f"{merged.kept} attempts were left out: this state has a result of its own for them.")
    if merged.studies:
        out.print(escape(f"New studies: {', '.join(merged.studies)}."))


def show_verified(found: Verification, out: Console) -> None:
    """Say what was looked at, what is damaged, and what merely lies about."""
    out.print(f"Checked {found.checked} objects ({size(found.bytes)}) and {found.rows} rows.")
    for damage in found.damages[:_MOST]:
        where = "" if damage.where == "index" else f" ({damage.where})"
        out.print(f"  [red]x[/] {escape(damage.told + where)}")
    more = len(found.damages) - _MOST
    if more > 0:
        out.print(f"  … and {more} more (--json has them all)")
    for note in found.notes[:_MOST]:
        out.print(f"  [dim]{escape(note)}[/]")
    if len(found.notes) > _MOST:
        out.print(f"  [dim]… and {len(found.notes) - _MOST} more[/]")
    if found.collected:
        out.print(f"  [dim]{found.collected} objects are not here any more: garbage collection took them[/]")
    damaged = len(found.damages)
    out.print("[green]Everything is as it was stored.[/]" if found.sound else f"[red]Damaged: {damaged}.[/]")


def show_repaired(done: RepairReport, out: Console) -> None:
    """Say what was mended, and what the next apply makes again."""
    if done.index is not None:
        kept = f"; the old one is kept: {done.index}" if done.index.exists() else ""
        out.print(escape(f"A new index has the {done.saved} rows that are sound{kept}"))
        for lost in done.lost[:_MOST]:
            out.print(f"  [red]lost[/] {escape(lost)}")
        if len(done.lost) > _MOST:
            out.print(f"  … and {len(done.lost) - _MOST} more")
    if done.derived:
        out.print(f"Made again from the index: {done.derived} curves.")
    if done.removed:
        out.print(f"Taken away: {done.removed} damaged files.")
    for address, count in list(Counter(done.retried).items())[:_MOST]:
        out.print(
            f"  [yellow]~[/] {escape(address)} is made again by the next apply{f' ({count}×)' if count > 1 else ''}"
        )
    if len(set(done.retried)) > _MOST:
        out.print(f"  … and {len(set(done.retried)) - _MOST} more")
    if done.found.unreadable:
        out.print("What cannot be read was left as it is: look after the disk. Nothing is made again for it.")
    elif not done.found.sound:
        out.print("[green]Repaired.[/] `lora plan` shows what is to be made again.")


def verified_json(found: Verification, done: RepairReport | None) -> str:
    """Return what came of a look, and of a repair, as documented JSON."""
    content = {
        "format_version": FORMAT_VERSION,
        "sound": found.sound,
        "objects": found.checked,
        "bytes": found.bytes,
        "rows": found.rows,
        "collected": found.collected,
        "damages": [damage.__dict__ for damage in found.damages],
        "notes": found.notes,
    }
    if done is not None:
        about = {name: value for name, value in done.__dict__.items() if name != "found"}
        content["repaired"] = about | {"index": str(done.index) if done.index else None}
    return json.dumps(content, indent=2)


def show_garbage(found: Garbage, done: bool, out: Console) -> None:
    """Show what would go, or went, the largest first."""
    for one in found.freed[:_MOST]:
        files = f"{len(one.digests)} file{'s' if len(one.digests) > 1 else ''}"
        out.print(f"  [red]-[/] {escape(one.what)}  [dim]{size(one.bytes)} in {files}: {one.why}[/]")
    rest = found.freed[_MOST:]
    if rest:
        out.print(f"  … and {len(rest)} more ({size(sum(one.bytes for one in rest))}; --json has them all)")
    for path in found.paths[:_MOST]:
        out.print(f"  [red]-[/] {escape(str(path))}  [dim]left by a process that was killed, or of no use any more[/]")
    if len(found.paths) > _MOST:
        out.print(f"  … and {len(found.paths) - _MOST} more")
    count = sum(len(one.digests) for one in found.freed)
    kept = f"{found.kept[0]} files ({size(found.kept[1])}) stay."
    if not count and not found.paths:
        out.print(f"Nothing to free: {kept}")
    elif done:
        out.print(f"[bold]Freed {size(found.bytes)}[/] in {count} files; {kept}")
    else:
        out.print(f"[bold]Would free {size(found.bytes)}[/] in {count} files; {kept} To do it: --yes")


def garbage_json(found: Garbage, done: bool) -> str:
    """Return what would go, or went, as documented JSON."""
    content = {
        "format_version": FORMAT_VERSION,
        "done": done,
        "bytes": found.bytes,
        "kept": {"files": found.kept[0], "bytes": found.kept[1]},
        "freed": [one.__dict__ for one in found.freed],
        "paths": [str(path) for path in found.paths],
    }
    return json.dumps(content, indent=2)
