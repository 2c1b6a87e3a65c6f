"""What `lora clusters` prints."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from lorafile.cli.views.table import Column, show_table
from lorafile.plan.clusters.config import Cluster, DeviceTable

_COLUMNS = (
    Column("cluster", "name"),
    Column("executor"),
    Column("devices", "text"),
    Column("state", "text", omit=1),
    Column("storage", "text", omit=2),
)


def show_clusters(known: Mapping[str, Cluster], files: tuple[Path, Path], out: Console) -> None:
    """Show a row for each cluster; where there are none, how one is described."""
    if not known:
        local, own = files
        out.print(f"No clusters: neither {local} nor {own} describes one. For example:", markup=False)
        out.print('\n[cluster.lab]\nexecutor = "slurm"\nstorage = "/scratch/me/lora"', markup=False)
        return
    rows = [
        [name, cluster.executor, _devices(cluster.device), cluster.state or "", cluster.storage or ""]
        for name, cluster in known.items()
    ]
    show_table(_COLUMNS, rows, out)


def _devices(tables: list[DeviceTable]) -> str:
    """Return `8 × NVIDIA H100 80GB HBM3 at $2.50/h`."""
    parts = [f"{table.count} × {table.name}{f' at {table.price}' if table.price else ''}" for table in tables]
    return ", ".join(parts) or "not listed: lora clusters check"


def clusters_json(known: Mapping[str, Cluster]) -> str:
    """Return the clusters as JSON, by name."""
    return json.dumps({name: cluster.model_dump() for name, cluster in known.items()}, indent=2)
