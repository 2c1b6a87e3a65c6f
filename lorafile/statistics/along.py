"""An ordered factor: the steps from value to value, tested together, and from where on nothing more is gained."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan

from lorafile.statistics.crossed import Estimate, Outcomes, RunVariance, contrast
from lorafile.statistics.probabilities import equivalence, holm, interval, two_sided


@dataclass(frozen=True)
class Step:
    """What going from one value to another does.

    :ivar low: the value's place in the order; `high`: that of the larger one
    :ivar p: its probability, adjusted by Holm over all steps, the one from end to end among them
    :ivar interval: the one that holds for all of them at once (Bonferroni)
    """

    low: int
    high: int
    estimate: Estimate
    p: float
    interval: tuple[float, float]


def steps(members: Sequence[Outcomes], pooled: RunVariance, alpha: float) -> list[Step]:
    """Return the steps between neighbours, and last the one from end to end; of two members there is one step."""
    ends = list(pairwise(range(len(members))))
    ends += [(0, len(members) - 1)] if len(members) > 2 else []
    found = [contrast(members[high], members[low], pooled) for low, high in ends]
    adjusted = holm([two_sided(one) for one in found])
    return [
        Step(low, high, one, p, interval(one, alpha / len(found)))
        for (low, high), one, p in zip(ends, found, adjusted, strict=True)
    ]


def saturated(members: Sequence[Outcomes], pooled: RunVariance, margin: float, alpha: float) -> tuple[int, float]:
    """Return from which place on every larger value is equivalent to that one, and the largest probability behind it.

    The last place but one is tried first, then the one below it, until one fails: in a fixed order each may be tested
    at alpha (Maurer, Hothorn and Lehmacher, 1995), and at each place all of the larger values have to pass (the
    intersection-union test; Berger, 1982). The last place where none does: nothing was shown.
    """
    reached, largest = len(members) - 1, nan
    for place in reversed(range(len(members) - 1)):
        others = [contrast(other, members[place], pooled) for other in members[place + 1 :]]
        p = max(equivalence(one, margin) for one in others)
        if not p <= alpha:
            break
        reached, largest = place, p if largest != largest else max(p, largest)
    return reached, largest
