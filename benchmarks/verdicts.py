"""Are verdicts wrong as seldom as they say? Studies whose truth is known, judged by the code that judges real ones.

Run `python benchmarks/verdicts.py`: it prints tables, tells where a promise is broken, and writes
`benchmarks/results/DATE-verdicts.json`. First come ordinary worlds (`ordinary_worlds.py`), after twenty studies have
shown that they are judged here as `Study.verdicts()` judges them; then a grid of seeds, spreads and kinds of outcomes.
`--quick` takes a minute and shows only that it runs; `--only ordinary` and `--only grid` run one of the two.
"""

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import ordinary_worlds
from worlds import EXAMPLES, HARD, OWN, REST, World, against_first, truth

from lorafile.analysis.compare.verdicts import DECIDED
from lorafile.statistics.choosing import choose
from lorafile.statistics.crossed import contrast, pool
from lorafile.statistics.deciding import decide, shares
from lorafile.statistics.planning import (
    Prospect,
    more_seeds,
    power_of_difference,
    power_of_equivalence,
    power_of_non_inferiority,
)
from lorafile.statistics.probabilities import interval

HERE = Path(__file__).resolve().parent
ALPHA, KEEP = 0.05, 0.2  # the defaults of [verdict]
FAMILY = 10
SEED_SDS, SEEDS = (0.0, 0.05, 0.1, 0.2, 0.5), (2, 3, 5, 10)
WORLDS = [
    *(World("gaussian", sd) for sd in SEED_SDS),
    *(World("right or wrong, 70 %", sd, base=0.7, most=0.15) for sd in SEED_SDS),
    *(World("right or wrong, 95 %", sd, base=0.95, most=0.04) for sd in (0.0, 0.2)),
    World("gaussian, every other configuration's runs vary twice as much", 0.2, unequal=2.0),
]
MARGIN = 3.5  # standard errors: where a wrong claim is as likely as it gets, were the tests not to forbid it
MOST = 20  # further seeds of a second look
Found = dict[str, list[float]]
Rows = dict[tuple[str, float, int], dict[str, tuple[float, float]]]  # (world, seed sd, seeds) -> (mean, its error)
# What is promised of each figure: (least, most).
RATE, COVER, GAP = (0.0, 0.05), (0.93, 0.99), (-0.05, 1.0)

_POWERS = ("power of a difference", "power of equivalence", "power of non-inferiority")
COLUMNS = {
    "false difference": ("false difference, of 10",),
    "95 % cover": ("coverage, of 10",),
    "wrong equiv.": ("wrong equivalence, of 10",),
    "wrong non-inf.": ("wrong non-inferiority, of 10",),
    "wrong recomm.": ("wrong recommendation, one best", "wrong recommendation, three best"),
    "best left out": ("the best is left out, one best", "the best is left out, three best"),
    "two looks: false difference": ("false difference, two looks",),
    "two looks: wrong equiv.": ("wrong equivalence, two looks",),
    "two looks: wrong non-inf.": ("wrong non-inferiority, two looks",),
    "pair: false difference": ("false difference, of 1",),
    "pair: 95 % cover": ("coverage, of 1",),
    "pair: wrong equiv.": ("wrong equivalence, of 1",),
    "power off by": tuple(f"{what}, {size}" for what in _POWERS for size in (2, 5)),
}


def judged(world: World, rng: np.random.Generator, seeds: int, margin: float) -> Iterator[tuple[str, float]]:
    """A family of ten, and a study of two configurations: under no difference, and at the margin."""
    for size, label in ((FAMILY, "of 10"), (1, "of 1")):
        estimates = against_first(world.study(rng, [0.0] * (size + 1)).run(seeds))
        decisions = decide(estimates, [None] * size, ALPHA, more=True)
        yield f"false difference, {label}", any(one.word in ("better", "worse") for one in decisions)
        yield f"coverage, {label}", float(np.mean([low <= 0 <= high for low, high in map(interval, estimates)]))
        yield f"all covered, {label}", all(one.simultaneous[0] <= 0 <= one.simultaneous[1] for one in decisions)
        estimates = against_first(world.study(rng, [0.0] + [-margin] * size).run(seeds))
        decisions = decide(estimates, [margin] * size, ALPHA, more=True)
        yield f"wrong equivalence, {label}", any(one.p_equivalence <= ALPHA for one in decisions)
        yield f"wrong non-inferiority, {label}", any(one.p_non_inferiority <= ALPHA for one in decisions)
        covered = [low <= -margin <= high for low, high in map(interval, estimates)]
        yield f"coverage of the margin, {label}", float(np.mean(covered))


