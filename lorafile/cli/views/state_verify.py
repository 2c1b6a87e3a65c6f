"""Every text of `lora state verify` and `gc`."""

import json
from collections import Counter

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.plan import FORMAT_VERSION
from lorafile.state.gc import Garbage
from lorafile.state.integrity.repair import Repaired
from lorafile.state.integrity.verify import Verified
from lorafile.units import size

_MOST = 12


def show_verified(found: Verified, out: Console) -> None:
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


def show_repaired(done: Repaired, out: Console) -> None:
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


def verified_json(found: Verified, done: Repaired | None) -> str:
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
