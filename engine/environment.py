"""Where something was computed: kept beside every result, outside its key. Imports no torch."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "lorafile")


@cache
def gpus() -> tuple[dict[str, Any], ...]:
    """Return name, memory in bytes and driver of each GPU that this machine and its torch can use."""
    torch = installed("torch")
    if torch is not None and "+cpu" in torch:
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    fields = [[part.strip() for part in line.split(",")] for line in lines]
    return tuple({"name": name, "memory": int(memory) * 2**20, "driver": driver} for name, memory, driver in fields)


def device_class() -> str:
    """Return what a profile is stored under: the GPU's name, or `cpu`."""
    return gpus()[0]["name"] if gpus() else "cpu"


def environment(threads: int | None = None) -> dict[str, Any]:
    """Return what a result carries: device, driver, libraries, processor, threads."""
    first = gpus()[0] if gpus() else {}
    return {
        "device": device_class(),
        "device_memory": first.get("memory"),
        "driver": first.get("driver"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: installed(name) for name in LIBRARIES},
    }


def installed(name: str) -> str | None:
    """Return the version of an installed library, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
