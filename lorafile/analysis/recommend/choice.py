"""The choice behind a recommendation: selected on validation among what keeps within a budget, by tests alone."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isnan

from lorafile.analysis.common.scores import best, price_of, scores
from lorafile.analysis.compare.confounders import UNPAIRED
from lorafile.analysis.compare.outcomes import Crossed, Margin, crossed, margin_of
from lorafile.analysis.recommend.budgets import Budget, Refusal, refusals
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, cells
from lorafile.statistics.choosing import Choice, PairwiseDifferences, choose_among, pairwise_differences
from lorafile.statistics.crossed import Estimate, combination, contrast
from lorafile.statistics.deciding import shares
from lorafile.statistics.planning import SampleSize, sample_size

SPLIT = "validation"  # where configurations are selected
_THRESHOLDS = 8  # looser limits that are tried


@dataclass(frozen=True)
class Recommendation:
    """What to take under a budget, and why.

    :ivar budgets: those that come to the same
    :ivar margin: in the unit that the metric is compared in; None where none is declared
    :ivar refused: configuration -> why it does not keep within the budget; `unjudged`: why it keeps, and has no test
    :ivar prefer: the cost by which the order is made: the budget's, or the next one that was measured
    :ivar order: candidates, the first to be taken first, were they equally good
    :ivar choice: of the last look; None where nothing can be tested
    :ivar claimed: shown to be good enough at this look or an earlier one, in order
    :ivar p: of each candidate, adjusted over all, of the look that claimed it or else the last
    :ivar taken: the recommended or the suggested configuration; `firm`: whether it is claimed
    :ivar one_seed: no configuration has a second seed; `alpha`: what the last look may spend
    :ivar looser: (limit, the least value at which another one is taken, which one), where there is one
    """

    budgets: tuple[Budget, ...]
    metric: str
    margin: float | None
    refused: dict[str, list[Refusal]]
    unjudged: dict[str, str]
    prefer: str
    order: tuple[str, ...]
    choice: Choice | None
    claimed: tuple[str, ...]
    p: dict[str, float]
    taken: str | None
    firm: bool
    one_seed: bool
    alpha: float
    looser: tuple[tuple[str, float, str], ...] = ()

    @property
    def budget(self) -> Budget:
        """The first of them; they differ in nothing that matters."""
        return self.budgets[0]

    def word(self, name: str) -> str:
        """Return how a configuration stands, in a few words."""
        if name in self.refused:
            return "not eligible"
        if name == self.taken:
            return "recommended" if self.firm else "only one" if len(self.order) == 1 else "suggested"
        if name in self.claimed:
            return "non-inferior"
        if self.choice is None or name not in self.order or self.one_seed:
            return "not judged"
        return f"behind {self.choice.ahead[name]}" if name in self.choice.ahead else "may be best"


def recommend(results: Results, metric: str, margin: Margin, budget: Budget) -> Recommendation:
    """Return the recommendation under a budget, with the looser limits at which it would be another one."""
    refused = refusals(results, budget)
    found = _choose(results, metric, margin, budget, refused)
    return replace(found, looser=tuple(_looser(results, metric, margin, found))) if found.taken else found


def _choose(
    results: Results, metric: str, margin: Margin, budget: Budget, refused: dict[str, list[Refusal]]
) -> Recommendation:
    eligible = [name for name in results.names if name not in refused]
    looks = results.looks or (tuple(results.seeds),)
    spent = shares(results.verdict.alpha, results.verdict.keep, len(looks))
    more = metric != "perplexity" and more_is_better(metric)
    claimed: set[str] = set()
    p: dict[str, float] = {}
    for look, alpha in enumerate(spent):
        seeds = tuple(seed for group in looks[: look + 1] for seed in group)
        data = crossed(results, metric, SPLIT, seeds)
        judged, unjudged = _judged(results, eligible, data)
        outcomes = {name: data.outcomes[name] for name in judged}
        prefer, costs = costs_of(results, budget, judged)
        means = [(1 if more else -1) * one.mean for one in outcomes.values()]
        allowed = margin_of(margin, metric, abs(max(means))) if means else None
        choice = choose_among(outcomes, between(results, metric, seeds), costs, allowed, more, alpha, data.variance)
        p |= {name: value for name, value in choice.adjusted.items() if name not in claimed}
        claimed |= set(choice.claimed)
    order = sorted(judged, key=lambda name: (costs.get(name, inf), (-1 if more else 1) * outcomes[name].mean, name))
    one_seed = (
        bool(judged)
        and all(one.runs < 2 for one in outcomes.values())
        and not all(one.exact for one in outcomes.values())
    )
    kept = tuple(name for name in order if name in claimed)
    firm = bool(kept) and len(order) > 1
    taken = kept[0] if firm else _suggested(results, metric, choice, order, eligible, one_seed)
    return Recommendation(
        (budget,),
        metric,
        allowed,
        refused,
        unjudged,
        prefer,
        tuple(order),
        choice if judged else None,
        kept,
        p,
        taken,
        firm,
        one_seed,
        spent[-1],
    )


def _suggested(
    results: Results, metric: str, choice: Choice, order: list[str], eligible: list[str], one_seed: bool
) -> str | None:
    """Return the one to look at where nothing is shown: the first that may be the best, or the best mean."""
    if order and not one_seed:
        return choice.may_be_best[0]
    known = scores(results, f"{SPLIT}.{metric}")
    return best(results, [name for name in eligible if known[name].known], metric)


def _judged(results: Results, eligible: list[str], data: Crossed) -> tuple[list[str], dict[str, str]]:
    """Return the configurations that can be compared with each other, and why the others cannot."""
    why = {name: data.why.get(name, "has no figure") for name in eligible if name not in data.outcomes}
    judged = [name for name in eligible if name not in why]
    everyone = results.names
    for setting in UNPAIRED:
        held = dict(zip(everyone, (str(value) for value in cells(results.configurations, setting)), strict=True))
        kinds = [held[name] for name in judged]
        usual = max(kinds, key=kinds.count, default="")
        why |= {name: "was judged on other data" for name in judged if held[name] != usual}
        judged = [name for name in judged if held[name] == usual]
    return judged, why


def costs_of(results: Results, budget: Budget, judged: list[str]) -> tuple[str, dict[str, float]]:
    """Return (the cost that decides first, configuration -> its place from the cheapest on).

    Of equal costs the smaller adapter comes first, then fewer trainable parameters; equal places are left to the means.
    """
    chain = list(dict.fromkeys((budget.prefer, "adapter_size", "trainable_parameters")))
    prices = {cost: price_of(results, cost) for cost in chain}
    known = [cost for cost in chain if any(prices[cost].get(name) for name in judged)]
    prefer = known[0] if known else budget.prefer
    if budget.by == "quality":
        return prefer, {}
    keys = {name: tuple(prices[cost].get(name, inf) for cost in known) for name in judged}
    places = {key: float(place) for place, key in enumerate(sorted(set(keys.values())))}
    return prefer, {name: places[key] for name, key in keys.items()}


@lru_cache(maxsize=16)
def between(results: Results, metric: str, seeds: tuple[int, ...]) -> PairwiseDifferences:
    """Return the difference between every two configurations on validation."""
    data = crossed(results, metric, SPLIT, seeds)
    return pairwise_differences(data.outcomes, data.variance)


def all_seeds(results: Results) -> tuple[int, ...]:
    """Return the seeds of every look so far."""
    return tuple(seed for group in results.looks or (results.seeds,) for seed in group)


def against(results: Results, metric: str, one: str, other: str) -> Estimate | None:
    """Return the difference between two configurations on validation, the first less the second."""
    data = crossed(results, metric, SPLIT, all_seeds(results))
    if one == other or not {one, other} <= data.outcomes.keys():
        return None
    return contrast(data.outcomes[one], data.outcomes[other], data.variance)


def own(results: Results, metric: str, split: str, name: str) -> Estimate | None:
    """Return a configuration's own figure with its variance, other seeds and other examples in it."""
    data = crossed(results, metric, split, all_seeds(results))
    one = data.outcomes.get(name)
    return None if one is None else combination([one], [1.0], data.variance)


