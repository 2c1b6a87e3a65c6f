"""Verdicts in words: one sentence each, with its interval, its seeds and examples, and what speaks against it."""

from collections import Counter
from collections.abc import Sequence
from math import ceil, floor, isinf, isnan, log10

from lorafile.analysis.common.format import difference, is_share, level, number, on
from lorafile.analysis.common.scores import lost, outcomes
from lorafile.analysis.compare.outcomes import margin_text
from lorafile.analysis.compare.verdicts import Verdict
from lorafile.results.results import Results
from lorafile.units import listing, plural

FEW = 3  # seeds below which a verdict says that they are few


def sentence(results: Results, verdict: Verdict) -> str:
    """Return a verdict as one sentence, with everything that a reader needs to weigh it."""
    if verdict.word == "refused":
        return f"{' and '.join(verdict.pair.names)} are not compared: {verdict.why}."
    if verdict.word == "none":
        return _without(verdict)
    lost_first = f"{', '.join(missing)}: " if (missing := lost_runs(results, verdict)) else ""
    return f"{lost_first}{_claim(verdict)}: {figures(verdict)}{_cautions(verdict)}."


def lost_runs(results: Results, verdict: Verdict) -> list[str]:
    """Return `1 diverged of 3 runs of rank/r=8` for each side that has not all of its runs."""
    ended = {name: outcomes(results).get(name, Counter()) for name in verdict.pair.names}
    texts = {name: lost(counts) for name, counts in ended.items()}
    return [f"{text} of {plural(ended[name].total(), 'run')} of {name}" for name, text in texts.items() if text]


def noisy_configurations(verdicts: Sequence[Verdict]) -> list[str]:
    """Say, once for all verdicts, which configurations vary more than twice as much between seeds as the others."""
    ratios: dict[str, float] = {}
    for verdict in verdicts:
        if (estimate := verdict.estimate) is not None:
            sides = zip(verdict.pair.names, estimate.wide, estimate.ratios, strict=True)
            ratios |= {name: ratio**0.5 for name, wide, ratio in sides if wide}
    if not ratios:
        return []
    many = [f"{name} varies {'many' if isinf(ratio) else f'{ratio:.1f}'} times" for name, ratio in ratios.items()]
    these = "it" if len(many) == 1 else "them"
    return [
        f"Between seeds, {listing(many)} as much as the other configurations: more seeds for {these} would make the "
        f"comparisons with {these} more precise."
    ]


def _claim(verdict: Verdict) -> str:
    one, other = verdict.pair.names
    within = "" if verdict.margin is None else f" within {margin_text(verdict.metric, verdict.margin)}"
    metric = on(verdict.scale, verdict.split)
    detectable = verdict.decision is not None and verdict.decision.detectable
    note = " (a difference is detectable but negligible)" if detectable else ""
    claims = {
        "better": f"{one} is better than {other} in {metric}",
        "worse": f"{one} is worse than {other} in {metric}",
        "equivalent": f"{one} is equivalent to {other}{within} in {metric}{note}",
        "non-inferior": f"{one} is non-inferior to {other}{within} in {metric}",
    }
    return claims.get(verdict.word, f"{one} versus {other} is inconclusive in {metric}")


def figures(verdict: Verdict) -> str:
    """Return `+1.2 points, 95 % interval 0.3 to 2.1, 3 seeds × 200 examples`."""
    estimate, decision = verdict.estimate, verdict.decision
    if estimate is None or decision is None:
        return ""
    difference = signed_difference(verdict.scale, estimate.difference)
    between = f"{level(decision.confidence)} interval {signed_interval(verdict.scale, decision.interval)}"
    return f"{difference}, {between}, {size(verdict)}"


def size(verdict: Verdict) -> str:
    """Return `3 seeds × 200 examples`; an exact row has one run, and needs no other."""
    estimate = verdict.estimate
    if estimate is None:
        return ""
    seeds = sorted({count for count, exact in zip(estimate.seeds, estimate.exact, strict=True) if not exact})
    if not seeds:
        return plural(estimate.n, estimate.unit)
    word = plural(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} and {seeds[1]} seeds"
    return f"{word} × {plural(estimate.n, estimate.unit)}"


