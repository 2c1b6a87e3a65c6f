"""How the error rate of a page is divided: everything on it that is called real shares one alpha.

Verdicts have four fifths of what a look may spend; trends and effects have the rest, in equal parts for each series
and each grid that the page may test. By Bonferroni any false word among all of them is then no more frequent than
alpha, over all looks, since the looks' shares add up to it.
"""

from itertools import chain

from lorafile.results.results import Results
from lorafile.statistics.deciding import shares

VERDICTS = 0.8
_EXPLORING = ("trend", "effects")


def looks(results: Results) -> list[tuple[tuple[int, ...], float]]:
    """Return (all seeds so far, what it may spend of alpha) of each look at the study: the first, then every stage."""
    groups = results.looks or (tuple(results.seeds),)
    spent = shares(results.verdict.alpha, results.verdict.keep, len(groups))
    return [(tuple(chain(*groups[: at + 1])), alpha) for at, alpha in enumerate(spent)]


def next_alpha(results: Results) -> float:
    """Return what the look after the last one may spend of alpha."""
    return shares(results.verdict.alpha, results.verdict.keep, len(looks(results)) + 1)[-1]


def of_verdicts(results: Results, alpha: float) -> float:
    """Return the verdicts' part of what a look may spend: all of it where the page tests nothing else."""
    return alpha * VERDICTS if explores(results) else alpha


def of_exploring(results: Results, count: int) -> float:
    """Return the level of each of so many families of tests apart from the verdicts."""
    return looks(results)[-1][1] * (1 - VERDICTS) / max(count, 1)


def explores(results: Results) -> bool:
    """Return whether the page may test trends or effects: where the spec declares no analysis, it may."""
    return not results.declared or any(table.kind in _EXPLORING or table.ask for table in results.declared)
