"""How long work takes on a device, which is waited for."""

import time
from collections.abc import Callable
from typing import Any

import torch

from lorafile.engine.model.base import Base


def timed(base: Base, work: Callable[[], Any]) -> float:
    """Return the seconds that some work takes where a base lies."""
    synchronise(base)
    started = time.perf_counter()
    work()
    synchronise(base)
    return time.perf_counter() - started


def synchronise(base: Base) -> None:
    """Wait until the device has done all that it was given."""
    if base.device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            torch.cuda.synchronize(number)
