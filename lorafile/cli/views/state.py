"""Every text of `lora state`: lists, all of one node, checks and repairs, and what would be deleted."""

from collections import Counter
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from lorafile.cli.terminal import printable
from lorafile.cli.views.console import MOST, json_text, show_first, show_section
from lorafile.cli.views.show import (
    COLOURS,
    as_text,
    attempt_lines,
    metric_title,
    metric_value,
    node_lines,
    settings_lines,
)
from lorafile.cli.views.table import Column, fit, lines, show_omitted, show_same
from lorafile.state.gc import Garbage
from lorafile.state.integrity.repair import RepairReport
from lorafile.state.integrity.verify import Verification
from lorafile.state.listing import NodeRow
from lorafile.state.names import Named
from lorafile.state.node_details import AttemptDetails, NodeDetails
from lorafile.state.transfer.exporter import BundleSummary
from lorafile.state.transfer.importer import ImportSummary
from lorafile.units import duration, plural, size

_LISTED = (
    Column("name", "name"),
    Column("study", "name"),
    Column("outcome", styles=COLOURS),
    Column("begun", omit=1),
    Column("time", right=True, omit=3),
)


def show_list(rows: list[NodeRow], out: Console) -> None:
    """Show a line for each row, and how many there are; figures that no row has take no room."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    names = [name for name in names if name.startswith("test.")] or names
    columns = [*_LISTED, *(Column(metric_title(name), right=True, omit=4) for name in names), Column("key", omit=2)]
    table = fit(columns, [_cells(row, names) for row in rows], out.width if out.is_terminal else None)
    show_same(table, out)
    if rows:  # at once: a terminal's library would take seconds for ten thousand lines
        click.echo("\n".join(lines(table, _styled)), color=out.is_terminal and not out.no_color)
    show_omitted(table, out)
    failed = sum(row.outcome != "done" for row in rows)
    rest = f", {failed} of them not done" if failed else ""
    out.print(f"{plural(len(rows), 'row')}{rest}." if rows else "Nothing matches.")


def _styled(text: str, style: str) -> str:
    if not style or style in ("dim", "bold"):
        return click.style(text, dim=True) if style else text
    return click.style(text, fg=style)


def _cells(row: NodeRow, names: list[str]) -> list[str]:
    about = [row.name, row.study, row.outcome, row.started[:16].replace("T", " "), duration(row.seconds)]
    return [*map(printable, about), *(metric_value(name, row.metrics.get(name)) for name in names), row.key[:12]]


def list_json(rows: list[NodeRow]) -> str:
    """Return a list as documented JSON."""
    return json_text({"rows": [row.__dict__ for row in rows]})


def show_stored(details: NodeDetails, out: Console) -> None:
    """Show all of a node, its attempts oldest first."""
    version = details.node.version if details.node else None
    declared = ", ".join(f"{study} as {address}" for study, address in details.declared) or "none"
    lines = node_lines(details.kind, version, details.key, f"declared by {declared}", details.inputs)
    show_section(escape(details.address), lines, out)
    show_first([escape(f"read by {address or 'a node'} ({key[:12]}…)") for key, address in details.read_by], out)
    for used in details.stands_for:
        out.print(
            f"  [yellow]its result has been used for {used.new[:12]}… since {used.since}:[/] {escape(used.reason)}"
        )
    if (used_for_it := details.replaced) is not None:
        since = f"the result of {used_for_it.old[:12]}… has been used for it since {used_for_it.since}:"
        out.print(f"  [yellow]{since}[/] {escape(used_for_it.reason)}")
    if details.running is not None:
        out.print(escape(f"  unfinished: {details.running}"))
    if details.node is not None:
        show_section("Settings", settings_lines(details.node.settings), out)
    for attempt in details.attempts:
        _show_attempt(attempt, out)


def _show_attempt(details: AttemptDetails, out: Console) -> None:
    attempt = details.attempt
    out.print(f"[bold]Attempt {details.number}[/]{escape(f'  ({attempt.study}, {attempt.address})')}")
    if details.removed:
        out.print(f"  [yellow]no longer counts since {escape(details.removed)}[/]")
    lines = [line for line in attempt_lines(attempt) if not line.startswith(("files (", "made with: "))]
    lines += [
        f"read {role}: {name} {digest}" for role, files in attempt.reads.items() for name, digest in files.items()
    ]
    show_section("", lines, out)
    for file in details.files:
        colour = {"here": "green", "missing": "red"}.get(file.standing, "dim")
        out.print(f"  [{colour}]{file.standing}[/] {escape(f'{file.name} ({size(file.bytes)}) {file.path}')}")
    environment = {name: value for name, value in attempt.environment.items() if value is not None}
    text = ", ".join(f"{name} {as_text(value)}" for name, value in environment.items())
    out.print(escape(f"  made with: {text}"))


def stored_json(details: NodeDetails) -> str:
    """Return all of a node as documented JSON."""
    attempts = [
        {
            "attempt": each.number,
            "removed": each.removed or None,
            **{name: value for name, value in each.attempt._asdict().items() if name != "outputs"},
            "files": [{**file.__dict__, "path": str(file.path)} for file in each.files],
        }
        for each in details.attempts
    ]
    content = {
        "key": details.key,
        "kind": details.kind,
        "address": details.address,
        "version": details.node.version if details.node else None,
        "settings": details.node.settings if details.node else {},
        "declared": [{"study": study, "address": address} for study, address in details.declared],
        "inputs": {role: {"key": key, "address": address} for role, (key, address) in details.inputs.items()},
        "read_by": [{"key": key, "address": address} for key, address in details.read_by],
        "stands_for": [used.__dict__ for used in details.stands_for],
        "replaced_by": details.replaced.__dict__ if details.replaced else None,
        "running": str(details.running) if details.running else None,
        "attempts": attempts,
    }
    return json_text(content)


def show_forgettable(nodes: list[Named], out: Console) -> None:
    """Show what would be forgotten, and whose it is."""
    lines = [f"[red]-[/] {escape(node.address)}  [dim]{escape(node.study)}, {node.key[:12]}…[/]" for node in nodes]
    show_first(lines, out)
    if not nodes:
        out.print("No results match; there is nothing to remove.")


def show_bundled(bundle: BundleSummary, out: Console) -> None:
    """Say what a bundle holds."""
    about = f"{bundle.attempts} attempts at {bundle.nodes} nodes, {bundle.objects} files ({size(bundle.bytes)})"
    out.print(escape(f"Wrote {bundle.file}: {about}. Import it with: lora state import {bundle.file.name}"))
    if bundle.absent:
        out.print(f"[yellow]{bundle.absent} files are not in it, because they are no longer here.[/]")


def show_merged(merged: ImportSummary, out: Console, source: str = "") -> None:
    """Say what an import has brought, and what stayed as it was.

    :param source: what it came from, in other words than the path
    """
    about = f"{merged.attempts} attempts and {merged.objects} files ({size(merged.bytes)})"
    out.print(escape(f"Imported {about} from {source or merged.source}."))
    if merged.present:
        out.print(f"{merged.present} attempts were already here.")
    if merged.kept:
        out.print(f"{merged.kept} attempts were skipped: this state has its own results for them.")
    if merged.studies:
        out.print(escape(f"New studies: {', '.join(merged.studies)}."))


def show_verified(verified: Verification, out: Console) -> None:
    """Say what was checked, what is damaged, and what merely lies about."""
    out.print(f"Checked {verified.checked:,} objects ({size(verified.bytes)}) and {verified.rows:,} rows.")
    lines = [d.told if d.where == "index" else f"{d.told} ({d.where})" for d in verified.damages]
    show_first([f"[red]x[/] {escape(line)}" for line in lines], out, "(--json has them all)")
    show_first([escape(note) for note in verified.notes], out, style="dim")
    if verified.collected:
        out.print(f"  [dim]{verified.collected} objects are no longer here: they were garbage-collected[/]")
    damaged = len(verified.damages)
    out.print("[green]Everything is intact.[/]" if verified.sound else f"[red]Damaged: {damaged}.[/]")


def show_repaired(repaired: RepairReport, out: Console) -> None:
    """Say what was mended, and what the next apply makes again."""
    if repaired.index is not None:
        kept = f"; the old one is kept: {repaired.index}" if repaired.index.exists() else ""
        out.print(escape(f"A new index has the {repaired.saved} intact rows{kept}"))
        show_first([f"[red]lost[/] {escape(row)}" for row in repaired.lost], out)
    if repaired.derived:
        out.print(f"Recreated from the index: {repaired.derived} curves.")
    if repaired.removed:
        out.print(f"Removed: {repaired.removed} damaged files.")
    counts = Counter(repaired.retried)
    times = {address: f" ({count}×)" if count > 1 else "" for address, count in counts.items()}
    again = [f"[yellow]~[/] {escape(address)} is recreated by the next apply{n}" for address, n in times.items()]
    show_first(again, out)
    if repaired.verification.unreadable:
        out.print("Unreadable files were left unchanged and are not recreated. Check the disk.")
    elif not repaired.verification.sound:
        out.print("[green]Repaired.[/] `lora plan` shows what the next apply recreates.")


def verified_json(verified: Verification, repaired: RepairReport | None) -> str:
    """Return the result of a check, and of a repair, as documented JSON."""
    content: dict[str, Any] = {
        "sound": verified.sound,
        "objects": verified.checked,
        "bytes": verified.bytes,
        "rows": verified.rows,
        "collected": verified.collected,
        "damages": [damage.__dict__ for damage in verified.damages],
        "notes": verified.notes,
    }
    if repaired is not None:
        about = {name: value for name, value in repaired.__dict__.items() if name != "verification"}
        content["repaired"] = about | {"index": str(repaired.index) if repaired.index else None}
    return json_text(content)


def show_garbage(garbage: Garbage, done: bool, out: Console) -> None:
    """Show what would be deleted, or was, the largest first."""
    lines = [
        f"[red]-[/] {escape(item.what)}  [dim]{size(item.bytes)} in {plural(len(item.digests), 'file')}: {item.why}[/]"
        for item in garbage.freed
    ]
    show_first(lines, out, f"({size(sum(item.bytes for item in garbage.freed[MOST:]))}; --json has them all)")
    why = "left by a killed process, or no longer needed"
    show_first([f"[red]-[/] {escape(str(path))}  [dim]{why}[/]" for path in garbage.paths], out)
    count = sum(len(item.digests) for item in garbage.freed)
    kept = f"{garbage.kept[0]:,} files ({size(garbage.kept[1])}) stay."
    if not count and not garbage.paths:
        out.print(f"Nothing to free: {kept}")
    elif done:
        out.print(f"[bold]Freed {size(garbage.bytes)}[/] in {count:,} files; {kept}")
    else:
        out.print(f"[bold]Would free {size(garbage.bytes)}[/] in {count:,} files; {kept} To free them, pass --yes.")


def garbage_json(garbage: Garbage, done: bool) -> str:
    """Return what would be deleted, or was, as documented JSON."""
    content = {
        "done": done,
        "bytes": garbage.bytes,
        "kept": {"files": garbage.kept[0], "bytes": garbage.kept[1]},
        "freed": [item.__dict__ for item in garbage.freed],
        "paths": [str(path) for path in garbage.paths],
    }
    return json_text(content)
