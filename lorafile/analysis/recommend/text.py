"""Recommendations in words: what to take, what shows it, and what would change the answer."""

from collections import Counter
from math import inf, isnan

from lorafile.analysis.common.format import number, on, probability, score
from lorafile.analysis.common.scores import price_of, profiles, scores
from lorafile.analysis.compare.outcomes import figure_interval, margin_text
from lorafile.analysis.compare.verdict_text import FEW, round_up, signed_difference, signed_interval
from lorafile.analysis.recommend.budgets import SHARE, TITLES, Refusal, limited, shown, unfit_runs
from lorafile.analysis.recommend.choice import SPLIT, Recommendation, deciding
from lorafile.results.results import Results
from lorafile.statistics.choosing import Choice
from lorafile.statistics.probabilities import interval
from lorafile.units import listing, plural


def sentences(results: Results, choices: list[Recommendation]) -> list[str]:
    """Return what is said of all recommendations: failures first, an answer for each budget, then the cautions."""
    lines = [line for found in choices for line in _unfit(results, found)]
    for found in choices:
        if found.taken is None:
            lines.append(_nothing(found, heading(found)))
            continue
        lines.append(f"{heading(found)}: {_answer(results, found, found.taken)} {_quoted(results, found, found.taken)}")
        if changes := _changes(results, found, found.taken):
            lines.append(f"What would change this: {' '.join(changes)}")
    lines += [line for found in choices for line in _cautions(results, found)]
    return list(dict.fromkeys(lines))


def heading(found: Recommendation) -> str:
    """Return the budgets' names, with their limits."""
    terms = list(dict.fromkeys(term for budget in found.budgets for term in budget.terms))
    if len(found.budgets) > 1 and terms:
        return f"{found.names} (every configuration keeps within them)" if not found.refused else found.names
    return f"{found.names} ({listing(terms, 8)})" if terms else found.names


def _answer(results: Results, found: Recommendation, taken: str) -> str:
    metric, price = on(found.scale, SPLIT), _price(results, found, taken)
    if found.one_seed:
        return (
            f"no verdict, since with one seed there is none on configurations. Of these runs {taken} has the best "
            f"{metric} ({price})."
        )
    if found.choice is None:
        reason = next(iter(found.unjudged.values()), "has no figure")
        return f"no verdict. {taken} has the best mean {metric}; nothing can be tested ({taken} {reason})."
    if len(found.order) == 1:
        rest = "keeps within these limits and can be judged" if found.budget.terms else "has figures"
        return f"{taken}, the only configuration that {rest}; there was nothing to choose."
    which = "the best mean" if found.budget.by == "quality" else f"the cheapest ({price})"
    if found.firm:
        return _firm(found, taken, which, metric)
    open_text = _open(found.choice.may_be_best, len(found.order), taken, which, metric)
    if found.margin is None:
        needs = 'Which are good enough is not said without a margin (`verdict.margin`, such as "1pt").'
        return f"no verdict. {open_text}. {needs}"
    none = f"none of {len(found.order)} candidates is shown to be less than {_margin(found)} worse than the best"
    return f"undecided: {none}. {open_text}.{_decides(results, found)}"


def _open(may: tuple[str, ...], count: int, taken: str, which: str, metric: str) -> str:
    """Return what may be said where nothing is shown to be good enough: which may be the best, and a suggestion."""
    if len(may) == 1:
        all_others = "the only other candidate" if count == 2 else f"each of the other {count - 1} candidates"
        return f"{taken} is significantly better in {metric} than {all_others}"
    text = f"{taken} is a suggestion: {which} of {len(may)} that may be the best in {metric} ({listing(may, 8)})"
    rest = count - len(may)
    others = "one is" if rest == 1 else f"{rest} are"
    return text + (f"; the other {others} significantly worse than one of them" if rest else "")


def _firm(found: Recommendation, taken: str, which: str, metric: str) -> str:
    good = f"shown to be less than {_margin(found)} worse than the best in {metric}"
    count, candidates = len(found.claimed), plural(len(found.order), "candidate")
    several = f"{which} of the {count} of {candidates} that are"
    role = f"the only one of {candidates} that is" if count == 1 else several
    side = found.data.outcomes[taken]
    size = f"{'' if side.exact else plural(side.runs, 'seed') + ' × '}{plural(side.examples, side.unit)}"
    return f"take {taken}, {role} {good} ({_p(found.p[taken])} after adjustment for all candidates; {size})."


