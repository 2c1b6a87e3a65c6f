"""Every text about one model outside of a study's plan: what was fetched, evaluated, imported, answered."""

from pathlib import Path
from typing import Any

from lorafile.fetch import Fetched
from lorafile.views import FORMAT_VERSION, size

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
