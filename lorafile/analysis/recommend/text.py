"""Recommendations in words: what to take, what shows it, and what would change the answer."""

from math import inf, isnan

from lorafile.analysis.common.format import number, on, probability, score
from lorafile.analysis.common.scores import price_of, profiles, scores
from lorafile.analysis.compare.outcomes import compared_as, crossed, figure_interval, margin_text
from lorafile.analysis.compare.verdict_text import FEW, round_up, signed, signed_difference
from lorafile.analysis.recommend.budgets import SHARE, TITLES, Refusal, share_of, shown, unfit_runs
from lorafile.analysis.recommend.choice import SPLIT, Recommendation, against, all_seeds, deciding
from lorafile.results.results import Results
from lorafile.statistics.probabilities import interval
from lorafile.units import listing, plural


def sentences(results: Results, found: list[Recommendation]) -> list[str]:
    """Return what is said of all recommendations: failures first, an answer for each budget, then the cautions."""
    lines = [line for one in found for line in _unfit(results, one)]
    for one in found:
        if one.taken is None:
            lines.append(_nothing(one, heading(one)))
            continue
        lines.append(f"{heading(one)}: {_answer(results, one)} {_quoted(results, one)}")
        lines += [f"What would change this: {' '.join(changes)}" for changes in [_changes(results, one)] if changes]
    lines += [line for one in found for line in _cautions(results, one)]
    return list(dict.fromkeys(lines))


def heading(found: Recommendation) -> str:
    """Return the budgets' names, with their limits."""
    terms = list(dict.fromkeys(term for budget in found.budgets for term in budget.terms))
    named = listing([budget.name for budget in found.budgets], 8)
    if len(found.budgets) > 1 and terms:
        return f"{named} (every configuration keeps within them)" if not found.refused else named
    return f"{named} ({listing(terms, 8)})" if terms else named


def _answer(results: Results, found: Recommendation) -> str:
    taken, metric, count = str(found.taken), compared_as(found.metric), len(found.order)
    where = f"{on(metric, SPLIT)}"
    if found.one_seed:
        return (
            f"no verdict, since with one seed there is none on configurations. Of these runs {taken} has the best "
            f"{where} ({_price(results, found, taken)})."
        )
    if found.choice is None:
        reason = next(iter(found.unjudged.values()), "has no figure")
        return f"no verdict. {taken} has the best mean {where}; nothing can be tested ({taken} {reason})."
    if count == 1:
        rest = "keeps within these limits and can be judged" if found.budget.terms else "has figures"
        return f"{taken}, the only configuration that {rest}; there was nothing to choose."
    if found.firm:
        return _firm(results, found, taken, where)
    return _open(results, found, taken, where)


def _open(results: Results, found: Recommendation, taken: str, where: str) -> str:
    """Return what may be said where nothing is shown to be good enough: which may be the best, and a suggestion."""
    assert found.choice is not None  # noqa: S101  (something was tested)
    may, count = found.choice.may_be_best, len(found.order)
    which = "the best mean" if found.budget.by == "quality" else f"the cheapest ({_price(results, found, taken)})"
    if len(may) == 1:
        all_others = "the only other candidate" if count == 2 else f"each of the other {count - 1} candidates"
        text = f"{taken} is significantly better in {where} than {all_others}"
    else:
        text = f"{taken} is a suggestion: {which} of {len(may)} that may be the best in {where} ({listing(may, 8)})"
        rest = count - len(may)
        text += (
            f"; the other {'one is' if rest == 1 else f'{rest} are'} significantly worse than one of them"
            if rest
            else ""
        )
    if found.margin is None:
        needs = 'Which are good enough is not said without a margin (`verdict.margin`, such as "1pt").'
        return f"no verdict. {text}. {needs}"
    margin = margin_text(compared_as(found.metric), found.margin)
    undecided = f"undecided: none of {count} candidates is shown to be less than {margin} worse than the best"
    return f"{undecided}. {text}.{_decides(results, found)}"


