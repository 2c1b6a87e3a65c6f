"""What a plan says of the differences that its study will be able to detect; as sentences and as JSON."""

import math
from dataclasses import asdict
from typing import Any

from lorafile.analysis.common.base import plain
from lorafile.analysis.common.format import difference, level, metric_name
from lorafile.analysis.sensitivity.mixes import MOST, Detection, Mix
from lorafile.analysis.sensitivity.planned import PlannedSensitivity
from lorafile.plan.plan import Plan
from lorafile.units import duration, plural


def sensitivity_lines(planned: PlannedSensitivity, detection: Detection | None, plan: Plan) -> list[str]:
    """Return what a study will be able to conclude, first the line that matters; nothing where that is not known."""
    if planned.variance is None:
        return []
    needs = f"; {_needs(planned, detection, plan)}" if detection else ""
    return [
        f"{_size(planned)} {_detects(planned)}{needs}.",
        *_equivalence(planned),
        f"This applies to each of {plural(planned.comparisons, 'comparison')} ({level(planned.alpha)} for all of "
        f"them, Holm), and is based on {_source(planned)}.",
    ]


def _size(planned: PlannedSensitivity) -> str:
    size = planned.size
    clusters = f" ({plural(size.clusters, 'cluster')})" if size.clusters else ""
    return f"{plural(min(size.seeds[:2]), 'seed')} × {size.rows:,} {planned.split} rows{clusters}"


def _detects(planned: PlannedSensitivity) -> str:
    if min(planned.size.seeds[:2]) < 2:
        return "detect nothing: one seed is not enough for verdicts on configurations"
    if math.isnan(planned.difference):
        return f"detect no difference in {metric_name(planned.metric)} with 80 % power, however large"
    at_least, variance = "", planned.variance
    if variance is not None and math.isnan(variance.examples):
        at_least = ", on these rows only: the variation with other rows is unknown"
    size = difference(planned.metric, planned.difference)
    known = _range(planned, planned.difference_range)
    return f"detect {size} in {metric_name(planned.metric)} with 80 % power{known}{at_least}"


def _range(planned: PlannedSensitivity, ends: tuple[float, float]) -> str:
    """Return the ends between which a size is, the variance being known from few runs."""
    low, high = (difference(planned.metric, end) for end in ends)
    if math.isnan(ends[0]):
        return ""
    number, _, unit = low.partition(" ")
    to = "any size" if math.isnan(ends[1]) else high
    low = number if high.endswith(unit) and not math.isnan(ends[1]) else low
    return f" ({low} to {to}, given the uncertainty of the variance)"


def _equivalence(planned: PlannedSensitivity) -> list[str]:
    if math.isnan(planned.equivalence):
        return []
    size, known = difference(planned.metric, planned.equivalence), _range(planned, planned.equivalence_range)
    lines = [f"Equal configurations can be shown to be equivalent within {size}{known}."]
    if planned.margin is not None and max(planned.equivalence, planned.difference) > planned.margin:
        margin = difference(planned.metric, planned.margin)
        lines.append(f"That is more than the margin of {margin}: expect inconclusive verdicts (lora plan --detect).")
    return lines


def _source(planned: PlannedSensitivity) -> str:
    variance = planned.variance
    if variance is None:
        return "nothing"
    spread = f"a standard deviation of {difference(planned.metric, variance.runs**0.5)} between runs"
    known = f", {variance.df} degrees of freedom" if variance.df else ""
    bound = ", and the largest variation that right and wrong answers can have" if variance.bound else ""
    return f"{spread} ({variance.source}{known}){bound}"


def _needs(planned: PlannedSensitivity, detection: Detection, plan: Plan) -> str:
    """Say what detects a difference, and what that costs more than the plan as it is."""
    wanted, mix = difference(planned.metric, detection.wanted), detection.mix
    if mix is None:
        rows = f"the {detection.most_rows:,} available {planned.split} rows"
        more = (
            f": with that many seeds, about {detection.enough_rows:,} rows are needed" if detection.enough_rows else ""
        )
        return f"{wanted} need more than {MOST} seeds with {rows}{more}"
    here = min(planned.size.seeds) == mix.seeds and planned.size.rows == mix.rows
    if here or (not math.isnan(planned.difference) and planned.difference <= detection.wanted):
        fewer = f" {plural(mix.seeds, 'seed')} would be enough" if mix.seeds < min(planned.size.seeds) else ""
        return f"so {wanted} are detected{' and' + fewer if fewer else ''}"
    return f"{wanted} need {plural(mix.seeds, 'seed')} × {mix.rows:,} rows, {_price(mix, plan)}"


def _price(mix: Mix, plan: Plan) -> str:
    """Return what a mix costs more than the plan as it is."""
    seconds = mix.cost.clock_seconds - mix.now.clock_seconds
    text = _signed(seconds, duration(abs(seconds)))
    if mix.cost.cost is not None and mix.now.cost is not None:
        money = mix.cost.cost - mix.now.cost
        text += f" and {_signed(money, f'{abs(money):.2f}')} at {plan.hourly:g} an hour"
    return text


def _signed(value: float, text: str) -> str:
    return f"{'+' if value >= 0 else '−'}{text}"


def sensitivity_json(
    planned: PlannedSensitivity | None, detection: Detection | None, plan: Plan
) -> dict[str, Any] | None:
    """Return what a study will be able to conclude as documented JSON; sizes are in the metric's unit."""
    if planned is None:
        return None
    content = asdict(planned) | {"power": 0.8, "level": planned.level}
    content["size"] |= {"seeds": min(planned.size.seeds[:2])}
    if detection is not None:
        found = asdict(detection)
        content["detect"] = {name: found[name] for name in ("wanted", "mix", "most_rows", "enough_rows")}
    return dict(plain(content | {"sentences": sensitivity_lines(planned, detection, plan)}))
