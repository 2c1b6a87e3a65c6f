"""What a plan would cost in all: hours, disk, energy, and money where an hour has a price."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from lorafile.environment import gpus, profiled
from lorafile.errors import LoraError
from lorafile.plan.plan import Plan
from lorafile.specs.values import PRICE
from lorafile.units import Price

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


def estimate_cost(plan: Plan) -> CostEstimate:
    """Return what a plan would cost."""
    forecasts = [(change.kind, change.forecast) for change in plan.work if change.forecast]
    total, low, high, alone = 0.0, 0.0, 0.0, 0.0
    by_source: dict[str, float] = {}
    parts = dict.fromkeys(("training", "evaluation", "measuring"), 0.0)
    for kind, forecast in forecasts:
        total += forecast["seconds"]
        low += forecast["seconds_low"]
        high += forecast["seconds_high"]
        alone += forecast["seconds"] if kind == "profile" else 0.0
        parts[_PARTS.get(kind, "evaluation")] += forecast["seconds"]
        if kind != "score":
            by_source[forecast["source"]] = by_source.get(forecast["source"], 0.0) + forecast["seconds"]
    clock = (total - alone) / plan.workers + alone / max(1, min(len(profiled(gpus())), plan.workers))
    hours = (total if gpus() else clock) / _HOUR
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
    )


def cost_json(plan: Plan) -> dict[str, Any]:
    """Return a plan's cost as the documented JSON."""
    return {
        **asdict(estimate_cost(plan)),
        "price_per_hour": plan.hourly,
        "currency": None if plan.hourly is None else plan.hourly.currency,
    }


def price(text: str) -> Price:
    """Return what an hour of one device costs, from `2.50/h`, `$2.50/h` or `2.50 EUR/h`.

    :raises LoraError: when it is no price
    """
    match = re.fullmatch(PRICE, text.strip())
    if match is None or (match["before"] and match["after"]):
        raise LoraError(f"--price: \"{text}\" is no price of an hour; write for example --price '$2.50/h'")
    return Price(float(match["amount"]), match["before"] or match["after"] or "", bool(match["before"]))
