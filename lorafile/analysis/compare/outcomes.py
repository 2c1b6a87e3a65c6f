"""What every configuration's runs made of every held-out example, on the same examples in the same order."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import exp, isnan, nan
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from lorafile.analysis.common.format import difference, is_share, metric_name
from lorafile.analysis.common.scores import values
from lorafile.engine.metrics.registry import METRICS, CustomMetricName, range_of, unit_of
from lorafile.errors import LoraError
from lorafile.results.results import Results
from lorafile.statistics.crossed import Outcomes, combination, intraclass, linear, pool
from lorafile.statistics.probabilities import interval
from lorafile.statistics.run_variance import RunVariance

if TYPE_CHECKING:
    import pandas as pd

Margin = str | float | None

OTHER_EXAMPLES = "was not evaluated on the same examples as the others"
_AGREES = 1e-6  # relative: a figure is the mean of its examples' outcomes, or it is none


@dataclass(frozen=True)
class Crossed:
    """Seeds by examples, for each configuration that has both.

    :ivar outcomes: configuration -> what its runs made of each example; every one has the same examples
    :ivar why: configuration -> why it has none, in words that follow its name
    :ivar variance: the run variance that all of them have in common
    :ivar intraclass: the correlation of examples of one cluster, on average over configurations; NaN without clusters
    :ivar clustered: (examples, clusters) where examples belong together
    :ivar scale: the metric that is compared: `perplexity` is compared as log loss
    """

    outcomes: dict[str, Outcomes]
    why: dict[str, str]
    variance: RunVariance
    scale: str
    intraclass: float = nan
    clustered: tuple[int, int] | None = None


def on_other_examples(results: Results, metric: str, split: str) -> list[str]:
    """Return the configurations whose figures are on other examples than those of most: rows were dropped for them."""
    return [name for name, text in crossed(results, metric, split).why.items() if text == OTHER_EXAMPLES]


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
        if key not in results.outcomes:
            why[name] = "has no per-example outcomes in this state"
            continue
        try:
            runs.setdefault(name, {})[key[1]] = results.outcomes[key]
        except LoraError as error:  # it takes its own comparisons out, and no others
            why[name] = f"has a score that cannot be read: {error}"
    judged_on = Counter(tuple(frame["row"]) for frames in runs.values() for frame in frames.values())
    rows = max(judged_on, key=judged_on.__getitem__, default=())  # the examples of most runs
    outcomes: dict[str, Outcomes] = {}
    for name, frames in runs.items():
        if name in why:
            continue
        arrays = [_influences(frame, metric, figures[name, seed]) for seed, frame in frames.items()]
        whole = [array for array in arrays if array is not None]
        if any(tuple(frame["row"]) != rows for frame in frames.values()):
            why[name] = OTHER_EXAMPLES
        elif len(whole) < len(arrays):
            why[name] = _indivisible(metric)
        elif len(rows) < 2:
            why[name] = "was evaluated on a single example"
        else:
            outcomes[name] = Outcomes(np.array(whole), exact=set(frames) == {None})
    judged = [frame for name in outcomes for frame in runs[name].values()]  # on the same rows, all of them
    correlation, counts = nan, None
    together = next((frame["cluster"].to_numpy(int) for frame in judged if "cluster" in frame), None)
    if together is not None and len({*together}) < 2:
        why |= dict.fromkeys(outcomes, "was evaluated on examples from a single cluster (data.cluster)")
        outcomes = {}
    elif together is not None:
        alike = [intraclass(side.by_example, together) for side in outcomes.values()]
        known = [share for share in alike if not isnan(share)]
        correlation, counts = fmean(known) if known else nan, (len(together), len({*together}))
        outcomes = {name: side.clustered(together, correlation) for name, side in outcomes.items()}
    why = dict.fromkeys(results.names, "has no finished run") | why
    without = {name: text for name, text in why.items() if name not in outcomes}
    return Crossed(outcomes, without, pool(outcomes.values()), compared_as(metric), correlation, counts)


def _influences(frame: "pd.DataFrame", metric: str, figure: float) -> np.ndarray | None:
    """Return one run's outcomes such that their mean is its figure; None where no mean of theirs is the figure."""
    influence = f"{metric}.influence"
    if influence in frame:
        each = frame[influence].to_numpy(float)
        return np.asarray(each - each.mean() + figure)
    weight = METRICS[metric].weight if metric in METRICS and not isinstance(metric, CustomMetricName) else ""
    if metric not in frame or (weight and weight not in frame):
        return None
    each = linear(frame[metric].to_numpy(float), frame[weight].to_numpy(float) if weight else None)
    expected = np.log(figure) if metric == "perplexity" else figure
    return each if np.isclose(each.mean(), expected, rtol=_AGREES, atol=_AGREES) else None


def _indivisible(metric: str) -> str:
    name = metric_name(metric)
    return f"has a {name} that is not a mean over examples, so how much it varies with the examples is unknown"


def margin_of(margin: Margin, metric: str, baseline: float) -> float | None:
    """Return a margin in the metric's base unit, None where none is declared.

    :param margin: `1pt` (a percentage point of a share, a point of a metric of 100 points; no margin for a metric that
        has no points), `1%` of the baseline's figure, or a number in the unit that the metric is compared in
    :param baseline: the baseline's figure in that unit
    """
    if margin is None or isinstance(margin, (int, float)):
        return None if margin is None else float(margin)
    if margin.endswith("%"):
        return float(margin.removesuffix("%")) / 100 * abs(baseline)
    points, scale = float(margin.removesuffix("pt")), compared_as(metric)
    if is_share(scale):
        return points / 100
    return points if unit_of(scale).startswith("points") else None


def reach(scale: str) -> float:
    """Return the largest difference that a metric allows."""
    least, most = range_of(scale)
    return most - least


def margin_text(metric: str, margin: float) -> str:
    """Return a margin as a sentence has it: `1.0 points`, `0.01 nats per token`."""
    return difference(compared_as(metric), margin)


def figure_interval(results: Results, name: str, metric: str, split: str) -> tuple[float, float] | str:
    """Return the 95 % interval of a configuration's figure over other seeds and other examples, or why there is none.

    Where every outcome is right or wrong it is never narrower than Clopper and Pearson's (1934) for the examples alone:
    answers that are all right have no variance, and still say little of the next hundred.
    """
    data = crossed(results, metric, split)
    if name in data.why:
        return f"it {data.why[name]}"
    outcomes = data.outcomes[name]
    estimate = combination([outcomes], [1.0], data.variance)
    if estimate.on_runs_only or isnan(estimate.error):
        return "with one seed, its variation between seeds is unknown"
    least, most = range_of(data.scale)
    low, high = interval(estimate)
    low, high = max(low, least), min(high, most)
    if outcomes.binary:
        low, high = share_ends(outcomes, (low, high))
    elif estimate.error == 0:
        return "its examples all score the same, so how much it varies with the examples is unknown"
    return (exp(low), exp(high)) if metric == "perplexity" else (low, high)


def share_ends(outcomes: Outcomes, ends: tuple[float, float]) -> tuple[float, float]:
    """Return an interval of a share of right answers, never narrower than Clopper and Pearson's for the examples."""
    right, n = outcomes.mean * outcomes.independent, outcomes.independent
    least = float(special.betaincinv(right, n - right + 1, 0.025)) if right > 0 else 0.0
    most = float(special.betaincinv(right + 1, n - right, 1 - 0.025)) if right < n else 1.0
    return max(min(ends[0], least), 0.0), min(max(ends[1], most), 1.0)
