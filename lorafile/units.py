"""Lengths of time and sizes as the terminal shows them."""

import math


def duration(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if math.isfinite(seconds) else "for ever"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
