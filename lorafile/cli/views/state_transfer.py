"""Every text of `lora state export` and `import`."""

from rich.console import Console
from rich.markup import escape

from lorafile.state.transfer.exporter import Bundled
from lorafile.state.transfer.importer import Merged
from lorafile.units import size


def show_bundled(found: Bundled, out: Console) -> None:
    """Say what a bundle holds."""
    about = f"{found.attempts} attempts at {found.nodes} nodes, {found.objects} files ({size(found.bytes)})"
    out.print(escape(f"Wrote {found.file}: {about}. Take it in with: lora state import {found.file.name}"))
    if found.absent:
        out.print(f"[yellow]{found.absent} files are not in it: they are not here any more.[/]")


def show_merged(merged: Merged, out: Console) -> None:
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
