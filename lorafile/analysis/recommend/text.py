"""Recommendations in words: what to take, what shows it, and what would change the answer."""

from collections import Counter
from math import inf, isnan

from lorafile.analysis.common.format import difference, metric_name, on, probability, score
from lorafile.analysis.common.scores import averages, price_of, profiles, question_lengths, scores, unmeasured
from lorafile.analysis.compare.outcomes import figure_interval, margin_text, reach
from lorafile.analysis.compare.verdict_text import FEW, round_up, signed_interval
from lorafile.analysis.recommend.budgets import SHARE, TITLES, Refusal, limited, shown, unfit_runs
from lorafile.analysis.recommend.choice import Recommendation
from lorafile.engine.metrics.registry import more_is_better, range_of
from lorafile.results.results import Results
from lorafile.statistics.choosing import Choice
from lorafile.statistics.planning import sample_size
from lorafile.statistics.probabilities import interval
from lorafile.units import listing, plural

_MOST_TIMES = 100  # the examples that there are: what takes more is no advice
OPTIMISTIC = "Without a test split, validation was used both to choose and to evaluate: these results are optimistic."


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


def brief(results: Results, found: Recommendation) -> tuple[str, ...]:
    """Return what to take and how sure that is, in one or two sentences; nothing where nothing can be said."""
    if found.taken is None or found.choice is None:
        return ()
    if tie := _tie(results, found):
        return (f"There is {tie}",)
    metric = on(found.scale, found.split)
    if found.one_seed:
        return (
            f"With one seed there is no verdict; of these runs {_scored(results, found, found.taken)} is the best.",
        )
    if found.firm:
        within = f"shown to be less than {_margin(found)} worse than the best in {metric}"
        why = (
            "the best mean" if found.budget.by == "quality" else f"the cheapest ({_price(results, found, found.taken)})"
        )
        several = f"{why} of the {len(found.claimed)} candidates that are {within}"
        role = several if len(found.claimed) > 1 else f"the only one of {len(found.order)} candidates {within}"
        return (
            f"Take {_scored(results, found, found.taken)}: {role}.",
            *_next_cheaper(results, found, found.choice, found.taken),
        )
    best = found.leader
    safe = f"{_scored(results, found, best)} is the safe choice: it has the best mean in {metric}."
    if best == found.taken or found.margin is None:
        needs = ' A margin (verdict.margin, such as "1pt") would show which cheaper ones are good enough.'
        return (f"{safe}{needs if found.margin is None else _settles(found, best, '')}",)
    gap = _gap(found, found.taken, best)[:-1]
    return (safe, f"{gap}{_share(results, found, found.taken, best)}.{_settles(found, found.taken, best)}")


def _scored(results: Results, found: Recommendation, name: str) -> str:
    """Return `rank/r=16 (98.5 %, 95 % interval 95.2 % to 99.6 %)`."""
    figure = score(found.metric, scores(results, f"{found.split}.{found.metric}")[name].mean)
    ends = figure_interval(results, name, found.metric, found.split)
    if isinstance(ends, str):
        return f"{name} ({figure})"
    return f"{name} ({figure}, 95 % interval {score(found.metric, ends[0])} to {score(found.metric, ends[1])})"


def _share(results: Results, found: Recommendation, name: str, of: str) -> str:
    """Return ` at 37 % of the saved size`; nothing where either price is not known."""
    prices = price_of(results, found.prefer)
    if not prices.get(of) or prices.get(name) is None:
        return ""
    return f" at {100 * prices[name] / prices[of]:.0f} % of the {TITLES[found.prefer]}"


def heading(found: Recommendation) -> str:
    """Return the budgets' names, with their limits."""
    terms = list(dict.fromkeys(term for budget in found.budgets for term in budget.terms))
    if len(found.budgets) > 1 and terms:
        return f"{found.names} (every configuration is within these limits)" if not found.refused else found.names
    return f"{found.names} ({listing(terms, 8)})" if terms else found.names


