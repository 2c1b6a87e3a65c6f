"""The choice behind a recommendation: what keeps within a budget, compared by tests on examples that chose nothing."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf, isnan, log

import numpy as np

from lorafile.analysis.common.error_rate import looks
from lorafile.analysis.common.rate_groups import groups
from lorafile.analysis.common.scores import best, price_of, question_lengths, scores, split_of
from lorafile.analysis.compare.confounders import UNPAIRED
from lorafile.analysis.compare.outcomes import Crossed, Margin, crossed, margin_of
from lorafile.analysis.recommend.budgets import Budget, Refusal, refusals
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.statistics.choosing import Choice, PairwiseDifferences, choose, pairwise_differences
from lorafile.statistics.crossed import Estimate, contrast
from lorafile.statistics.run_variance import WIDE
from lorafile.units import listing

_LONGER = 1.2  # times the tokens of the shortest questions, from which on a prompt is a cost
_THRESHOLDS = 8  # looser limits that are tried


@dataclass(frozen=True)
class Recommendation:
    """What to take under a budget, and why.

    :ivar budgets: those that come to the same
    :ivar margin: in the unit that the metric is compared in; None where none is declared
    :ivar split: the one that is tested on: test, unless the study has none; what was chosen, validation chose
    :ivar refused: configuration -> why it does not keep within the budget; `unjudged`: why it keeps, and has no test
    :ivar other_rates: configuration -> the one that differs in its learning rate only, and is better on validation
    :ivar scattered: configuration -> by how much its mean is worse than the best on validation, while its runs vary
        more than twice as much as the others': it is no rival
    :ivar prefer: the cost by which the order is made: the budget's, or the next one that was measured
    :ivar order: candidates, the first to be taken first, were they equally good
    :ivar data: the outcomes on validation of the last look; `choice`: made from them; None where nothing can be tested
    :ivar claimed: shown to be good enough at this look or an earlier one, in order
    :ivar p: of each candidate, adjusted over all, of the look that claimed it or else the last
    :ivar taken: the recommended or the suggested configuration; `firm`: whether it is claimed
    :ivar one_seed: no configuration has a second seed; `alpha`: what the last look may spend
    :ivar looser: (limit, the least value at which another one is taken, which one), where there is one
    """

    budgets: tuple[Budget, ...]
    metric: str
    split: str
    margin: float | None
    refused: dict[str, list[Refusal]]
    unjudged: dict[str, str]
    prefer: str
    order: tuple[str, ...]
    data: Crossed
    choice: Choice | None
    claimed: tuple[str, ...]
    p: dict[str, float]
    taken: str | None
    firm: bool
    one_seed: bool
    alpha: float
    looser: tuple[tuple[str, float, str], ...] = ()
    other_rates: dict[str, str] = field(default_factory=dict)
    scattered: dict[str, float] = field(default_factory=dict)

    @property
    def scale(self) -> str:
        """The metric that differences are of."""
        return self.data.scale

    @property
    def budget(self) -> Budget:
        """The first of them; they differ in nothing that matters."""
        return self.budgets[0]

    @property
    def names(self) -> str:
        """The budgets' names."""
        return listing([budget.name for budget in self.budgets], 8)

    @property
    def drawable(self) -> bool:
        """Whether there are differences to draw."""
        return self.choice is not None and len(self.order) > 1 and not self.one_seed

    @property
    def leader(self) -> str:
        """The candidate with the best mean."""
        sign = -1 if more_is_better(self.scale) else 1
        return min(self.order, key=lambda name: (sign * self.data.outcomes[name].mean, name))

    @property
    def role(self) -> str:
        """Return why `taken` is taken, in a few words."""
        if self.firm:
            return "recommended"
        if self.choice is None or self.one_seed:
            return "best mean"
        return "safe choice" if self.taken == self.leader else "cheapest that may be best"

    def against(self, one: str, other: str) -> Estimate:
        """Return the difference between two configurations, the first less the second."""
        return contrast(self.data.outcomes[one], self.data.outcomes[other], self.data.variance)

    def word(self, name: str) -> str:
        """Return how a configuration stands, in a few words."""
        if name in self.refused:
            return "not eligible"
        if name == self.taken:
            return self.role if self.firm or len(self.order) != 1 else "only one"
        if name in self.claimed:
            return "non-inferior"
        if name in self.other_rates:
            return "better at another rate"
        if name in self.scattered:
            return "scatters"
        if self.choice is None or name not in self.order or self.one_seed:
            return "not judged"
        return f"behind {self.choice.ahead[name]}" if name in self.choice.ahead else "may be best"