def _firm(results: Results, found: Recommendation, taken: str, where: str) -> str:
    assert found.margin is not None  # noqa: S101  (nothing is claimed without one)
    margin = margin_text(compared_as(found.metric), found.margin)
    good = f"shown to be less than {margin} worse than the best in {where}"
    count, all_of = len(found.claimed), len(found.order)
    which = "the best mean" if found.budget.by == "quality" else f"the cheapest ({_price(results, found, taken)})"
    if count == 1:
        text = f"take {taken}, the only one of {plural(all_of, 'candidate')} that is {good}"
    else:
        text = f"take {taken}, {which} of the {count} of {plural(all_of, 'candidate')} that are {good}"
    return f"{text} ({p_value(found.p[taken])} after adjustment for all candidates; {_size(results, found, taken)})."


def _price(results: Results, found: Recommendation, name: str) -> str:
    """Return `4.37 GB peak training memory, 12.0 MB saved size`, as far as it is known; nothing for what is free."""
    if results.methods[name] == "none":
        return "nothing is trained: the base model as it is"
    parts = []
    for cost in dict.fromkeys((found.prefer, *found.budget.limits, "adapter_size")):
        price = price_of(results, cost).get(name) if cost != SHARE else None
        parts += [] if price is None else [f"{shown(cost, price)} {TITLES[cost]}"]
    return listing(parts) or "its cost was not measured"


def p_value(p: float) -> str:
    """Return `p = 0.012`, `p < 0.001`, or that there is none."""
    return f"p {probability(p)}" if not isnan(p) else "no p"


def _size(results: Results, found: Recommendation, name: str) -> str:
    one = crossed(results, found.metric, SPLIT, all_seeds(results)).outcomes[name]
    return f"{'' if one.exact else plural(one.runs, 'seed') + ' × '}{plural(one.examples, 'example')}"


def _quoted(results: Results, found: Recommendation) -> str:
    """Return the figure on test, which had no part in the choice."""
    name, metric = str(found.taken), found.metric
    known = scores(results, f"test.{metric}")[name]
    if not known.known:
        return "It has no figure on test."
    ends = figure_interval(results, name, metric, "test")
    between = "" if isinstance(ends, str) else f" (95 % interval {score(metric, ends[0])} to {score(metric, ends[1])})"
    return f"On test, which had no part in the choice: {score(metric, known.mean)}{between}."


def _cautions(results: Results, found: Recommendation) -> list[str]:
    lines = []
    outcomes = crossed(results, found.metric, SPLIT, all_seeds(results)).outcomes
    seeds = [outcomes[name].runs for name in found.order if not outcomes[name].exact]
    if not found.one_seed and seeds and min(seeds) < FEW:
        few = [name for name in found.order if outcomes[name].runs < FEW and not outcomes[name].exact]
        lines.append(f"What is said of {listing(few)} is weak: fewer than {FEW} seeds have a figure.")
    if found.taken and found.prefer != found.budget.prefer and found.budget.by == "cost":
        lines.append(
            f"The {TITLES[found.budget.prefer]} was not measured, so {TITLES[found.prefer]} decides what is cheaper."
        )
    untrained = [name for name in found.order if results.methods[name] == "none"]
    if untrained and found.taken not in untrained:
        lines.append(f"{listing(untrained)} is a candidate as well, at no cost of training.")
    if found.unjudged and found.choice is not None:
        lines.append(f"Not judged: {listing([f'{name} {why}' for name, why in found.unjudged.items()], 4)}.")
    device = profiles(results)[0]
    limits = {found.prefer, *found.budget.limits}
    on_cpu = len(device) and "device" in device.columns and str(device["device"].iloc[0]).lower() == "cpu"
    if on_cpu and any("memory" in name for name in limits):
        lines.append("Memory was measured on a CPU, as live tensors: it says little of a GPU.")
    return lines


def _unfit(results: Results, found: Recommendation) -> list[str]:
    """Return what failed, which stands first: left out of the choice, or taken because nothing else is left."""
    failed = [f"{name} ({row.text})" for name, why in found.refused.items() for row in why if row.limit == "ended"]
    lines = [f"Left out of the choice: {listing(failed, 6)}."] if failed else []
    if found.taken and (text := unfit_runs(results, found.taken)):
        named = listing([budget.name for budget in found.budgets], 8)
        lines.append(f"For {named}, of {found.taken} {text}: it is named because nothing else is eligible.")
    return lines


