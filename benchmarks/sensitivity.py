"""Is what a plan states found as often as it says? Studies whose truth is known, judged as real ones are.

Run `python benchmarks/sensitivity.py`: for each world of `verdicts.py` it computes from the true variances the smallest
difference that a comparison detects with 80 % power, and the smallest margin within which equals are shown to be
equivalent; makes up studies with that difference, and with none; and prints how many of them get the verdict. Then how
often the range that a plan states from a small other study holds what the true variance gives. It writes
`benchmarks/results/DATE-sensitivity.json`. `--quick` takes a minute and shows only that it runs.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ordinary_worlds
from verdicts import ALPHA, FAMILY, SEEDS, WORLDS
from worlds import EXAMPLES, HARD, OWN, REST, World, against_first

from lorafile.analysis.compare.outcomes import Crossed
from lorafile.analysis.sensitivity.planned import PlannedSensitivity, StudySize, with_variance
from lorafile.analysis.sensitivity.variances import from_outcomes
from lorafile.statistics.crossed import Outcomes, contrast, pool
from lorafile.statistics.deciding import decide
from lorafile.statistics.probabilities import equivalence, two_sided
from lorafile.statistics.sensitivity import Design, Sensitivity, sensitivity

HERE = Path(__file__).resolve().parent
POWER, GAP, CLOSE = 0.8, 0.05, 0.04
PILOTS = 200
Draw = Callable[[np.random.Generator, list[float]], list[Outcomes]]  # effects of all configurations -> their outcomes


class Cell(NamedTuple):
    """One world with its design; configuration 1 is compared with 0, and the others belong to the family."""

    world: str
    detail: str
    draw: Draw
    design: Design
    effects: int

    @property
    def alpha(self) -> float:
        return ALPHA / (self.effects - 1)


def of_grid(world: World, seeds: int, size: int, rng: np.random.Generator) -> Cell:
    """Return a cell of the grid, its variances being means over many pilots."""

    def draw(draw_with: np.random.Generator, effects: list[float]) -> list[Outcomes]:
        return world.study(draw_with, effects).run(seeds)

    runs, residuals, examples, share = np.zeros(2), np.zeros(2), 0.0, 0.0
    for _ in range(PILOTS):
        sides = world.study(rng, [0.0, 0.0]).run(20)
        paired = sides[1].by_example - sides[0].by_example
        examples += (paired.var(ddof=1) - sum(side.residual for side in sides) / 20) / EXAMPLES / PILOTS
        runs += np.array([side.run_variance for side in sides]) / PILOTS
        residuals += np.array([side.residual for side in sides]) / PILOTS
        share += sum(side.mean for side in sides) / 2 / PILOTS
    order = [1, 0, *range(2, size)]
    design = Design(
        seeds=(seeds,) * size,
        variances=tuple(float(runs[at % 2]) for at in order),
        residuals=(float(residuals[1]), float(residuals[0])),
        examples=max(examples, 0.0),
        n=EXAMPLES,
        share=share if world.base is not None else math.nan,
    )
    detail = f"seed sd {world.seed_sd:g}, {seeds} seeds, {'a pair' if size == 2 else f'family of {size - 1}'}"
    return Cell(world.name, detail, draw, design, size)


def of_family(name: str, seeds: list[int], noise: list[float], spread: float) -> Cell:
    """Return an ordinary world of configurations of unlike seeds and spreads."""

    def draw(rng: np.random.Generator, effects: list[float]) -> list[Outcomes]:
        hard = HARD**0.5 * rng.standard_normal(EXAMPLES)
        each = zip(seeds, noise, effects, strict=True)
        return [Outcomes(ordinary_worlds.runs(rng, hard, n, spread * times, effect)) for n, times, effect in each]

    order = [1, 0, *range(2, len(seeds))]
    design = Design(
        seeds=tuple(seeds[at] for at in order),
        variances=tuple((spread * noise[at]) ** 2 + REST / EXAMPLES for at in order),
        residuals=(REST, REST),
        examples=2 * OWN / EXAMPLES,
        n=EXAMPLES,
    )
    return Cell(name, "", draw, design, len(seeds))


def of_clusters(name: str, groups: int, each: int, size: int) -> Cell:
    """Return a world whose examples belong together: half of what is hard for one configuration is common to them."""
    n, of = groups * each, np.repeat(np.arange(groups), each)

    def draw(rng: np.random.Generator, effects: list[float]) -> list[Outcomes]:
        hard, sides = HARD**0.5 * rng.standard_normal(n), []
        for effect in effects:
            own = (0.5 * OWN) ** 0.5 * (rng.standard_normal(groups)[of] + rng.standard_normal(n))
            sides.append(Outcomes(ordinary_worlds.runs(rng, hard, 3, 0.02, effect, own)).clustered(of))
        return sides

    design = Design(
        seeds=(3,) * (size + 1),
        variances=(0.02**2 + REST / n,) * (size + 1),
        residuals=(REST / each, REST / each),
        examples=2 * OWN * (0.5 / groups + 0.5 / n),
        n=groups,
    )
    return Cell(name, "", draw, design, size + 1)


def of_shares(base: float) -> Cell:
    """Return a pair of right and wrong answers near an end of the scale."""
    world = World(f"right or wrong, {100 * base:g} % right, one pair", 0.2, base=base)
    return of_grid(world, 3, 2, np.random.default_rng(5))._replace(detail="")


def cells(quick: bool) -> Iterator[Callable[[], Cell]]:
    """Yield what makes each cell: the grid, then the ordinary worlds that judge comparisons."""
    for number, (world, seeds) in enumerate((world, seeds) for world in WORLDS for seeds in SEEDS):
        for size in (2, FAMILY + 1) if not quick or number % 9 == 1 else ():
            yield partial(of_grid, world, seeds, size, np.random.default_rng([2026, number]))
    noisy = {name: world for name, world in ordinary_worlds.worlds().items() if world.func is ordinary_worlds.families}
    for name, world in list(noisy.items())[: 2 if quick else None]:
        yield partial(of_family, name, **world.keywords)
    yield partial(of_clusters, "400 examples in groups of 20, one pair, declared", 20, 20, 1)
    yield partial(of_clusters, "200 examples in groups of 5, family of 9, declared", 40, 5, 9)
    for base in (0.5, 0.9, 0.98, 0.995):
        yield partial(of_shares, base)


def _name(make: Callable[[], Cell]) -> str:
    """Return the name of the world that a cell is made from."""
    of, first = make.func, make.args[0]  # type: ignore[attr-defined]
    if of is of_shares:
        return f"right or wrong, {100 * first:g} % right, one pair"
    return str(first.name) if of is of_grid else str(first)


def tried(task: tuple[Callable[[], Cell], int, int]) -> tuple[Cell, Sensitivity, float, float]:
    """Return a cell, what is stated of it, and how often a difference and equivalence are found; NaN where none is."""
    make, repeats, number = task
    cell, rng = make(), np.random.default_rng([2026, 12, number])
    stated = sensitivity(cell.design, cell.alpha)
    towards = 1.0 if cell.design.binary and cell.design.share < 0.5 else -1.0
    found = [0.0, 0.0]
    for _ in range(repeats):
        if not math.isnan(stated.difference):
            found[0] += is_found(cell.draw(rng, [0.0, towards * stated.difference, *[0.0] * (cell.effects - 2)]))
        if not math.isnan(stated.margin):
            sides = cell.draw(rng, [0.0] * cell.effects)
            found[1] += equivalence(contrast(sides[1], sides[0], pool(sides)), stated.margin) <= cell.alpha
    sizes = (stated.difference, stated.margin)
    rates = [math.nan if math.isnan(size) else rate / repeats for size, rate in zip(sizes, found, strict=True)]
    return cell._replace(draw=_nothing), stated, rates[0], rates[1]


def is_found(sides: list[Outcomes]) -> bool:
    """Return whether the difference of the first comparison of a family is significant by Holm's procedure."""
    p = two_sided(contrast(sides[1], sides[0], pool(sides)))
    if p <= ALPHA / (len(sides) - 1) or p > ALPHA:  # whatever the others are
        return p <= ALPHA
    family = against_first(sides)
    return decide(family, [None] * len(family), ALPHA, more=True)[0].p <= ALPHA