def recommended(world: World, rng: np.random.Generator, seeds: int, margin: float) -> Iterator[tuple[str, float]]:
    """One best and dear, and four cheaper ones worse by the margin; three best, and two cheaper ones worse by it."""
    for effects, label in (((0.0, *[-margin] * 4), "one best"), ((*[0.0] * 3, *[-margin] * 2), "three best")):
        outcomes = dict(zip("abcde", world.study(rng, effects).run(seeds), strict=True))
        costs = {name: -float(at) for at, name in enumerate(outcomes)}
        choice = choose(outcomes, costs, margin, more=True, alpha=ALPHA)
        wrong = [name for name, effect in zip(outcomes, effects, strict=True) if effect < 0]
        yield f"wrong recommendation, {label}", choice.chosen in wrong
        yield f"the best is left out, {label}", "a" not in choice.may_be_best


def resolved(world: World, rng: np.random.Generator, seeds: int, margin: float) -> Iterator[tuple[str, float]]:
    """Two looks, the second with as many seeds as the first's variances ask for; what a look decides stands."""
    for effect, truth_is in ((0.0, "equal"), (-margin, "at the margin")):
        study = world.study(rng, [0.0] + [effect] * FAMILY)
        estimates = against_first(study.run(seeds))
        first, second = shares(ALPHA, KEEP, 2)
        looked = decide(estimates, [margin] * FAMILY, first, more=True)
        words = [one.word for one in looked]
        still = [at for at, word in enumerate(words) if word not in DECIDED]
        # The sequence is judged by the tests and not by the words, lest a difference hide behind an equivalence.
        different = [one.p <= first for one in looked]
        good_enough = [one.p_non_inferiority <= first for one in looked]
        others = max(len(still) - 1, 0)
        needs = {at: more_seeds(estimates[at], margin, second / FAMILY, others) or MOST + 1 for at in still}
        part = [at for at in still if needs[at] <= MOST]
        if part:
            outcomes = study.run(max(needs[at] for at in part), only=[0, *(at + 1 for at in part)])
            again = decide(against_first(outcomes), [margin] * FAMILY, second, more=True)
            for at in still:
                words[at] = again[at].word
                different[at] |= again[at].p <= second
                good_enough[at] |= again[at].p_non_inferiority <= second
        if effect:
            yield "wrong equivalence, two looks", "equivalent" in words
            yield "wrong non-inferiority, two looks", any(good_enough)
        else:
            yield "false difference, two looks", any(different)
        yield f"decided after two looks, {truth_is}", float(np.mean([word in DECIDED for word in words]))


def powers(world: World, rng: np.random.Generator, seeds: int, size: int) -> dict[str, tuple[partial[bool], float]]:
    """Return what is tried -> (one trial, the predicted probability that it succeeds)."""
    equal = truth(world, rng, 0.0, seeds, size)
    effect = min(2.5 * typical(equal), world.most)
    moved = truth(world, rng, -effect, seeds, size)

    def tried(effect: float, margin: float, what: str) -> bool:
        outcomes = world.study(rng, [0.0, effect] + [0.0] * (size - 2)).run(seeds)
        estimate = contrast(outcomes[1], outcomes[0], pool(outcomes))
        [decision] = decide([estimate], [margin], ALPHA, more=True)
        return getattr(decision, what) <= ALPHA

    def foreseen(turns: list[Prospect], power: Callable[[float, float], float]) -> float:
        return sum(one.probability * power(one.error, one.df) for one in turns)

    margin = min(3 * typical(equal), world.most)
    return {
        f"power of a difference, {size}": (
            partial(tried, -effect, 1.0, "p"),
            foreseen(moved, lambda error, df: power_of_difference(error, df, effect, ALPHA)),
        ),
        f"power of equivalence, {size}": (
            partial(tried, 0.0, margin, "p_equivalence"),
            foreseen(equal, lambda error, df: power_of_equivalence(error, df, 0.0, margin, ALPHA)),
        ),
        f"power of non-inferiority, {size}": (
            partial(tried, 0.0, effect, "p_non_inferiority"),
            foreseen(equal, lambda error, df: power_of_non_inferiority(error, df, 0.0, effect, ALPHA)),
        ),
    }