def _answer(results: Results, found: Recommendation, taken: str) -> str:
    metric, price = on(found.scale, found.split), _price(results, found, taken)
    if found.one_seed:
        return (
            f"no verdict, since one seed is not enough for one on configurations. Of these runs, {taken} has the best "
            f"{metric} ({price})."
        )
    if found.choice is None:
        reason = next(iter(found.unjudged.values()), "has no result")
        return f"no verdict. {taken} has the best mean {metric}; nothing can be tested ({taken} {reason})."
    if tie := _tie(results, found):
        return tie
    if len(found.order) == 1:
        rest = "is within these limits and can be evaluated" if found.budget.terms else "has results"
        return f"{taken}, the only configuration that {rest}; there was no choice to make."
    if found.firm:
        return _firm(found, taken, price, metric)
    if found.margin is None:
        needs = 'Set a margin (verdict.margin, such as "1pt") to find out which are good enough.'
        return f"no verdict. {_open(found, taken, price, metric)} {needs}"
    none = f"none of {len(found.order)} candidates is shown to be less than {_margin(found)} worse than the best"
    return f"inconclusive: {none}. {_open(found, taken, price, metric)}"


def _tie(results: Results, found: Recommendation) -> str:
    """Return that all candidates are at one end of the scale, and which metric may tell them apart."""
    means = {found.data.outcomes[name].mean for name in found.order}
    at = next(iter(means))
    if len(found.order) < 2 or len(means) > 1 or at not in range_of(found.scale):
        return ""
    told = [
        metric_name(other)
        for other in results.metrics
        if other != found.metric and len({*averages(results, f"{found.split}.{other}").values()}) > 1
    ]
    remedy = f"{listing(told)} can: set evaluate.primary." if told else "add log_loss to evaluate.metrics, which can."
    return (
        f"no choice: all {len(found.order)} candidates score {score(found.metric, at)} in {metric_name(found.metric)}, "
        f"so it cannot tell them apart; {remedy}"
    )


def _open(found: Recommendation, taken: str, price: str, metric: str) -> str:
    """Return what may be said where nothing is shown to be good enough: which may be the best, and a suggestion."""
    assert found.choice is not None  # noqa: S101  (there are candidates)
    may, count, best = found.choice.may_be_best, len(found.order), found.leader
    if len(may) == 1:
        all_others = "the only other candidate" if count == 2 else f"each of the other {count - 1} candidates"
        return f"{taken} is significantly better in {metric} than {all_others}."
    behind = sum(name in found.choice.ahead for name in found.order)
    others = f"; {'one other is' if behind == 1 else f'{behind} others are'} significantly worse than one of these"
    start = f"{len(may)} of {count} may be the best in {metric} ({listing(may, 8)}){others if behind else ''}."
    if best == taken:
        nearer = "" if found.budget.by == "quality" or found.margin is None else ", and nothing cheaper comes close"
        return f"{start} Take {taken} ({price}) to be safe: it has the best mean{nearer}.{_settles(found, taken, '')}"
    which = "has" if found.margin is None else f"is the cheapest whose mean is within {_margin(found)} of the best:"
    cheaper = f"{taken} is the cheapest of these ({price})" if which == "has" else f"{taken} {which} {price}"
    return (
        f"{start} Take {best} to be safe: it has the best mean. {cheaper}. {_gap(found, taken, best)}"
        f"{_settles(found, taken, best)}"
    )


def _firm(found: Recommendation, taken: str, price: str, metric: str) -> str:
    good = f"shown to be less than {_margin(found)} worse than the best in {metric}"
    count, candidates = len(found.claimed), plural(len(found.order), "candidate")
    role = f"the only one of {candidates} that is"
    if count > 1:
        which = "the best mean" if found.budget.by == "quality" else f"the cheapest ({price})"
        role = f"{which} of the {count} of {candidates} that are"
    side = found.data.outcomes[taken]
    size = f"{'' if side.exact else plural(side.runs, 'seed') + ' × '}{plural(side.examples, side.unit)}"
    nothing = ""
    if found.budget.by == "cost" and found.order[-1] == taken and len(found.order) > 1:
        nothing = " It is also the most expensive: nothing cheaper is shown to be as good."
    return f"take {taken}, {role} {good} ({_p(found.p[taken])} after adjustment for all candidates; {size}).{nothing}"