def _nothing(_rng: np.random.Generator, _effects: list[float]) -> list[Outcomes]:
    raise NotImplementedError  # what a worker returns is not drawn from again


def covered(task: tuple[World, int, int, int]) -> tuple[str, int, float]:
    """Return how often the range from another study, of so many configurations under three seeds, holds the truth."""
    world, size, repeats, number = task
    rng, hits = np.random.default_rng([2026, 13, number]), 0
    truth = sensitivity(of_grid(world, 3, FAMILY + 1, rng).design, ALPHA / FAMILY).difference
    planned = PlannedSensitivity("exact_match", "test", StudySize((3,) * (FAMILY + 1), EXAMPLES), FAMILY, ALPHA, None)
    for _ in range(repeats):
        sides = world.study(rng, [0.0] * size).run(3)
        pilot = from_outcomes(Crossed({str(at): side for at, side in enumerate(sides)}, {}, pool(sides), ""), "a pilot")
        if pilot is None:
            continue
        low, high = with_variance(planned, pilot).difference_range
        hits += low <= truth <= (math.inf if math.isnan(high) else high)
    return f"{world.name}, seed sd {world.seed_sd:g}", size, hits / repeats


def show(rows: list[tuple[Cell, Sensitivity, float, float]]) -> None:
    """Print the worst cell of each world in Markdown, and every one that is off by more than 5 points."""
    print("\n| world | cells | stated difference found, lowest to highest | stated equivalence shown | none stated |")
    print("|---|---:|---:|---:|---:|")
    for world in dict.fromkeys(cell.world for cell, *_ in rows):
        own = [row for row in rows if row[0].world == world]
        none = sum(math.isnan(row[2]) for row in own)
        print(
            f"| {world} | {len(own)} | {_ends([row[2] for row in own])} | {_ends([row[3] for row in own])} | {none} |"
        )
    gaps = [abs(rate - POWER) for *_, found, same in rows for rate in (found, same) if not math.isnan(rate)]
    off = sum(gap > GAP for gap in gaps)
    print(f"\nOf {len(gaps)} figures {off} are more than 5 points off 80 %; the worst by {100 * max(gaps):.1f}.")
    for cell, stated, found, same in rows:
        for what, rate in (("difference", found), ("equivalence", same)):
            if abs(rate - POWER) > GAP:
                print(f"{cell.world}, {cell.detail}: {what} {rate:.3f} of {stated}")