def typical(turns: list[Prospect]) -> float:
    """Return the standard error of what is likeliest."""
    return max(turns, key=lambda one: one.probability).error


def cell(task: tuple[World, int, int, int]) -> tuple[World, int, dict[str, tuple[float, float]]]:
    """Return figure -> (mean, its standard error) of one world with so many seeds."""
    world, seeds, repeats, number = task
    rng = np.random.default_rng([2026, number])
    margin = min(MARGIN * typical(truth(world, rng, 0.0, seeds, FAMILY + 1)), world.most)
    found: Found = defaultdict(list)
    for scenario in (judged, recommended, resolved):
        for _ in range(repeats):
            for name, value in scenario(world, rng, seeds, margin):
                found[name].append(float(value))
    for size in (2, 5) if world.unequal == 1 else ():
        for name, (trial, predicted) in powers(world, rng, seeds, size).items():
            found[name] = [trial() - predicted for _ in range(repeats)]
            found[f"{name}: predicted"] = [predicted]
    return world, seeds, {name: summary(values) for name, values in found.items()}


def summary(values: list[float]) -> tuple[float, float]:
    """Return (mean, standard error); the error of a rate of 0 is that of one in as many."""
    n = len(values)
    return float(np.mean(values)), max(float(np.std(values)), n**-0.5 * (n > 1)) / n**0.5


def promised(name: str) -> tuple[float, float] | None:
    """Return the (least, most) that a figure may be; None where it is shown for information."""
    if name.startswith(("false", "wrong", "the best is left out")):
        return RATE
    if name.startswith("coverage"):
        return COVER
    return GAP if name.startswith("power") and not name.endswith("predicted") else None


def broken(name: str, mean: float, error: float) -> bool:
    """Whether a promise is broken by more than three standard errors of the simulation."""
    bounds = promised(name)
    return bounds is not None and not bounds[0] - 3 * error <= mean <= bounds[1] + 3 * error


def ordinary_cell(task: tuple[str, int, int]) -> tuple[str, dict[str, tuple[float, float]]]:
    """Return figure -> (mean, its standard error) of one ordinary world."""
    name, repeats, number = task
    world, rng = ordinary_worlds.worlds()[name], np.random.default_rng([2026, 11, number])
    found: Found = defaultdict(list)
    for _ in range(repeats):
        for what, value in world(rng):
            found[what].append(float(value))
    return name, {what: summary(values) for what, values in found.items()}


