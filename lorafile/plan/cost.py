"""What a plan would cost in all: hours, disk, energy, and money where an hour has a price."""

from dataclasses import asdict, dataclass
from typing import Any

from lorafile.plan.plan import Plan

_HOUR = 3600.0
_PARTS = {"train": "training", "profile": "measuring"}  # kinds of nodes; all others are evaluation


@dataclass(frozen=True)
class CostEstimate:
    """The sums over the nodes that would run.

    :ivar seconds: of work; four of five plans fall between `seconds_low` and `seconds_high`
    :ivar clock_seconds: until all is done, with this plan's workers
    :ivar device_hours: what is paid for: of each GPU its own work, of a processor the clock
    :ivar joules: of the nodes of which energy is known; None where none is
    :ivar cost: in the currency of the price; None without one
    :ivar source: where most of the time's forecast is from
    :ivar unknown: nodes whose time nothing is known of, and which no sum includes
    :ivar parts: `training`, `evaluation` and `measuring` (profiles) -> their share of `seconds`, in seconds
    """

    seconds: float
    seconds_low: float
    seconds_high: float
    clock_seconds: float
    device_hours: float
    disk_bytes: int
    joules: float | None
    cost: float | None
    source: str
    parts: dict[str, float]
    unknown: int = 0


def estimate_cost(plan: Plan) -> CostEstimate:
    """Return what a plan would cost."""
    forecasts = [(change.kind, change.forecast) for change in plan.work if change.forecast]
    total, low, high, alone, unknown = 0.0, 0.0, 0.0, 0.0, 0
    by_source: dict[str, float] = {}
    parts = dict.fromkeys(("training", "evaluation", "measuring"), 0.0)
    for kind, forecast in forecasts:
        if "seconds" not in forecast:
            unknown += 1
            continue
        total += forecast["seconds"]
        low += forecast["seconds_low"]
        high += forecast["seconds_high"]
        alone += forecast["seconds"] if kind == "profile" else 0.0
        parts[_PARTS.get(kind, "evaluation")] += forecast["seconds"]
        if kind != "score":
            by_source[forecast["source"]] = by_source.get(forecast["source"], 0.0) + forecast["seconds"]
    machines = plan.machines
    clock = (total - alone) / plan.workers + alone / max(1, min(machines.profiling, plan.workers))
    # Of a GPU its own work is paid for, of a processor the clock.
    paid = total * machines.gpus[0].per_worker if machines.gpus else clock
    hours = paid / _HOUR
    joules = [forecast["joules"] for _, forecast in forecasts if "joules" in forecast]
    return CostEstimate(
        seconds=total,
        seconds_low=low,
        seconds_high=high,
        clock_seconds=clock,
        device_hours=hours,
        disk_bytes=sum(forecast.get("disk_bytes", 0) for _, forecast in forecasts),
        joules=sum(joules) if joules else None,
        cost=None if plan.hourly is None else hours * plan.hourly,
        source=max(by_source, key=lambda name: by_source[name], default="analytic"),
        parts=parts,
        unknown=unknown,
    )


def cost_json(plan: Plan) -> dict[str, Any]:
    """Return a plan's cost as the documented JSON."""
    return {
        **asdict(estimate_cost(plan)),
        "price_per_hour": plan.hourly,
        "currency": None if plan.hourly is None else plan.hourly.currency,
    }