def recommend(results: Results, metric: str, margin: Margin, budget: Budget) -> Recommendation:
    """Return the recommendation under a budget, with the looser limits at which it would be another one."""
    found = _choose(results, metric, margin, budget, refusals(results, budget))
    return replace(found, looser=tuple(_looser(results, margin, found))) if found.taken else found


def _choose(
    results: Results, metric: str, margin: Margin, budget: Budget, refused: dict[str, list[Refusal]]
) -> Recommendation:
    eligible = [name for name in results.names if name not in refused]
    more = metric != "perplexity" and more_is_better(metric)
    sign, split = 1 if more else -1, split_of(results, metric)
    other_rates = _other_rates(results, metric, eligible)
    eligible = [name for name in eligible if name not in other_rates]
    claimed: set[str] = set()
    p: dict[str, float] = {}
    for seeds, alpha in looks(results):
        data = crossed(results, metric, split, seeds)
        judged, unjudged = _judged(results, eligible, data)
        outcomes = {name: data.outcomes[name] for name in judged}
        prefer, costs = _costs(results, budget, judged)
        means = [sign * candidate.mean for candidate in outcomes.values()]
        allowed = margin_of(margin, metric, abs(max(means))) if means else None
        differences = _differences(results, metric, split, seeds)
        scattered = _scattered(results, metric, data, judged, allowed)
        rivals = [name for name in judged if name not in scattered]
        choice = choose(outcomes, costs, allowed, more, alpha, data.variance, differences, rivals)
        p |= {name: value for name, value in choice.adjusted.items() if name not in claimed}
        claimed |= set(choice.claimed)
    order = sorted(judged, key=lambda name: (costs.get(name, inf), -sign * outcomes[name].mean, name))
    sides = outcomes.values()
    one_seed = all(side.runs < 2 for side in sides) and not all(side.exact for side in sides)
    kept = tuple(name for name in order if name in claimed)
    firm = bool(kept) and len(order) > 1
    top = max((sign * outcomes[name].mean for name in choice.may_be_best), default=0.0)
    near = [
        name for name in choice.may_be_best if top - sign * outcomes[name].mean <= (inf if allowed is None else allowed)
    ]
    suggested = next(iter(near), None) if order and not one_seed else None
    suggested = suggested or _best_mean(results, metric, split, eligible)
    return Recommendation(
        budgets=(budget,),
        metric=metric,
        split=split,
        margin=allowed,
        refused=refused,
        unjudged=unjudged,
        prefer=prefer,
        order=tuple(order),
        data=data,
        choice=choice if judged else None,
        claimed=kept,
        p=p,
        taken=kept[0] if firm else suggested,
        firm=firm,
        one_seed=one_seed,
        alpha=alpha,
        other_rates=other_rates,
        scattered=scattered,
    )


def _other_rates(results: Results, metric: str, eligible: list[str]) -> dict[str, str]:
    """Return the points of a sweep over learning rates that validation does not prefer -> the one that it does."""
    taken: dict[str, str] = {}
    for group in groups(results):
        members = [name for name, rate in group.rates.items() if name in eligible and not isnan(rate)]
        several = len({group.rates[name] for name in members}) > 1
        chosen = best(results, members, metric) if several else None
        taken |= {name: chosen for name in members if chosen is not None and name != chosen}
    return taken