def levels(tested: list[Verdict]) -> str:
    """Return the share of alpha that each look tested at: what one look decides stands, the rest is looked at again."""
    by_look = {verdict.look: level(verdict.alpha) for verdict in sorted(tested, key=lambda verdict: verdict.look)}
    if set(by_look) == {0}:
        return f"at {by_look[0]}"
    return listing([f"at {share} in {look_name(look)}" for look, share in by_look.items()])


def look_name(look: int) -> str:
    """Return what a look is called: `the first look`, `stage 1`."""
    return f"stage {look}" if look else "the first look"


def signed(metric: str, value: float) -> str:
    """Return a difference with its sign and without its unit: percentage points for shares."""
    shown = 100 * value if is_share(metric) else value
    text = f"{abs(shown):.1f}" if is_share(metric) and abs(shown) >= 0.1 else number(abs(shown), 2)
    sign = "" if float(text.replace("\u2009", "")) == 0 else "+" if value > 0 else "−"
    return f"{sign}{text}"


def signed_interval(metric: str, ends: tuple[float, float]) -> str:
    """Return an interval of a difference as `+0.3 to +2.1`."""
    low, high = ends
    return f"{signed(metric, low)} to {signed(metric, high)}"


def signed_difference(metric: str, value: float) -> str:
    """Return a difference with its sign and its unit."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{difference(metric, value)}"


def _cautions(verdict: Verdict) -> str:
    """Return what weakens a verdict, or explains it, as clauses."""
    estimate, decision = verdict.estimate, verdict.decision
    if estimate is None or decision is None:
        return ""
    parts = []
    fewest = min((n for n, exact in zip(estimate.seeds, estimate.exact, strict=True) if not exact), default=FEW)
    if fewest < FEW:
        parts.append(f"only {plural(fewest, 'seed')}: preliminary")
    if waived := [row.text() for row in verdict.differing if row.kind == "waived"]:
        parts.append(f"waived: {listing(waived)} also differs")
    if run := [row.text() for row in verdict.differing if row.kind == "provenance"]:
        parts.append(f"{listing(run)}: the two were run differently, which changes results by rounding")
    if verdict.open:
        parts.append(_open(verdict))
    return "".join(f"; {part}" for part in parts)


def _open(verdict: Verdict) -> str:
    """Return what would decide an open comparison."""
    if verdict.margin is None:
        return "a margin would define which differences are negligible and how many seeds can decide it"
    if verdict.sample_size is None:
        return "all of alpha is spent, so no further look can decide it (verdict.keep)"
    seeds, examples = verdict.sample_size.seeds, verdict.sample_size.examples
    ways = [plural(seeds, "seed")] if seeds else []
    unit = verdict.estimate.unit if verdict.estimate else "example"
    ways += [f"about {round_up(examples)} {unit}s"] if examples else []
    if not ways:
        return f"neither more seeds nor more {unit}s alone would decide it; both together would"
    return f"{' or '.join(ways)} would decide it (margin {margin_text(verdict.metric, verdict.margin)}, 80 % power)"


def round_up(count: int) -> str:
    """Return a large count with two significant digits, rounded up: it comes from estimated variances."""
    step = 10 ** max(floor(log10(count)) - 1, 0)
    return f"{ceil(count / step) * step:,}".replace(",", "\u2009")


def _without(verdict: Verdict) -> str:
    start = f"There is no verdict on {' and '.join(verdict.pair.names)}: {verdict.why}"
    if verdict.estimate is None:
        return f"{start}."
    gap = signed_difference(verdict.scale, verdict.estimate.difference)
    examples = plural(verdict.estimate.n, verdict.estimate.unit)
    p = f" (McNemar's p = {number(verdict.mcnemar, 2)}, for these runs only)"
    return f"{start}. The difference between these runs is {gap} on {examples}{'' if isnan(verdict.mcnemar) else p}."
