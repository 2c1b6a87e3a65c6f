"""What `lora clusters` prints."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from lorafile.apply.executors.wire import Hello
from lorafile.cli.views.table import Column, show_table
from lorafile.plan.clusters.config import Cluster, DeviceTable
from lorafile.units import memory_size

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
        out.print(f"No clusters: neither {local} nor {own} defines one. For example:", markup=False)
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
    return ", ".join(parts) or "unknown; run lora clusters check"


def clusters_json(known: Mapping[str, Cluster]) -> str:
    """Return the clusters as JSON, by name."""
    return json.dumps({name: cluster.model_dump() for name, cluster in known.items()}, indent=2)


_VERSIONS = ("lorafile", "torch", "transformers", "peft", "bitsandbytes")


def show_check(name: str, cluster: Cluster, hello: Hello, table: str, out: Console) -> None:
    """Show what a worker said of its node, and the device table that follows from it where there is none."""
    about = hello.environment
    memory = f", {memory_size(about['device_memory'])}" if about.get("device_memory") else ""
    driver = f", driver {about['driver']}" if about.get("driver") else ""
    out.print(f"{name} answers: {hello.node}, {about['device']}{memory}{driver}.", markup=False)
    versions = [f"{library} {about[library]}" for library in _VERSIONS if about.get(library)]
    out.print(f"Python {about['python']}, {', '.join(versions)}.", markup=False)
    if not cluster.device:
        out.print("The cluster lists no device. For plans, add one to lora.toml (or pass --write):", markup=False)
        out.print(f"\n{table}", markup=False)


def device_table(name: str, hello: Hello) -> str:
    """Return the table of lora.toml that a worker's device makes."""
    about = hello.environment
    memory = about.get("device_memory")
    lines = [f"[[cluster.{name}.device]]", f"name = {json.dumps(about['device'])}"]
    lines += [f'memory = "{round(memory / 2**20)}MiB"'] if memory else []
    return "\n".join([*lines, "count = 1"])


def check_json(hello: Hello) -> str:
    """Return what a worker said as JSON."""
    return json.dumps({"node": hello.node, "version": hello.version, "environment": hello.environment}, indent=2)