def _scattered(
    results: Results, metric: str, data: Crossed, judged: list[str], margin: float | None
) -> dict[str, float]:
    """Return what is no rival: on average worse than the best by more than the margin, and far noisier than others.

    A single run of it says little of what the next will give. Without this it would hold up every other candidate:
    little is known of its mean. The spread is independent of the mean, so that this makes no claim more likely to be
    wrong of the others.
    """
    figures = scores(results, f"validation.{metric}")
    known = {name: figures[name].mean for name in judged if figures[name].known}
    if margin is None or not known:
        return {}
    sign = 1 if more_is_better(metric) else -1
    scale = log if metric == "perplexity" else float
    top = max(known, key=lambda name: sign * known[name])
    behind = {name: sign * (scale(known[top]) - scale(figure)) for name, figure in known.items()}
    counted = data.variance.of(
        np.array([data.outcomes[name].run_variance for name in known]),
        np.array([data.outcomes[name].df for name in known]),
    )
    wide = {name for name, ratio in zip(known, counted.ratio, strict=True) if ratio > WIDE**2}
    return {name: gap for name, gap in behind.items() if name in wide and gap > margin}


def _best_mean(results: Results, metric: str, split: str, eligible: list[str]) -> str | None:
    figures = scores(results, f"{split}.{metric}")
    return best(results, [name for name in eligible if figures[name].known], metric)


def _judged(results: Results, eligible: list[str], data: Crossed) -> tuple[list[str], dict[str, str]]:
    """Return the configurations that can be compared with each other, and why the others cannot."""
    why = {name: data.why.get(name, "has no result") for name in eligible if name not in data.outcomes}
    judged = [name for name in eligible if name not in why]
    for setting in UNPAIRED:
        values = {name: str(value) for name, value in results.setting(setting).items()}
        kinds = [values[name] for name in judged]
        usual = max(kinds, key=kinds.count, default="")
        why |= {name: "was evaluated on other data" for name in judged if values[name] != usual}
        judged = [name for name in judged if values[name] == usual]
    return judged, why


def _costs(results: Results, budget: Budget, judged: list[str]) -> tuple[str, dict[str, float]]:
    """Return (the cost that decides first, configuration -> its place from the cheapest on).

    A prompt with solved examples costs nothing to train, and makes every question longer for good: what needs clearly
    more tokens for a question comes after all that do not. Of equal costs the smaller adapter comes first, then fewer
    trainable parameters; equal places are left to the means.
    """
    longer = {name: times for name, times in question_lengths(results).items() if times > _LONGER}
    chain = dict.fromkeys((budget.prefer, "adapter_size", "trainable_parameters"))
    prices = {cost: price_of(results, cost) for cost in chain}
    measured = [cost for cost in chain if len({prices[cost].get(name, inf) for name in judged} - {0.0}) > 1]
    measured = measured or [cost for cost in chain if any(prices[cost].get(name) for name in judged)]
    prefer = measured[0] if measured else budget.prefer
    if budget.by == "quality":
        return prefer, {}
    keys = {name: (longer.get(name, 1.0), *(prices[cost].get(name, inf) for cost in measured)) for name in judged}
    places = {key: float(place) for place, key in enumerate(sorted(set(keys.values())))}
    return prefer, {name: places[key] for name, key in keys.items()}


@lru_cache(maxsize=16)
def _differences(results: Results, metric: str, split: str, seeds: tuple[int, ...]) -> PairwiseDifferences:
    """Return the difference between every two configurations."""
    data = crossed(results, metric, split, seeds)
    return pairwise_differences(data.outcomes, data.variance)


def _looser(results: Results, margin: Margin, found: Recommendation) -> list[tuple[str, float, str]]:
    """Return each limit with the least value above it at which another configuration is taken."""
    changes = []
    for limit, most in found.budget.limits.items():
        needed = {
            name: why[0].over * most
            for name, why in found.refused.items()
            if len(why) == 1 and why[0].limit == limit and why[0].over < inf
        }
        for value in sorted(set(needed.values()))[:_THRESHOLDS]:
            refused = {name: why for name, why in found.refused.items() if needed.get(name, inf) > value}
            other = _choose(results, found.metric, margin, found.budget, refused)
            if other.taken is not None and other.taken != found.taken and other.firm >= found.firm:
                changes.append((limit, value, other.taken))
                break
    return changes
