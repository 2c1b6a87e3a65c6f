"""What a plan would cost, and what of it would not fit, as text."""

from lorafile.plan.cost import estimate_cost
from lorafile.plan.plan import Plan
from lorafile.units import duration, size


def bill_line(plan: Plan, device: str = "") -> str:
    """Say what it would cost: work in all, on the clock with this machine's workers, disk, energy, money."""
    sums = estimate_cost(plan)
    span = f" ({duration(sums.seconds_low)} to {duration(sums.seconds_high)})"
    with_workers = f", about {duration(sums.clock_seconds)} with {plan.workers} workers" if plan.workers > 1 else ""
    rest = f"; {size(sums.disk_bytes)} in the state" if sums.disk_bytes else ""
    rest += f"; {sums.joules / 3.6e6:.2g} kWh" if sums.joules else ""
    if sums.cost is not None:
        rest += f"; {sums.cost:.2f} for {sums.device_hours:.2g} hours at {plan.hourly:g}"
    later = "; what follows the choices comes on top" if any(one.later for one in plan.tuning) else ""
    where = device or plan.device
    return f"Forecast: {duration(sums.seconds)} of work{span} on {where}{with_workers}{rest} ({sums.source}){later}."


def too_large(plan: Plan) -> list[str]:
    """Return a line for each way in which something would not fit, with the smallest change that would."""
    found: dict[tuple[str | None, str], list[int]] = {}
    for change in plan.work:
        forecast = change.forecast or {}
        if forecast.get("fits") is False and change.kind in ("train", "profile"):
            sizes = found.setdefault((forecast.get("would_fit"), change.configuration), [])
            sizes.append(forecast["reserved_bytes"])
    lines = []
    for (remedy, name), sizes in found.items():
        told = f"It would fit with {remedy}." if remedy else "No smaller batch, checkpointing or 4-bit base would do."
        lines.append(f"{name} would not fit: it takes {size(max(sizes))}. {told}")
    return lines
