"""Ordinary worlds in which verdicts could be wrong too often, each with what is promised there: see `verdicts.py`.

A world is a function of a random generator: it makes a study up, judges it by the code that judges real ones, and
yields figures: `false` (a wrong word anywhere in it), `covered` (intervals that hold the truth), `length` (of a 95 %
interval, in true standard errors of the difference: 3.92 where everything is known) and `power`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from worlds import HARD, OWN, REST

from lorafile.analysis.common.error_rate import VERDICTS
from lorafile.analysis.compare.verdicts import family
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import VerdictTable
from lorafile.statistics.choosing import choose
from lorafile.statistics.crossed import Estimate, Outcomes, combination, contrast, pool
from lorafile.statistics.deciding import Decision, decide
from lorafile.statistics.factorial import steps
from lorafile.statistics.probabilities import interval, two_sided

ALPHA, EXAMPLES = 0.05, 200
Figures = Iterator[tuple[str, float]]
World = Callable[[np.random.Generator], Figures]


def runs(
    draw: np.random.Generator,
    hard: np.ndarray,
    seeds: int,
    spread: float,
    effect: float = 0.0,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Return one configuration's outcomes [seeds, examples]."""
    n = len(hard)
    mine = OWN**0.5 * draw.standard_normal(n) if own is None else own
    return (
        effect + hard + mine + spread * draw.standard_normal((seeds, 1)) + REST**0.5 * draw.standard_normal((seeds, n))
    )


def against_first(sides: Sequence[Outcomes]) -> list[Estimate]:
    pooled = pool(sides)
    return [contrast(side, sides[0], pooled) for side in sides[1:]]


def judged(estimates: list[Estimate], truth: float, error: float, alpha: float = ALPHA) -> Figures:
    """Yield what a family of equals comes to.

    :param truth: of every difference; `error`: the true standard error of one
    """
    decisions = decide(estimates, [None] * len(estimates), alpha, more=True)
    yield "false", any(one.word in ("better", "worse") for one in decisions)
    ends = [interval(one) for one in estimates]
    yield "covered", float(np.mean([low <= truth <= high for low, high in ends]))
    yield "length", float(np.mean([high - low for low, high in ends])) / error if error else np.nan


def families(draw: np.random.Generator, seeds: Sequence[int], noise: Sequence[float], spread: float) -> Figures:
    """All equal, against the first one, of unlike seeds and spreads; and the same with one that is better."""
    hard = HARD**0.5 * draw.standard_normal(EXAMPLES)
    values = [runs(draw, hard, count, spread * times) for count, times in zip(seeds, noise, strict=True)]
    sides = [Outcomes(one) for one in values]
    variances = [((spread * times) ** 2 + REST / EXAMPLES) / count for count, times in zip(seeds, noise, strict=True)]
    error = float(np.mean([(variances[0] + one + 2 * OWN / EXAMPLES) ** 0.5 for one in variances[1:]]))
    yield from judged(against_first(sides), 0.0, error)
    size = len(seeds) - 1
    # an effect that pooling finds about 85 times in 100 where all spreads are equal
    bar = {1: 3.0, 2: 3.3, 3: 3.45, 9: 4.1}.get(size, 4.3) + 0.15
    moved = [
        *sides[:1],
        Outcomes(values[1] + bar * (variances[0] + variances[1] + 2 * OWN / EXAMPLES) ** 0.5),
        *sides[2:],
    ]
    decisions = decide(against_first(moved), [None] * size, ALPHA, more=True)
    yield "power", decisions[0].word in ("better", "worse")


def clustered(draw: np.random.Generator, groups: int, each: int, size: int, declared: bool) -> Figures:
    """Examples in groups: half of what is hard for one configuration alone is common to a group."""
    n, of = groups * each, np.repeat(np.arange(groups), each)
    hard = HARD**0.5 * draw.standard_normal(n)

    def own() -> np.ndarray:
        shared = draw.standard_normal(groups)[of]
        return np.asarray((0.5 * OWN) ** 0.5 * (shared + draw.standard_normal(n)))

    sides = [Outcomes(runs(draw, hard, 3, 0.02, own=own())) for _ in range(size + 1)]
    sides = [side.clustered(of) for side in sides] if declared else sides
    true = 2 * (OWN * (0.5 / groups + 0.5 / n) + 0.02**2 / 3 + REST / 3 / n)
    yield from judged(against_first(sides), 0.0, true**0.5)


