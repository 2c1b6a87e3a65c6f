"""How small a difference does not matter: a margin as the spec writes it, in the unit of the metric."""

from lorafile.analysis.common.format import difference, is_share
from lorafile.analysis.compare.outcomes import compared_as
from lorafile.results.results import unit_of

Margin = str | float | None


def margin_of(margin: Margin, metric: str, baseline: float) -> float | None:
    """Return a margin in the metric's base unit, None where none is declared.

    :param margin: `1pt` (a percentage point of a share, a point of a metric of 100 points; no margin for a metric that
        has no points), `1%` of the baseline's figure, or a number in the unit that the metric is compared in
    :param baseline: the baseline's figure in that unit
    """
    if margin is None or isinstance(margin, (int, float)):
        return None if margin is None else float(margin)
    if margin.endswith("%"):
        return float(margin.removesuffix("%")) / 100 * abs(baseline)
    points, scale = float(margin.removesuffix("pt")), compared_as(metric)
    if is_share(scale):
        return points / 100
    return points if unit_of(scale).startswith("points") else None


def margin_text(metric: str, margin: float) -> str:
    """Return a margin as a sentence has it: `1.0 points`, `0.01 nats per token`."""
    return difference(compared_as(metric), margin)