def ordinary(repeats: int, processes: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Print the table of the ordinary worlds in Markdown, in percent, and return its figures."""
    ordinary_worlds.check()
    print("Twenty studies have the verdicts here that Study.verdicts() gives them.")
    tasks = [(name, repeats, number) for number, name in enumerate(ordinary_worlds.worlds())]
    with Pool(processes) as workers:
        rows = dict(workers.imap(ordinary_cell, tasks))
    print(f"\n| world | {' | '.join(ORDINARY)} |\n|---|{'---:|' * len(ORDINARY)}")
    for name, figures in rows.items():
        print(f"| {name} | {' | '.join(_shown(what, figures.get(what)) for what in ORDINARY.values())} |")
    return rows


ORDINARY = {  # title -> figure
    "false": "false",
    "95 % cover": "covered",
    "length": "length",
    "finds": "power",
    "figure's 95 % cover": "figure covered",
    "ends outside the range": "outside",
}


def _shown(what: str, figure: tuple[float, float] | None) -> str:
    if figure is None:
        return ""
    mean = figure[0]
    if what == "length":
        return f"{mean:.1f}"
    bad = (
        (what == "false" and mean > 0.06) or (what.endswith("covered") and mean < 0.93) or (what == "outside" and mean)
    )
    return f"**{100 * mean:.1f}**" if bad else f"{100 * mean:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few repeats of a few cells")
    parser.add_argument("--repeats", type=int, default=1000, help="of each cell of the grid")
    parser.add_argument("--ordinary", type=int, default=4000, help="repeats of each ordinary world")
    parser.add_argument("--only", choices=["ordinary", "grid"])
    parser.add_argument("--world", default="", help="only worlds whose name begins so")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--show", type=Path, help="print the tables of a result that is there")
    given = parser.parse_args()
    if given.show:
        stored = json.loads(given.show.read_text(encoding="utf-8"))["cells"]
        show({(cell["world"], cell["seed_sd"], cell["seeds"]): cell["figures"] for cell in stored})
        return
    common = {} if given.only == "grid" else ordinary(50 if given.quick else given.ordinary, given.processes)
    if given.only == "ordinary":
        if not given.quick:
            write({}, common, given.repeats, given.ordinary, 0.0, given.processes)
        return
    repeats = 20 if given.quick else given.repeats
    worlds = [world for world in WORLDS if world.name.startswith(given.world)]
    seeds = SEEDS[:2] if given.quick else SEEDS
    tasks = [(world, n, repeats, number) for number, (world, n) in enumerate((w, n) for w in worlds for n in seeds)]
    began, rows = time.perf_counter(), Rows()
    with Pool(given.processes) as workers:
        for world, n, found in workers.imap_unordered(cell, sorted(tasks, key=lambda task: -task[1])):
            rows[world.name, world.seed_sd, n] = found
            print(f"{world.name}, seed sd {world.seed_sd:g}, {n} seeds: {len(rows)} of {len(tasks)}", flush=True)
    seconds = time.perf_counter() - began
    show(rows)
    print(f"{repeats} repeats of {len(rows)} cells in {seconds:.0f} s")
    if not given.quick and not given.world:
        write(rows, common, repeats, given.ordinary, seconds, given.processes)


def show(rows: Rows) -> None:
    """Print a table in Markdown for each world, in percent, and whatever breaks a promise."""
    for world in dict.fromkeys(name for name, _, _ in rows):
        print(f"\n**{world}**\n\n| seed sd | seeds | " + " | ".join(COLUMNS) + " |")
        print("|" + "---:|" * (len(COLUMNS) + 2))
        for (name, sd, n), found in sorted(rows.items()):
            if name == world:
                told = [worst(found, figures) for figures in COLUMNS.values()]
                print(f"| {sd:g} | {n} | " + " | ".join(told) + " |")
    print()
    for (world, sd, n), found in sorted(rows.items()):
        for name, (mean, error) in found.items():
            if broken(name, mean, error):
                print(f"{world}, seed sd {sd:g}, {n} seeds: {name} {100 * mean:.1f} % (± {100 * error:.1f})")


def worst(found: dict[str, tuple[float, float]], figures: tuple[str, ...]) -> str:
    """Return the figure of a column that is furthest from nothing, in percent; in bold where a promise is broken."""
    known = [name for name in figures if name in found]
    if not known:
        return ""
    name = max(known, key=lambda name: abs(found[name][0]))
    mark = "**" if any(broken(name, *found[name]) for name in known) else ""
    return f"{mark}{100 * found[name][0]:.1f}{mark}"


def write(
    rows: Rows,
    common: dict[str, dict[str, tuple[float, float]]],
    repeats: int,
    of_ordinary: int,
    seconds: float,
    processes: int,
) -> None:
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {name: version(name) for name in ("lorafile", "numpy", "scipy")} | {"python": platform.python_version()}
    set_up = {"examples": EXAMPLES, "hard": HARD, "own": OWN, "rest": REST, "alpha": ALPHA, "keep": KEEP}
    cells = [
        {"world": world, "seed_sd": sd, "seeds": n, "figures": {name: list(value) for name, value in found.items()}}
        for (world, sd, n), found in sorted(rows.items())
    ]
    ordinary = {"repeats": of_ordinary, "worlds": {name: dict(figures) for name, figures in common.items()}}
    content = {**about, "repeats": repeats, "seconds": seconds, "processes": processes, **set_up, "cells": cells}
    content |= {"ordinary": ordinary}
    out = HERE / "results" / f"{about['date']}-verdicts.json"
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