def deciding(results: Results, found: Recommendation) -> SampleSize | None:
    """Return how many seeds or examples would decide between the suggested one and its rivals, variances alone."""
    if found.choice is None or found.taken is None or found.margin is None or found.one_seed:
        return None
    alpha = shares(results.verdict.alpha, results.verdict.keep, len(results.looks or (0,)) + 1)[-1]
    rivals = [name for name in found.choice.may_be_best if name != found.taken]
    size = max(len(found.order) - 1, 1)
    wanted = []
    for rival in rivals:
        estimate = against(results, found.metric, found.taken, rival)
        if estimate is not None and not isnan(estimate.error) and alpha:
            wanted.append(sample_size(estimate, found.margin, alpha / size))
    if not wanted:
        return None
    seeds, examples = [one.seeds for one in wanted], [one.examples for one in wanted]
    return SampleSize(_most(seeds), _most(examples))


def _most(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


def _looser(results: Results, metric: str, margin: Margin, found: Recommendation) -> list[tuple[str, float, str]]:
    """Return each limit with the least value above it at which another configuration is taken."""
    changes = []
    for limit, most in found.budget.limits.items():
        alone = {
            name: why[0].over * most
            for name, why in found.refused.items()
            if len(why) == 1 and why[0].limit == limit and why[0].over < inf
        }
        for value in sorted(set(alone.values()))[:_THRESHOLDS]:
            refused = {name: why for name, why in found.refused.items() if alone.get(name, inf) > value}
            other = _choose(results, metric, margin, found.budget, refused)
            if other.taken is not None and other.taken != found.taken and other.firm >= found.firm:
                changes.append((limit, value, other.taken))
                break
    return changes