def _gap(found: Recommendation, one: str, other: str) -> str:
    """Return `rank/r=32 scored 1.5 points lower (95 % interval −4.9 to +2.0)`."""
    estimate = found.against(one, other)
    word = "higher" if estimate.difference > 0 else "lower"
    size = difference(found.scale, estimate.difference)
    ends = signed_interval(found.scale, interval(estimate, reach=reach(found.scale)))
    return f"{one} scored {size} {word} (95 % interval {ends})."


def _settles(found: Recommendation, name: str, against: str) -> str:
    """Return which rival holds a candidate up, and how many seeds or examples would settle it."""
    choice, margin = found.choice, found.margin
    rival = choice.rival.get(name) if choice is not None else None
    if choice is None or margin is None or rival is None:
        return ""
    sides = (found.data.outcomes[name], found.data.outcomes[rival])
    estimate = found.against(name, rival)
    ends = interval(estimate, reach=reach(found.scale))
    if (ends[1] if more_is_better(found.scale) else -ends[0]) < -margin:  # no more seeds are needed
        return f" The whole interval lies beyond the margin of {_margin(found)}: no more seeds are needed."
    wanted = sample_size(estimate, margin, max(found.alpha / max(len(found.order) - 1, 1), 1e-12))
    have = max((side.runs for side in sides if not side.exact), default=0)
    ways = [plural(wanted.seeds - have, "more seed")] if wanted.seeds and wanted.seeds > have else []
    affordable = wanted.examples is not None and wanted.examples <= _MOST_TIMES * estimate.n
    ways += [f"{round_up(wanted.examples or 0)} {found.split} {estimate.unit}s"] if affordable else []
    held = "" if rival == against else f" {rival} {_doubt(found, ends)}: {_gap(found, name, rival)}"
    what = f"whether {name} is within {_margin(found)} of {rival}"
    if not ways:
        return f"{held} Neither more seeds nor more {estimate.unit}s alone would show {what}; both together would."
    return f"{held} {' or '.join(ways)} would show {what} (80 % power, from the variances alone)."


def _doubt(found: Recommendation, ends: tuple[float, float]) -> str:
    """Return what is open about a rival: its own interval may rule out that it is better where the test does not."""
    if (ends[0] if more_is_better(found.scale) else -ends[1]) > 0:
        return f"cannot be ruled out in the test of all {len(found.order)} candidates"
    return "may be better"


def _margin(found: Recommendation) -> str:
    return margin_text(found.metric, found.margin or 0.0)


def _price(results: Results, found: Recommendation, name: str) -> str:
    """Return `4.37 GB peak training memory, 12.0 MB saved size`, as far as it is known; nothing for what is free."""
    times = question_lengths(results).get(name, 1.0)
    longer = f"{times:.1f} times as many tokens for every question" if times >= 1.05 else ""
    if results.methods[name] == "none":
        return f"nothing is trained: it is the untuned base model{f', with {longer}' if longer else ''}"
    parts = [longer] if longer else []
    for cost in dict.fromkeys((found.prefer, *found.budget.limits, "adapter_size")):
        price = price_of(results, cost).get(name) if cost != SHARE else None
        parts += [] if price is None else [f"{shown(cost, price)} {TITLES[cost]}"]
    return listing(parts) or "its cost was not measured"


def _p(p: float) -> str:
    """Return `p = 0.012`, `p < 0.001`, or that there is none."""
    return f"p {probability(p)}" if not isnan(p) else "no p"


def _quoted(results: Results, found: Recommendation, taken: str) -> str:
    """Return the figure of what is taken, and a warning where validation both chose and judged."""
    metric, figure = found.metric, scores(results, f"{found.split}.{found.metric}")[taken]
    if not figure.known:
        return f"It has no result on {found.split}."
    ends = figure_interval(results, taken, metric, found.split)
    between = "" if isinstance(ends, str) else f" (95 % interval {score(metric, ends[0])} to {score(metric, ends[1])})"
    text = f"Its result on {found.split}: {score(metric, figure.mean)}{between}."
    return text if found.split == "test" else f"{text} {OPTIMISTIC}"


