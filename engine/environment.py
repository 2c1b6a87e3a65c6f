"""Where something was computed: kept beside every result, outside its key. Imports no torch."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "hqq", "torchao", "gptqmodel", "lorafile")


@cache
def gpus() -> tuple[dict[str, Any], ...]:
    """Return index, name, memory in bytes and driver of each GPU that this process may use and its torch can use.

    `CUDA_VISIBLE_DEVICES` is heeded: on a shared machine the others belong to somebody else.
    """
    torch = installed("torch")
    if torch is not None and "+cpu" in torch:
        return ()
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    found = []
    for index, uuid, name, memory, driver in ([part.strip() for part in line.split(",")] for line in lines):
        # Memory that a GPU shares with its processor has no size of its own.
        size = int(memory) * 2**20 if memory.isdigit() else None
        found.append({"index": index, "uuid": uuid, "name": name, "memory": size, "driver": driver})
    return tuple(_visible(found))


def _visible(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` names, in its order; all of them where it is not set."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return found
    words = [word.strip() for word in named.split(",") if word.strip()]
    return [gpu for word in words for gpu in found if word == gpu["index"] or gpu["uuid"].startswith(word)]


def device_class() -> str:
    """Return what a profile is stored under: the GPU's name, or `cpu`."""
    return gpus()[0]["name"] if gpus() else "cpu"


def cores() -> int:
    """Return how many cores this process may use: those that it is bound to, up to what its container may use."""
    there = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return max(1, min(there, bound, _quota()))


def most_threads() -> int:
    """Return how many threads a process may use for one product: all cores, or fewer where OMP_NUM_THREADS says so."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(wanted)) if wanted.isdecimal() and int(wanted) else cores()


def _quota() -> int:
    """Return for how many cores' time a container has a quota: docs.kernel.org, cgroup v2, `cpu.max`."""
    try:
        microseconds, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(microseconds) // int(period)
    except (OSError, ValueError):  # there is none, or it is `max`
        return sys.maxsize


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


@cache
def installed(name: str) -> str | None:
    """Return the version of an installed library, without importing it; a process asks the disk once."""
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