def tuned(draw: np.random.Generator, candidates: int, spread: float) -> Figures:
    """One best and dear; four cheaper, worse by the margin, each at the best of its rates on validation."""
    margin = 3.5 * (2 * (OWN + REST / 3) / EXAMPLES + 2 * spread**2 / 3) ** 0.5
    validation, test = (HARD**0.5 * draw.standard_normal(EXAMPLES) for _ in range(2))
    taken = {}
    for name, effect, count in (("a", 0.0, 1), *((name, -margin, candidates) for name in "bcde")):
        tried = []
        for _ in range(count):
            run = spread * draw.standard_normal((3, 1))
            tried.append([effect + run + runs(draw, hard, 3, 0.0) for hard in (validation, test)])
        taken[name] = max(tried, key=lambda both: float(both[0].mean()))[1]
    costs = {name: -float(at) for at, name in enumerate(taken)}
    choice = choose({name: Outcomes(one) for name, one in taken.items()}, costs, margin, True, ALPHA)
    yield "false", choice.chosen not in ("a", None)


def recommended(draw: np.random.Generator, effects: Sequence[float], noise: Sequence[float]) -> Figures:
    """Candidates, the dearest first, with effects in margins; a margin is 3.5 standard errors of a difference."""
    spread = 0.1
    margin = 3.5 * (2 * (OWN + REST / 3) / EXAMPLES + 2 * spread**2 / 3) ** 0.5
    hard = HARD**0.5 * draw.standard_normal(EXAMPLES)
    sides = {
        str(at): Outcomes(runs(draw, hard, 3, spread * times, effect * margin))
        for at, (effect, times) in enumerate(zip(effects, noise, strict=True))
    }
    choice = choose(sides, {name: -float(name) for name in sides}, margin, True, ALPHA)
    best = max(effects)
    yield "false", choice.chosen is not None and best - effects[int(choice.chosen)] >= 1
    good = [str(at) for at, effect in enumerate(effects) if best - effect < 1]
    yield "power", choice.chosen == good[-1]


def page(draw: np.random.Generator, count: int) -> Figures:
    """Verdicts against a baseline and the steps of a trend over the same configurations, at their parts of alpha."""
    hard = HARD**0.5 * draw.standard_normal(EXAMPLES)
    sides = [Outcomes(runs(draw, hard, 3, 0.1)) for _ in range(count)]
    pooled = pool(sides)
    decisions = decide(against_first(sides), [None] * (count - 1), ALPHA * VERDICTS, more=True)
    level = ALPHA * (1 - VERDICTS)
    stepped = any(step.p <= level for step in steps(sides, pooled, level))
    yield "false", stepped or any(one.word in ("better", "worse") for one in decisions)


def shares(draw: np.random.Generator, base: float, seeds: int) -> Figures:
    """Right and wrong answers near an end of the scale: a pair of equals, and one configuration's own figure."""
    from scipy.special import ndtri

    spread = 0.2
    level = ndtri(base) * (1 + spread**2) ** 0.5
    hard = HARD**0.5 * draw.standard_normal(EXAMPLES)
    sides = [Outcomes((level + runs(draw, hard, seeds, spread) > 0).astype(float)) for _ in range(2)]
    pooled = pool(sides)
    estimate = contrast(sides[1], sides[0], pooled)
    low, high = interval(estimate, reach=1.0)
    yield "false", two_sided(estimate) <= ALPHA
    yield "covered", low <= 0 <= high
    yield "outside", not -1 <= low <= high <= 1
    alone = combination([sides[0]], [1.0], pooled)
    low, high = share_interval(sides[0], alone)
    yield "figure covered", low <= base <= high
    yield "figure outside", not 0 <= low <= high <= 1


def share_interval(side: Outcomes, estimate: Estimate) -> tuple[float, float]:
    from lorafile.analysis.compare.outcomes import share_ends

    return share_ends(side, interval(estimate))