def _ends(rates: list[float]) -> str:
    known = [100 * rate for rate in rates if not math.isnan(rate)]
    return f"{min(known):.1f} to {max(known):.1f}" if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few repeats of a few cells")
    parser.add_argument("--repeats", type=int, default=1000, help="of each cell; five times as many where one is off")
    parser.add_argument("--world", default="", help="only worlds whose name begins so; nothing is written")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    repeats, began = 40 if given.quick else given.repeats, time.perf_counter()
    chosen = [make for make in cells(given.quick) if _name(make).startswith(given.world)]
    tasks = [(make, repeats, number) for number, make in enumerate(chosen)]
    ranges = [(world, size, max(repeats // 4, 10)) for world in WORLDS if world.seed_sd == 0.2 for size in (2, 10)]
    ranges = [one for one in ranges if one[0].name.startswith(given.world)]
    with Pool(given.processes) as workers:
        rows = []
        for row in workers.imap(tried, tasks):
            rows.append(row)
            print(f"{row[0].world}, {row[0].detail}: {row[2]:.3f} {row[3]:.3f}", flush=True)
        # What may be chance is tried again on other studies, and these alone count.
        again = [at for at, row in enumerate(rows) if any(abs(rate - POWER) > CLOSE for rate in row[2:])]
        more = [(tasks[at][0], 5 * repeats, 1000 + at) for at in again]
        for at, row in zip(again, workers.imap(tried, more), strict=True):
            rows[at] = row
            print(f"again: {row[0].world}, {row[0].detail}: {row[2]:.3f} {row[3]:.3f}", flush=True)
        coverage = workers.map(covered, [(*one, number) for number, one in enumerate(ranges)], chunksize=1)
    show(rows)
    print("\n| world | another study of | its 95 % range holds the truth |\n|---|---:|---:|")
    for world, size, share in coverage:
        print(f"| {world} | {size} × 3 seeds | {100 * share:.1f} |")
    print(f"\n{repeats} repeats of {len(rows)} cells in {time.perf_counter() - began:.0f} s")
    if not given.quick and not given.world:
        write(rows, coverage, repeats)


def write(
    rows: list[tuple[Cell, Sensitivity, float, float]], coverage: list[tuple[str, int, float]], repeats: int
) -> None:
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {name: version(name) for name in ("lorafile", "numpy", "scipy")} | {"python": platform.python_version()}
    content = {**about, "repeats": repeats, "alpha": ALPHA, "power": POWER, "coverage": coverage}
    content["cells"] = [
        {"world": cell.world, "detail": cell.detail}
        | {"difference": _none(stated.difference), "found": _none(found)}
        | {"margin": _none(stated.margin), "shown": _none(same)}
        for cell, stated, found, same in rows
    ]
    out = HERE / "results" / f"{about['date']}-sensitivity.json"
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


if __name__ == "__main__":
    main()
