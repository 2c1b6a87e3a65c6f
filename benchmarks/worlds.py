"""Made-up studies whose truth is known: seeds and examples crossed, some examples hard for every configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from lorafile.statistics.crossed import Estimate, Outcomes, contrast, pool
from lorafile.statistics.planning import Prospect, prospects
from lorafile.statistics.run_variance import RunVariance

EXAMPLES = 200
# Shares of one run's variance over examples: hard for all, hard for one configuration, left between runs.
HARD, OWN, REST = 0.5, 0.15, 0.35
PILOTS = 1000


@dataclass(frozen=True)
class World:
    """Where outcomes come from.

    :ivar base: the true share of right answers, where each is right (1) or wrong (0); None: Gaussian outcomes of unit
        variance over examples
    :ivar seed_sd: standard deviation between runs, in that of an outcome over examples (of the latent one, where
        outcomes are right or wrong: an answer is right where it is above a threshold)
    :ivar unequal: configurations in turn have this many times the first one's seed_sd
    :ivar most: the largest effect that is asked for
    """

    name: str
    seed_sd: float
    base: float | None = None
    unequal: float = 1.0
    most: float = np.inf

    def study(self, rng: np.random.Generator, effects: Sequence[float]) -> "Study":
        """Return a study of configurations with these true figures (above the base)."""
        shifts = np.array(effects, float)[:, None, None]
        spreads = self.seed_sd * np.where(np.arange(len(effects)) % 2, self.unequal, 1.0)[:, None, None]
        if self.base is not None:
            shifts = ndtri(self.base + shifts) * np.sqrt(1 + spreads**2)
        examples = HARD**0.5 * rng.standard_normal(EXAMPLES)
        own = OWN**0.5 * rng.standard_normal((len(effects), 1, EXAMPLES))
        return Study(rng, shifts + examples + own, spreads, self.base is not None)


@dataclass
class Study:
    """Configurations on the same examples, which can be run again under more seeds."""

    rng: np.random.Generator
    levels: np.ndarray
    spreads: np.ndarray
    binary: bool
    runs: list[np.ndarray] = field(default_factory=list)

    def run(self, seeds: int, only: Sequence[int] | None = None) -> list[Outcomes]:
        """Run configurations under so many further seeds; return the outcomes of all their runs so far."""
        count = len(self.levels)
        noise = self.rng.standard_normal((count, seeds, 1)), self.rng.standard_normal((count, seeds, EXAMPLES))
        values = self.levels + self.spreads * noise[0] + REST**0.5 * noise[1]
        new = (values > 0).astype(float) if self.binary else values
        if not self.runs:
            self.runs = list(new)
        else:
            again = range(count) if only is None else only
            self.runs = [np.vstack((old, new[at])) if at in again else old for at, old in enumerate(self.runs)]
        return [Outcomes(values) for values in self.runs]


def truth(world: World, rng: np.random.Generator, effect: float, seeds: int, size: int) -> list[Prospect]:
    """Return what planning foresees from the true variances.

    These are means over many pilots, each with many seeds; examples' variance untruncated, so that it has no bias.

    :param size: how many configurations the study has, all of which tell its run variance
    """
    runs, residual, examples = np.zeros(2), np.zeros(2), 0.0
    for _ in range(PILOTS):
        one, other = world.study(rng, [effect, 0.0]).run(10)
        paired = one.values.mean(axis=0) - other.values.mean(axis=0)
        examples += (paired.var(ddof=1) - (one.residual + other.residual) / 10) / EXAMPLES
        runs += one.run_variance, other.run_variance
        residual += one.residual, other.residual
    runs, residual, examples = runs / PILOTS, residual / PILOTS, examples / PILOTS
    true = Estimate(
        difference=0.0,
        runs=float(runs.sum()) / seeds,
        examples=max(examples, 0.0),
        df=np.nan,
        runs_df=size * (seeds - 1.0),
        seeds=(seeds, seeds),
        n=EXAMPLES,
        residual=(float(residual[0]), float(residual[1])),
        exact=(False, False),
        squares=(1.0, 1.0),
        run_variances=(float(runs[0]), float(runs[1])),
        borrowed=(True, True),
        ratios=(1.0, 1.0),
        pool=RunVariance(float(runs.mean()), size * (seeds - 1), most=seeds - 1),
    )
    return prospects(true, true.seeds)


def against_first(outcomes: Sequence[Outcomes]) -> list[Estimate]:
    """Return every configuration's difference to the first, the run variance pooled over all of them."""
    pooled = pool(outcomes)
    return [contrast(one, outcomes[0], pooled) for one in outcomes[1:]]
