"""What a configuration can be judged by, quality and cost alike: a value, a direction, a unit, and its uncertainty."""

from dataclasses import dataclass

from lorafile.analysis.claims.checks import figure_interval
from lorafile.analysis.common.base import ColumnKind
from lorafile.analysis.common.cost_measures import COSTS, cost_of
from lorafile.analysis.common.format import amount, kind_of, metric_name
from lorafile.analysis.common.scores import names, scores, split_of
from lorafile.analysis.common.wording import on
from lorafile.results.results import Results
from lorafile.specs.tables.evaluate import metric_label


@dataclass(frozen=True)
class Measure:
    """One measure of every configuration that has it.

    :ivar title: with the split of a metric; `short`: without it
    :ivar split: of a metric; empty for a cost
    :ivar more: whether more of it is better
    :ivar values: configuration -> mean over seeds, or what a profile measured once, in base units
    :ivar intervals: configuration -> 95 % interval of a metric's figure, where there is one
    """

    name: str
    title: str
    short: str
    kind: ColumnKind
    split: str
    more: bool
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    @property
    def timed(self) -> bool:
        """Whether it is a time, which another measurement would move."""
        return not self.split and self.kind == "seconds"

    def gain(self, one: str, other: str) -> float:
        """Return by how much the first is better than the second; negative where it is worse."""
        return (self.values[one] - self.values[other]) * (1 if self.more else -1)

    def shown(self, name: str) -> str:
        """Return a configuration's value with its unit."""
        return amount(self.kind, self.values[name])


def measure(results: Results, name: str) -> Measure:
    """Return a metric, on the split that figures are shown on, or a cost."""
    if name in COSTS:
        cost = COSTS[name]
        return Measure(name, cost.title, cost.title, cost.kind, "", False, cost_of(results, name), {})
    metric = next((known for known in (*results.metrics, results.primary) if known == metric_label(name)), name)
    split = split_of(results, metric)
    found = {config: one.mean for config, one in scores(results, f"{split}.{metric}").items() if one.known}
    ends = {config: figure_interval(results, config, metric, split) for config in names(results) if config in found}
    intervals = {config: pair for config, pair in ends.items() if not isinstance(pair, str)}
    more = results.better_is_more(metric)
    return Measure(metric, on(metric, split), metric_name(metric), kind_of(metric), split, more, found, intervals)