def _cautions(results: Results, found: Recommendation) -> list[str]:
    lines = []
    outcomes = found.data.outcomes
    few = [name for name in found.order if outcomes[name].runs < FEW and not outcomes[name].exact]
    if few and not found.one_seed:
        lines.append(f"{listing(few)}: fewer than {FEW} seeds, so treat these results as preliminary.")
    if found.taken and found.prefer != found.budget.prefer and found.budget.by == "cost":
        lost = unmeasured(results, found.budget.prefer, found.taken)
        lines.append(f"The {TITLES[found.budget.prefer]} {lost}, so {TITLES[found.prefer]} decides which is cheaper.")
    untrained = [name for name in found.order if results.methods[name] == "none"]
    if untrained and found.taken not in untrained:
        lines.append(f"{listing(untrained)} needs no training and is also a candidate.")
    lines += [
        f"{name} is excluded: its mean is {difference(found.scale, gap)} worse than the best on validation, and its "
        "runs vary more than twice as much as the others'. More seeds would show how good it is."
        for name, gap in found.scattered.items()
    ]
    if count := len(found.other_rates):
        lines.append(
            f"Excluded from the choice: {plural(count, 'configuration')} with a better learning rate on validation."
        )
    if found.unjudged and found.choice is not None:
        lines.append(f"Not evaluated: {listing([f'{name} {why}' for name, why in found.unjudged.items()], 4)}.")
    device = profiles(results)[0]
    limits = {found.prefer, *found.budget.limits}
    on_cpu = len(device) and "device" in device.columns and str(device["device"].iloc[0]).lower() == "cpu"
    if on_cpu and any("memory" in name for name in limits):
        lines.append("Memory was measured on a CPU, as live tensors: it says little about memory on a GPU.")
    return lines


def _unfit(results: Results, found: Recommendation) -> list[str]:
    """Return what failed, which stands first: left out of the choice, or taken because nothing else is left."""
    failed = [f"{name} ({row.text})" for name, why in found.refused.items() for row in why if row.limit == "ended"]
    lines = [f"Excluded from the choice: {listing(failed, 6)}."] if failed else []
    if found.taken and (text := unfit_runs(results, found.taken)):
        lines.append(f"For {found.names}: {found.taken} is named only because nothing else is eligible ({text}).")
    return lines


def _nothing(found: Recommendation, head: str) -> str:
    """Return which limits leave nothing, and the nearest miss."""
    if not found.refused:
        return f"{head}: no configuration has a result on {found.split}."
    if found.unjudged:
        reasons = [f"{name} {why}" for name, why in found.unjudged.items()]
        return f"{head}: the configurations within it cannot be evaluated ({listing(reasons, 4)})."
    counts = Counter(text for why in found.refused.values() for text in dict.fromkeys(map(_reason, why)))
    reasons = [f"{count} {text}" for text, count in counts.most_common()]
    text = f"{head}: no configuration is within it. Of {len(found.refused)}: {listing(reasons, 8)}."
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
        f"With {shown(limit, value)} {TITLES[limit]}, it would be {other}." for limit, value, other in found.looser
    ]
    return lines


def _next_cheaper(results: Results, found: Recommendation, choice: Choice, taken: str) -> list[str]:
    """Return the cheaper candidate that comes nearest to being good enough: how far it is, and what would settle it."""
    cheaper = found.order[: found.order.index(taken)] if found.budget.by == "cost" else ()
    tested = [name for name in cheaper if not isnan(choice.adjusted[name])]
    if not tested or found.margin is None:
        return []
    near = min(reversed(tested), key=choice.p.__getitem__)
    share = _share(results, found, near, taken)
    return [f"Of the cheaper ones, {_gap(found, near, taken)[:-1]}{share}.{_settles(found, near, taken)}"]
