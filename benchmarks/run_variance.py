"""What each rule for the run variance costs: how often it is wrong, and what it finds, where nothing but runs varies.

Run `python benchmarks/run_variance.py`: it prints the table of docs/statistics.md. All configurations are equal, and a
family is all of them against the first; runs of one of them, or of some, vary more than those of the others. The last
row is a bound: what the best of all rules that look at the baseline's variance could find, by linear programming over
all thresholds, if the variance of the others were known and no family may be wrong more often than in 5 of 100.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import optimize, special, stats

from lorafile.statistics import run_variance

ALPHA = 0.05
Rule = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
WORLDS = {
    "all alike": ([3] * 10, [1.0] * 10),
    "baseline × 2": ([3] * 10, [2.0] + [1.0] * 9),
    "baseline × 3": ([3] * 10, [3.0] + [1.0] * 9),
    "baseline × 6": ([3] * 10, [6.0] + [1.0] * 9),
    "another × 4": ([3] * 10, [1.0] * 9 + [4.0]),
    "half × 3": ([3] * 10, [3.0, 1.0] * 5),
    "4 of them, baseline × 3": ([3] * 4, [3.0] + [1.0] * 3),
    "10 seeds, baseline × 2": ([10] * 10, [2.0] + [1.0] * 9),
    "2 seeds, baseline × 3": ([2] * 10, [3.0] + [1.0] * 9),
    "8, 8 and 3 seeds, the last × 3": ([8, 8, 3], [1.0, 1.0, 3.0]),
    "10, 10, 10 and 2 seeds, the last × 3": ([10, 10, 10, 2], [1.0, 1.0, 1.0, 3.0]),
}
POWERS = {"10 of 3 seeds": [3] * 10, "4 of 3 seeds": [3] * 4, "10 of 5 seeds": [5] * 10, "2 of 3 seeds": [3] * 2}


def pooled(v: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One variance for all."""
    mean = (v * d).sum(1, keepdims=True) / d.sum()
    alone = np.zeros(v.shape, bool)
    return np.broadcast_to(mean, v.shape), np.full(len(v), d.sum()), np.broadcast_to(d, v.shape), alone