def _decides(results: Results, found: Recommendation) -> str:
    wanted = deciding(results, found)
    if wanted is None:
        return ""
    ways = [plural(wanted.seeds, "seed")] if wanted.seeds else []
    ways += [f"about {round_up(wanted.examples)} validation examples"] if wanted.examples else []
    if not ways:
        return " Neither more seeds nor more examples alone would decide it; both together would."
    return f" From the variances alone, {' or '.join(ways)} would decide it (80 % power)."


def _nothing(found: Recommendation, head: str) -> str:
    """Return which limits leave nothing, and the nearest miss."""
    if not found.refused:
        return f"{head}: no configuration has a figure on {SPLIT}, where the choice is made."
    if found.unjudged:
        reasons = [f"{name} {why}" for name, why in found.unjudged.items()]
        return f"{head}: what keeps within it cannot be judged ({listing(reasons, 4)})."
    counts: dict[str, int] = {}
    for why in found.refused.values():
        for text in dict.fromkeys(_reason(row) for row in why):
            counts[text] = counts.get(text, 0) + 1
    reasons = [f"{count} {text}" for text, count in sorted(counts.items(), key=lambda row: -row[1])]
    text = f"{head}: no configuration keeps within it. Of {len(found.refused)}: {listing(reasons, 8)}."
    over = {
        name: max(row.over for row in why) for name, why in found.refused.items() if not any(isnan(r.over) for r in why)
    }
    near = min(over, key=lambda name: over[name], default=None)
    if near is None or over[near] == inf:
        return text
    return f"{text} The nearest miss is {near}: {listing([row.text for row in found.refused[near]])}."


def _reason(row: Refusal) -> str:
    if row.limit == "servable":
        return "not servable"
    return f"without a measured {TITLES[row.limit]}" if row.over == inf else f"over the {TITLES[row.limit]}"


def _changes(results: Results, found: Recommendation) -> list[str]:
    """Return what would change the answer: the next cheaper candidate, the limits, more seeds."""
    if found.choice is None or found.one_seed or found.taken is None:
        return []
    lines = _next_cheaper(results, found) if found.firm else []
    needs = []
    for limit in dict.fromkeys(limit for budget in found.budgets for limit in budget.limits):
        price = (share_of(results) if limit == SHARE else price_of(results, limit)).get(found.taken)
        needs += [f"{shown(limit, price)} {TITLES[limit]}"] if price else []
    lines += [f"A limit below {listing(needs, 8).replace(' and ', ' or ')} would exclude it."] if needs else []
    lines += [
        f"With {shown(limit, value)} {TITLES[limit]} it would be {other}." for limit, value, other in found.looser
    ]
    return lines


def _next_cheaper(results: Results, found: Recommendation) -> list[str]:
    """Return the cheaper candidate that comes nearest to being good enough, and by how much it misses."""
    assert found.choice is not None  # noqa: S101
    cheaper = found.order[: found.order.index(str(found.taken))] if found.budget.by == "cost" else ()
    known = [name for name in cheaper if not isnan(found.choice.adjusted[name])]
    if not known or found.margin is None:
        return []
    near = min(reversed(known), key=found.choice.p.__getitem__)
    rival, metric = found.choice.rival[near], compared_as(found.metric)
    estimate = against(results, found.metric, near, rival)
    assert estimate is not None  # noqa: S101  (its probability came from it)
    low, high = (signed(metric, value) for value in interval(estimate))
    gap, margin = signed_difference(metric, estimate.difference), margin_text(metric, found.margin)
    p = f"{p_value(found.choice.adjusted[near])}, where {number(found.alpha, 2)} is needed"
    return [
        f"Of the cheaper ones {near} ({_price(results, found, near)}) comes nearest: {gap} against {rival}, "
        f"95 % interval {low} to {high}, with a margin of {margin} ({p})."
    ]
