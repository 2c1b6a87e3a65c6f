"""The texts of `lora state push` and `pull`."""

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.state import show_merged
from lorafile.state.remote.transfer import PulledObjects, Pushed
from lorafile.state.transfer.importer import ImportSummary
from lorafile.units import plural, size


def show_pushed(pushed: Pushed, url: str, out: Console) -> None:
    """Say what was sent, and what was there already."""
    out.print(escape(f"Sent {plural(pushed.attempts, 'attempt')} to {url}."))
    merged = pushed.merged
    if merged is not None and merged.present:
        out.print(f"{plural(merged.present, 'attempt')} were already there.")
    if merged is not None and merged.kept:
        out.print(f"{plural(merged.kept, 'attempt')} were not sent: the remote has another result for them.")


def show_pulled(pulled: ImportSummary | PulledObjects, url: str, out: Console) -> None:
    """Say what was brought."""
    if isinstance(pulled, ImportSummary):
        show_merged(pulled, out, url)
    else:
        out.print(escape(f"Fetched {plural(pulled.objects, 'file')} ({size(pulled.bytes)}) from {url}."))
