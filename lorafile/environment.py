"""Where something was computed: kept with every result, outside its key. Imports no torch."""

import os
import platform
import re
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "hqq", "torchao", "gptqmodel", "lorafile")
UNKNOWN_GPU = "unknown GPU"
_NO_GPU = ("", "nodevfiles", "none", "void")  # what schedulers and container runtimes write for no GPU


@cache
def gpus() -> tuple[dict[str, Any], ...]:
    """Return what NVML knows of each GPU, or MIG instance, that this process may use and its torch can use.

    `CUDA_VISIBLE_DEVICES` is heeded: on a shared machine the others belong to other users. The cache is of a process:
    a worker that has set the variable clears it.

    :return: of each `visible` (its name in that variable), `uuid`, `name`, `memory` in bytes, `driver`
    """
    torch = installed("torch")
    if torch is not None and "+cpu" in torch:
        return ()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver of NVIDIA's
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        there = [_instances(pynvml, number, handle, driver) for number, handle in enumerate(handles)]
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()
    return tuple(_visible(there, driver))


def gpu_processes() -> dict[str, dict[int, int]]:
    """Return uuid of each GPU of this machine -> process -> bytes that it holds there; empty where NVML does not say.

    Of every GPU, whatever `CUDA_VISIBLE_DEVICES` says; MIG instances are parts of theirs.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return {
            _text(pynvml.nvmlDeviceGetUUID(handle)): {
                process.pid: process.usedGpuMemory or 0
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            }
            for handle in handles
        }
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def _instances(pynvml: Any, number: int, handle: Any, driver: str) -> list[dict[str, Any]]:
    """Return a GPU, or the MIG instances that it is cut into: CUDA sees either these or the whole."""
    try:
        cut, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # one that cannot be cut
        cut = False
    if not cut:
        return [_described(pynvml, handle, driver) | {"visible": str(number)}]
    found = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except pynvml.NVMLError:  # an empty place
            continue
        about = _described(pynvml, instance, driver)
        found.append(about | {"visible": about["uuid"]})
    return found


def _described(pynvml: Any, handle: Any, driver: str) -> dict[str, Any]:
    try:
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:  # memory that a GPU shares with its processor has no size of its own
        memory = None
    uuid, name = _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle))
    return {"uuid": uuid, "name": name, "memory": memory, "driver": driver}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _visible(there: list[list[dict[str, Any]]], driver: str) -> list[dict[str, Any]]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` names, in its order; all of them where it is not set.

    As CUDA reads it: the first word that stands for no GPU ends the list, and a GPU counts once. A word of another kind
    than these (a MIG instance that NVML does not list) is one GPU of which nothing is known.

    :param there: for each GPU itself, or its MIG instances
    """
    named, everything = os.environ.get("CUDA_VISIBLE_DEVICES"), [gpu for gpus in there for gpu in gpus]
    if named is None or not everything:
        return everything
    found: list[dict[str, Any]] = []
    for word in (word.strip() for word in named.split(",")):
        if re.fullmatch(r"[+-]?\d+", word):  # of a GPU that is cut, CUDA takes the first instance
            fitting = there[int(word)][:1] if 0 <= int(word) < len(there) else []
        else:
            fitting = [gpu for gpu in everything if word and gpu["uuid"].startswith(word)][:1]
            if not fitting and word.lower() not in _NO_GPU:
                fitting = [{"visible": word, "uuid": word, "name": UNKNOWN_GPU, "memory": None, "driver": driver}]
        if not fitting:
            break
        found += [gpu for gpu in fitting if gpu not in found]
    return found


def device_class() -> str:
    """Return what a profile is stored under: the GPU's name, or `cpu`."""
    return gpus()[0]["name"] if gpus() else "cpu"


def profiled(there: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Return the GPUs that profiles run on: those of the first one's kind, under which a profile is stored."""
    return [gpu for gpu in there if gpu["name"] == there[0]["name"]]


def cores() -> int:
    """Return how many cores this process may use: those that it is bound to, up to what its container may use."""
    there = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return max(1, min(there, bound, _quota()))


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, up to what its container may."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # there is none, or it is `max`
        return there


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


def environments() -> list[dict[str, Any]]:
    """Return the environment of a result for each kind of GPU that is here, the first GPU's first."""
    kinds = {gpu["name"]: gpu for gpu in reversed(gpus())}
    return [environment(gpu=kinds[name]) for name in dict.fromkeys(gpu["name"] for gpu in gpus())] or [environment()]


def environment(threads: int | None = None, gpu: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a result carries: device, driver, libraries, processor, threads.

    :param gpu: the first that this process may use, where it is left out
    """
    gpu = gpu or (gpus()[0] if gpus() else {"name": device_class()})
    return {
        "device": gpu["name"],
        "device_memory": gpu.get("memory"),
        "driver": gpu.get("driver"),
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


def slow_dtypes() -> frozenset[str]:
    """Return the data types that this machine's processor has no instructions for; nothing where that is unknown.

    They are those that oneDNN, and so torch, looks for: AVX-512 or AMX on x86, BF16 and FP16 on Arm.
    """
    flags = next((set(line.split()) for line in _cpuinfo() if line.startswith(("flags", "Features"))), None)
    if flags is None:
        return frozenset()
    fast = {
        "bfloat16": {"avx512bw", "avx_ne_convert", "bf16"},
        "float16": {"avx512_fp16", "avx_ne_convert", "asimdhp"},
    }
    return frozenset(dtype for dtype, any_of in fast.items() if not flags & any_of)


def _processor() -> str:
    names = (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name"))
    return next(names, platform.processor())


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