def own(v: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each its own: Welch's test."""
    return v, np.ones(len(v)), np.broadcast_to(d, v.shape), np.ones(v.shape, bool)


def until_bartlett(v: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pooled unless Bartlett's test objects at 1 %, then each its own."""
    mean, df, each, _ = pooled(v, d)
    statistic = d.sum() * np.log(mean[:, 0]) - (d * np.log(v)).sum(1)
    correction = 1 + ((1 / d).sum() - 1 / d.sum()) / (3 * (len(d) - 1))
    unlike = special.chdtrc(len(d) - 1, statistic / correction) < 0.01
    alone = np.broadcast_to(unlike[:, None], v.shape)
    return np.where(alone, v, mean), df, each, alone


def larger(v: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The larger of the own and the pooled one."""
    mean, df, each, _ = pooled(v, d)
    return np.maximum(v, mean), df, each, v > mean


def squeezed(
    v: np.ndarray, d: np.ndarray, robust: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Empirical Bayes (Smyth, 2004; robust: Phipson et al., 2016): each drawn towards a common prior."""
    e = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    fitted = np.minimum(e, np.sort(e, axis=1)[:, [-2]]) if robust else e  # the largest is winsorized
    spread = fitted.var(axis=1, ddof=1) - special.polygamma(1, d / 2).mean()
    grid = np.geomspace(0.2, 2000, 4000)
    prior = np.where(spread > 0, 2 * np.interp(-spread, -special.polygamma(1, grid), grid), 1e4)[:, None]
    centre = np.exp(fitted.mean(axis=1, keepdims=True) + special.digamma(prior / 2) - np.log(prior / 2))
    weight = np.broadcast_to(prior, v.shape)
    if robust:
        ranks = v.argsort(axis=1).argsort(axis=1) + 1
        beyond = special.fdtrc(d, prior, v / centre) / ((len(d) - ranks + 0.5) / len(d))
        weight = prior * np.minimum(beyond, 1.0)
    value = (weight * centre + d * v) / (weight + d)
    return value, np.ones(len(v)), np.minimum(d + weight, d.sum()), np.ones(v.shape, bool)


def clearly_larger(v: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The own one where it exceeds the 80 % quantile of F against the others, else the pooled one."""
    mean, df, each, _ = pooled(v, d)
    total = (v * d).sum(1, keepdims=True)
    alone = v / ((total - v * d) / (d.sum() - d)) > special.fdtri(d, d.sum() - d, 0.8)
    return np.where(alone, v, mean), df, each, alone


def ours(v: np.ndarray, d: np.ndarray, missed: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lorafile's, with another share of far noisier configurations that are missed."""
    before, run_variance.MISSED = run_variance.MISSED, missed
    try:
        pools = [run_variance.pool(zip(row, d.astype(int), strict=True)) for row in v]
        found = [one.of(row, d.astype(int)) for one, row in zip(pools, v, strict=True)]
    finally:
        run_variance.MISSED = before
    value, borrowed = (np.array([getattr(one, name) for one in found]) for name in ("variance", "borrowed"))
    return value, np.array([one.df for one in pools], float), np.broadcast_to(d, v.shape), ~borrowed


RULES: dict[str, Rule] = {
    "pooled": pooled,
    "pooled until Bartlett's test objects (Lorafile before)": until_bartlett,
    "own (Welch)": own,
    "larger of own and pooled": larger,
    "empirical Bayes": squeezed,
    "empirical Bayes, robust": partial(squeezed, robust=True),
    "own above the 80 % quantile of F": clearly_larger,
    **{f"Lorafile's, {100 * share:.0f} % missed": partial(ours, missed=share) for share in (0.05, 0.1, 0.15, 0.25)},
}


def probabilities(rule: Rule, means: np.ndarray, v: np.ndarray, seeds: np.ndarray, fewest: bool) -> np.ndarray:
    """Return the probabilities of the comparisons with the first configuration: [studies, others].

    :param fewest: unlike numbers of seeds have the fewest degrees of freedom of what stands alone, as in Lorafile
    """
    value, df, each, alone = rule(v, seeds - 1.0)
    parts = value / seeds
    first, others = np.broadcast_to(parts[:, :1], parts[:, 1:].shape), parts[:, 1:]
    by_itself = np.broadcast_to(alone[:, :1], others.shape), alone[:, 1:]
    own_df = np.broadcast_to(each[:, :1], others.shape), each[:, 1:]
    together = np.where(by_itself[0], 0, first) + np.where(by_itself[1], 0, others)
    below = together**2 / df[:, None]
    for part, single, degrees in zip((first, others), by_itself, own_df, strict=True):
        below = below + np.where(single, part**2 / degrees, 0)
    total = first + others
    found = total**2 / below
    if fewest:
        least = np.minimum(
            *(np.where(single, degrees, np.inf) for single, degrees in zip(by_itself, own_df, strict=True))
        )
        found = np.where((seeds[1:] != seeds[0]) & np.isfinite(least), least, found)
    return np.asarray(2 * special.stdtr(found, -abs(means[:, :1] - means[:, 1:]) / np.sqrt(total)))


def drawn(seeds: np.ndarray, noise: np.ndarray, repeats: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return means and sample variances of so many studies; the second configuration's true mean is `effect`."""
    draw = np.random.default_rng([2026, *seeds, *(10 * noise).astype(int)])
    means = draw.standard_normal((repeats, len(seeds))) * noise / np.sqrt(seeds)
    means[:, 1] += effect
    return means, noise**2 * draw.chisquare(seeds - 1, (repeats, len(seeds))) / (seeds - 1)


def wrong(name: str, rule: Rule, seeds: list[int], noise: list[float], repeats: int) -> float:
    counts, spreads = np.array(seeds), np.array(noise)
    p = probabilities(rule, *drawn(counts, spreads, repeats), counts, name.startswith("Lorafile"))
    return float((p.min(axis=1) <= ALPHA / (len(seeds) - 1)).mean())


def power(rule: Rule, seeds: list[int], effect: float, repeats: int) -> float:
    counts = np.array(seeds)
    p = probabilities(rule, *drawn(counts, np.ones(len(seeds)), repeats, effect), counts, False)
    return float((p[:, 0] <= ALPHA / (len(seeds) - 1)).mean())


def effect_for(seeds: list[int]) -> float:
    """Return the effect that pooling finds in 85 of 100 studies: all run variances equal, noncentral t."""
    size, df = len(seeds) - 1, sum(seeds) - len(seeds)
    bar, error = stats.t.isf(ALPHA / size / 2, df), (2 / seeds[0]) ** 0.5
    return float(error * optimize.brentq(lambda shift: stats.nct.sf(bar, df, shift) - 0.85, 0, 20))


def bound(seeds: int, others: int, repeats: int = 40_000) -> float:
    """Return the power of the best rule of thresholds on the baseline's variance that is never wrong too often.

    In cells of the baseline's sample variance any mixture of critical values may be used: a linear program, with one
    constraint for each true noise of the baseline, from 1 to 12 times that of the others, which is known.
    """
    draw, unit = np.random.default_rng(1), (2 / seeds) ** 0.5
    bars = np.append(np.concatenate([np.linspace(1.5, 6, 40), np.geomspace(6.2, 80, 25)]) * unit, 1e9)
    edges = np.concatenate([[0], np.geomspace(0.02, 60, 26), [np.inf]])
    rivals = draw.standard_normal((repeats, others)) / seeds**0.5
    baseline, chi = draw.standard_normal(repeats) / seeds**0.5, draw.chisquare(seeds - 1, repeats) / (seeds - 1)

    def exceeding(far: np.ndarray, variances: np.ndarray) -> np.ndarray:
        cell = np.digitize(variances, edges) - 1
        return np.concatenate(
            [(far[cell == at, None] > bars).sum(axis=0) / repeats for at in range(len(edges) - 1)], dtype=float
        )

    limits = [
        exceeding(abs(noise * baseline[:, None] - rivals).max(axis=1), noise**2 * chi)
        for noise in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 12)
    ]
    shift = (stats.norm.isf(ALPHA / others / 2) + stats.norm.ppf(0.85)) * unit
    gain = exceeding(abs(baseline - rivals[:, 0] + shift), chi)
    cells = np.kron(np.eye(len(edges) - 1), np.ones(len(bars)))
    solved = optimize.linprog(
        -gain, A_ub=np.array(limits), b_ub=[ALPHA] * len(limits), A_eq=cells, b_eq=np.ones(len(cells)), bounds=(0, 1)
    )
    return float(-solved.fun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000)
    repeats = parser.parse_args().repeats
    print(f"| rule | {' | '.join(WORLDS)} | power: {' | power: '.join(POWERS)} |")
    print("|---|" + "---:|" * (len(WORLDS) + len(POWERS)))
    effects = {name: effect_for(seeds) for name, seeds in POWERS.items()}
    for name, rule in RULES.items():
        false = [wrong(name, rule, *world, repeats) for world in WORLDS.values()]
        found = [power(rule, seeds, effects[what], repeats) for what, seeds in POWERS.items()]
        shown = [f"{'**' if rate > 0.06 else ''}{100 * rate:.1f}{'**' if rate > 0.06 else ''}" for rate in false]
        print(f"| {name} | {' | '.join(shown)} | {' | '.join(f'{100 * one:.0f}' for one in found)} |", flush=True)
    # of a pair nothing is known but the two
    bounds = [f"{100 * bound(seeds[0], len(seeds) - 1):.0f}" if len(seeds) > 2 else "" for seeds in POWERS.values()]
    print(f"| bound on any rule | {' | '.join('≤ 5' for _ in WORLDS)} | {' | '.join(bounds)} |")


if __name__ == "__main__":
    main()