def _margin(found: Recommendation) -> str:
    return margin_text(found.metric, found.margin or 0.0)


def _price(results: Results, found: Recommendation, name: str) -> str:
    """Return `4.37 GB peak training memory, 12.0 MB saved size`, as far as it is known; nothing for what is free."""
    if results.methods[name] == "none":
        return "nothing is trained: the base model as it is"
    parts = []
    for cost in dict.fromkeys((found.prefer, *found.budget.limits, "adapter_size")):
        price = price_of(results, cost).get(name) if cost != SHARE else None
        parts += [] if price is None else [f"{shown(cost, price)} {TITLES[cost]}"]
    return listing(parts) or "its cost was not measured"


def _p(p: float) -> str:
    """Return `p = 0.012`, `p < 0.001`, or that there is none."""
    return f"p {probability(p)}" if not isnan(p) else "no p"


def _quoted(results: Results, found: Recommendation, taken: str) -> str:
    """Return the figure on test, which had no part in the choice."""
    metric, figure = found.metric, scores(results, f"test.{found.metric}")[taken]
    if not figure.known:
        return "It has no figure on test."
    ends = figure_interval(results, taken, metric, "test")
    between = "" if isinstance(ends, str) else f" (95 % interval {score(metric, ends[0])} to {score(metric, ends[1])})"
    return f"On test, which had no part in the choice: {score(metric, figure.mean)}{between}."


def _cautions(results: Results, found: Recommendation) -> list[str]:
    lines = []
    outcomes = found.data.outcomes
    few = [name for name in found.order if outcomes[name].runs < FEW and not outcomes[name].exact]
    if few and not found.one_seed:
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
        lines.append(f"For {found.names}, of {found.taken} {text}: it is named because nothing else is eligible.")
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
    counts = Counter(text for why in found.refused.values() for text in dict.fromkeys(map(_reason, why)))
    reasons = [f"{count} {text}" for text, count in counts.most_common()]
    text = f"{head}: no configuration keeps within it. Of {len(found.refused)}: {listing(reasons, 8)}."
    over = {name: [row.over for row in why] for name, why in found.refused.items()}
    most = {name: max(times) for name, times in over.items() if not any(map(isnan, times))}
    near = min(most, key=most.__getitem__, default=None)
    if near is None or most[near] == inf:
        return text
    return f"{text} The nearest miss is {near}: {listing([row.text for row in found.refused[near]])}."


def _reason(row: Refusal) -> str:
    if row.limit == "servable":
        return "not servable"
    return f"without a measured {TITLES[row.limit]}" if row.over == inf else f"over the {TITLES[row.limit]}"


def _changes(results: Results, found: Recommendation, taken: str) -> list[str]:
    """Return what would change the answer: the next cheaper candidate, the limits, more seeds."""
    if found.choice is None or found.one_seed:
        return []
    lines = _next_cheaper(results, found, found.choice, taken) if found.firm else []
    needs = []
    for limit in dict.fromkeys(limit for budget in found.budgets for limit in budget.limits):
        price = limited(results, limit).get(taken)
        needs += [f"{shown(limit, price)} {TITLES[limit]}"] if price else []
    lines += [f"A limit below {listing(needs, 8).replace(' and ', ' or ')} would exclude it."] if needs else []
    lines += [
        f"With {shown(limit, value)} {TITLES[limit]} it would be {other}." for limit, value, other in found.looser
    ]
    return lines


def _next_cheaper(results: Results, found: Recommendation, choice: Choice, taken: str) -> list[str]:
    """Return the cheaper candidate that comes nearest to being good enough, and by how much it misses."""
    cheaper = found.order[: found.order.index(taken)] if found.budget.by == "cost" else ()
    tested = [name for name in cheaper if not isnan(choice.adjusted[name])]
    if not tested or found.margin is None:
        return []
    near = min(reversed(tested), key=choice.p.__getitem__)
    estimate = found.against(near, choice.rival[near])
    gap = f"{signed_difference(found.scale, estimate.difference)} against {choice.rival[near]}"
    ends = signed_interval(found.scale, interval(estimate))
    p = f"{_p(choice.adjusted[near])}, where {number(found.alpha, 2)} is needed"
    return [
        f"Of the cheaper ones {near} ({_price(results, found, near)}) comes nearest: {gap}, "
        f"95 % interval {ends}, with a margin of {_margin(found)} ({p})."
    ]
