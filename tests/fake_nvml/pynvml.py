"""A stand-in for NVIDIA's library: the GPUs that the variable FAKE_GPUS lists, as JSON.

Of each `name`, `uuid`, `memory` in bytes (absent where it has none of its own), and `mig`: its instances, likewise.
"""

import json
import os
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What the library says no with."""


def nvmlInit() -> None:  # noqa: N802
    if "FAKE_GPUS" not in os.environ:
        raise NVMLError("NVML Shared Library Not Found")


def nvmlShutdown() -> None:  # noqa: N802
    """Do nothing."""


def nvmlSystemGetDriverVersion() -> str:  # noqa: N802
    return "570.1"


def _listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(os.environ["FAKE_GPUS"])
    return found


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_listed())


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:  # noqa: N802
    return _listed()[index]


def nvmlDeviceGetMigMode(handle: dict[str, Any]) -> list[int]:  # noqa: N802
    if "mig" not in handle:
        raise NVMLError("Not Supported")
    return [int(bool(handle["mig"])), 1]


def nvmlDeviceGetMaxMigDeviceCount(_handle: dict[str, Any]) -> int:  # noqa: N802
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle: dict[str, Any], index: int) -> dict[str, Any]:  # noqa: N802
    if index % 2 or index // 2 >= len(handle["mig"]):  # places need not be filled one after another
        raise NVMLError("Not Found")
    found: dict[str, Any] = handle["mig"][index // 2]
    return found


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any]) -> SimpleNamespace:  # noqa: N802
    if "memory" not in handle:
        raise NVMLError("Not Supported")
    return SimpleNamespace(total=handle["memory"])


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:  # noqa: N802
    return str(handle["uuid"])


def nvmlDeviceGetName(handle: dict[str, Any]) -> str:  # noqa: N802
    return str(handle["name"])