def worlds() -> dict[str, World]:
    """Return name -> world, in the order of the table."""
    of = partial
    noisy = {
        "10 × 3 seeds, all alike": ([3] * 10, [1.0] * 10),
        "10 × 3 seeds, the baseline 3 times as noisy": ([3] * 10, [3.0] + [1.0] * 9),
        "10 × 3 seeds, the baseline twice as noisy": ([3] * 10, [2.0] + [1.0] * 9),
        "10 × 3 seeds, one 4 times as noisy": ([3] * 10, [1.0] * 9 + [4.0]),
        "10 × 3 seeds, every other 3 times as noisy": ([3] * 10, [3.0, 1.0] * 5),
        "3 × 10 seeds, a fourth of 2 seeds 3 times as noisy": ([10, 10, 10, 2], [1.0, 1.0, 1.0, 3.0]),
        "8, 8 and 3 seeds, the last 3 times as noisy": ([8, 8, 3], [1.0, 1.0, 3.0]),
        "10 × 2 seeds, the baseline 3 times as noisy": ([2] * 10, [3.0] + [1.0] * 9),
        "10 × 10 seeds, the baseline twice as noisy": ([10] * 10, [2.0] + [1.0] * 9),
        "2 × 3 seeds, alike": ([3, 3], [1.0, 1.0]),
    }
    made: dict[str, World] = {
        name: of(families, seeds=seeds, noise=noise, spread=0.5) for name, (seeds, noise) in noisy.items()
    }
    made["10 × 3 seeds, all alike, examples carry it"] = of(families, seeds=[3] * 10, noise=[1.0] * 10, spread=0.02)
    for declared in (True, False):
        how = "declared" if declared else "not declared (for comparison)"
        made[f"400 examples in groups of 20, one pair, {how}"] = of(
            clustered, groups=20, each=20, size=1, declared=declared
        )
        made[f"200 examples in groups of 5, family of 9, {how}"] = of(
            clustered, groups=40, each=5, size=9, declared=declared
        )
    for count in (1, 3, 6):
        made[f"recommendation, rate tuned over {count}"] = of(tuned, candidates=count, spread=0.02)
    made["recommendation, rate tuned over 6, runs carry it"] = of(tuned, candidates=6, spread=0.5)
    made["recommendation: four cheaper, worse by the margin"] = of(
        recommended, effects=[0, -1, -1, -1, -1], noise=[1] * 5
    )
    made["recommendation: four cheaper, equal"] = of(recommended, effects=[0] * 5, noise=[1] * 5)
    made["recommendation: the best 3 times as noisy, the others worse"] = of(
        recommended, effects=[0, -1, -1, -1, -1], noise=[3, 1, 1, 1, 1]
    )
    made["verdicts and a trend on one page, 39 tests"] = of(page, count=20)
    for base in (0.5, 0.9, 0.98, 0.995):
        made[f"right or wrong, {100 * base:g} % right, one pair"] = of(shares, base=base, seeds=3)
    return made


def results_of(sides: Sequence[Outcomes]) -> Results:
    """Return a study whose configurations have these outcomes, each compared with the first."""
    names = [f"rank/r={2**at}" for at in range(len(sides))]
    rows, outcomes = [], {}
    for name, side in zip(names, sides, strict=True):
        for seed, values in enumerate(side.values, 1):
            rows.append({"configuration": name, "sweep": "rank", "seed": seed, "outcome": "done"})
            rows[-1] |= {"test.accuracy": float(values.mean()), "test.examples": len(values)}
            outcomes[name, seed, "test"] = pd.DataFrame({"row": range(len(values)), "accuracy": values})
    settings = [
        {"configuration": name, "sweep": "rank", "aliases": [], "method": "lora", "lora.r": 2**at}
        for at, name in enumerate(names)
    ]
    nothing = pd.DataFrame()
    most = max(side.runs for side in sides)
    return Results(
        *("s", "", "s", "accuracy", ("accuracy",), tuple(range(1, most + 1))),
        configurations=pd.DataFrame(settings),
        runs=pd.DataFrame(rows),
        profiles=nothing,
        curves=nothing,
        outcomes=outcomes,
        verdict=VerdictTable(keep=0.0),
    )


def check(studies: int = 20) -> None:
    """Raise unless so many studies have the verdicts here that `Study.verdicts()` gives them."""
    draw = np.random.default_rng(7)
    for number in range(studies):
        hard = HARD**0.5 * draw.standard_normal(EXAMPLES)
        seeds = draw.integers(2, 6, size=6)
        sides = [
            Outcomes(runs(draw, hard, int(count), 0.05 * draw.choice([1, 3]), 0.3 * draw.choice([0, 0, 1])))
            for count in seeds
        ]
        found = [verdict.decision for verdict in family(results_of(sides)).verdicts]
        here = decide(against_first(sides), [None] * 5, ALPHA * VERDICTS, more=True, reach=1.0)
        if [_told(one) for one in found if one is not None] != [_told(one) for one in here]:
            raise AssertionError(f"study {number}: {found} and {here}")


def _told(one: Decision) -> tuple[str, float, float, float]:
    return one.word, round(one.p, 9), *(round(end, 9) for end in one.interval)  # type: ignore[return-value]
