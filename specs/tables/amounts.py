"""Amounts with a unit, as a spec writes them, in base units: bytes and seconds."""

import re
from typing import Literal

Dimension = Literal["bytes", "seconds"]

_UNITS: dict[str, tuple[Dimension, float]] = {
    "B": ("bytes", 1),
    "KB": ("bytes", 1e3),
    "MB": ("bytes", 1e6),
    "GB": ("bytes", 1e9),
    "TB": ("bytes", 1e12),
    "KiB": ("bytes", 2**10),
    "MiB": ("bytes", 2**20),
    "GiB": ("bytes", 2**30),
    "us": ("seconds", 1e-6),
    "ms": ("seconds", 1e-3),
    "s": ("seconds", 1),
    "min": ("seconds", 60),
    "h": ("seconds", 3600),
}


def in_base_units(amount: str) -> tuple[Dimension, float]:
    """Return what an amount such as `24GB` or `30ms` measures, and how much of it in bytes or seconds.

    :raises ValueError: when it is none
    """
    found = re.fullmatch(r"([0-9.]+)\s?([A-Za-z]+)", amount)
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{amount!r} is no amount with a unit")
    dimension, size = _UNITS[found[2]]
    return dimension, float(found[1]) * size
