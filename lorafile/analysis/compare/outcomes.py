"""What every configuration's runs made of every held-out example, on the same examples in the same order."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lorafile.analysis.common.format import metric_name
from lorafile.analysis.common.scores import cells, values
from lorafile.engine.metrics.registry import METRICS
from lorafile.results.results import OwnName, Results
from lorafile.statistics.crossed import Outcomes, RunVariance, linear, pool

if TYPE_CHECKING:
    import pandas as pd

_AGREES = 1e-6  # relative: a figure is the mean of its examples' outcomes, or it is none


@dataclass(frozen=True)
class Crossed:
    """Seeds by examples, for each configuration that has both.

    :ivar outcomes: configuration -> what its runs made of each example; every one has the same examples
    :ivar why: configuration -> why it has none, in words that follow its name
    :ivar variance: the run variance that all of them have in common
    :ivar scale: the metric that is compared: `perplexity` is compared as log loss
    """

    outcomes: dict[str, Outcomes]
    why: dict[str, str]
    variance: RunVariance
    scale: str


def compared_as(metric: str) -> str:
    """Return the metric on whose scale another one is compared: differences of perplexity are those of log loss."""
    return "log_loss" if metric == "perplexity" else metric


@lru_cache(maxsize=32)
def crossed(results: Results, metric: str, split: str, seeds: tuple[int, ...] | None = None) -> Crossed:
    """Return the outcomes of a metric on a split.

    :param seeds: those to look at; all of them otherwise
    """
    figures = values(results, f"{split}.{metric}")
    runs: dict[str, dict[int | None, pd.DataFrame]] = {}
    why: dict[str, str] = {}
    for name, seed in figures:
        if seed is not None and seeds is not None and seed not in seeds:
            continue
        key = (name, None if seed is None else int(seed), split)
        if key in results.outcomes:
            runs.setdefault(name, {})[key[1]] = results.outcomes[key]
        else:
            why[name] = "has no outcomes of single examples in this state"
    rows = _rows(runs)
    found: dict[str, Outcomes] = {}
    for name, frames in runs.items():
        arrays = {seed: _one(frame, metric, figures[name, seed]) for seed, frame in frames.items()}
        known = [array for array in arrays.values() if array is not None]
        if any(list(frame["row"]) != rows for frame in frames.values()):
            why[name] = "was not judged on the same examples as the others"
        elif len(known) < len(arrays):
            why[name] = _indivisible(metric)
        elif len(rows) < 2:
            why[name] = "was judged on one example"
        else:
            found[name] = Outcomes(np.array(known), exact=set(arrays) == {None})
    for name in cells(results.configurations, "configuration"):
        if name not in found:
            why.setdefault(str(name), "has no finished run")
    return Crossed(
        found,
        {name: text for name, text in why.items() if name not in found},
        pool(found.values()),
        compared_as(metric),
    )


def _rows(runs: "dict[str, dict[int | None, pd.DataFrame]]") -> list[int]:
    """Return the examples that most runs were judged on."""
    sets = Counter(tuple(frame["row"]) for frames in runs.values() for frame in frames.values())
    return list(sets.most_common(1)[0][0]) if sets else []


def _one(frame: "pd.DataFrame", metric: str, figure: float) -> np.ndarray | None:
    """Return one run's outcomes such that their mean is its figure; None where no mean of theirs is the figure."""
    influence = f"{metric}.influence"
    if influence in frame:
        each = frame[influence].to_numpy(float)
        return np.asarray(each - each.mean() + figure)
    weight = METRICS[metric].weight if metric in METRICS and not isinstance(metric, OwnName) else ""
    if metric not in frame or (weight and weight not in frame):
        return None
    each = linear(frame[metric].to_numpy(float), frame[weight].to_numpy(float) if weight else None)
    expected = np.log(figure) if metric == "perplexity" else figure
    return each if np.isclose(each.mean(), expected, rtol=_AGREES, atol=_AGREES) else None


def _indivisible(metric: str) -> str:
    name = metric_name(metric)
    return f"has a {name} that is no mean over examples, so nothing tells how far other examples would move it"
