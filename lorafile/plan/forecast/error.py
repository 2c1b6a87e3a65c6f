"""How far forecasts were off: what was foretold of each attempt, held against what it took."""

from collections.abc import Iterable

from lorafile.plan.forecast.calibration import peak_of
from lorafile.state import Attempt


def errors(attempts: Iterable[Attempt]) -> dict[str, list[float]]:
    """Return how far forecasts were off, as shares of what was measured: of `time`, and of peak `memory`."""
    found: dict[str, list[float]] = {"time": [], "memory": []}
    for attempt in attempts:
        told = attempt.forecast
        if attempt.outcome != "done":
            continue
        took = attempt.seconds + attempt.figures.get("seconds_before", 0.0)
        if "seconds" in told and "analytic_seconds" in told and took > 0:
            found["time"].append(told["seconds"] / took - 1)
        if "peak_memory_bytes" in told and peak_of(attempt.figures):
            found["memory"].append(told["peak_memory_bytes"] / peak_of(attempt.figures) - 1)
    return found
