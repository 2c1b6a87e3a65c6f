"""How far figures vary, and who says so: finished runs of the state, a published deviation, or a typed guess."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from lorafile.analysis.common.format import is_share
from lorafile.analysis.compare.outcomes import Crossed, compared_as, crossed, margin_of
from lorafile.errors import LoraError
from lorafile.plan.plan import Plan
from lorafile.results.results import OnDemand, Results
from lorafile.specs.tables.analysis import ExpectedTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.state import Node, State
from lorafile.statistics.crossed import Outcomes, pool
from lorafile.units import plural

_RUN = re.compile(r"(?P<name>.+)/seed=(?P<seed>\d+):score/(?P<split>\w+)")
_ENOUGH = 10  # degrees of freedom, beyond which another study's figures are no better for having more
_MOST_RUNS = 300  # of another study that are read
_OUTCOMES, _CLUSTERS = "outcomes.jsonl.gz", "clusters.jsonl.gz"
_UNKNOWN_SHARE = 0.5  # where right and wrong answers vary most


@dataclass(frozen=True)
class VarianceEstimate:
    """How far figures of one metric vary.

    :ivar runs: the variance of one run's figure between seeds; `df`: its degrees of freedom, 0 where they are not known
    :ivar residual: the mean square of the seed-by-example residual; 0 where more examples are not known to help
    :ivar examples: the variance over examples of the difference between two configurations; NaN where it is not known
    :ivar n: the examples, or clusters, that figures are means over; `independent`: as how many these count; `rows`: as
        how many rows they stand in the data; 0 where that is not known
    :ivar mean: the typical figure, NaN where it is not known; `binary`: whether every answer is right or wrong
    :ivar source: who says so, in words; `bound`: whether `examples` is the most that it can be
    """

    runs: float
    df: int
    residual: float
    examples: float
    n: int
    rows: int
    mean: float
    binary: bool
    source: str
    bound: bool = False
    independent: float = nan


def known_variance(plan: Plan, state: State, results: Results, split: str) -> VarianceEstimate | None:
    """Return how far figures of a study's primary metric vary, from the best source that there is; None without one.

    Finished runs on the same data come first, those of the study itself before others where they tell enough.

    :param results: the study's own scores; `split`: the one that is judged on
    """
    stored = [*_own(results, split), *_of_others(plan, state, results, split)]
    if stored:
        return max(stored, key=lambda ranked: ranked[0])[1]
    return _published(results) or _expected(results)


def from_outcomes(data: Crossed, source: str) -> VarianceEstimate | None:
    """Return what scored runs tell of the variance; None where no configuration has two of them."""
    sides = [side for side in data.outcomes.values() if side.runs > 1]
    pooled = pool(sides)
    if not pooled.df or isnan(pooled.value):
        return None
    n = sides[0].examples
    rows, _ = data.clustered or (n, n)
    return VarianceEstimate(
        runs=pooled.value,
        df=pooled.df,
        residual=float(np.mean([side.residual for side in sides])),
        examples=2 * _own_part(sides),
        n=n,
        rows=rows,
        mean=float(np.mean([side.mean for side in sides])),
        binary=all(side.binary for side in sides),
        source=f"{plural(len(sides), 'configuration')} of {source}",
        independent=sides[0].independent,
    )


def _own_part(sides: list[Outcomes]) -> float:
    """Return the variance over examples of what is hard for one configuration and not for others.

    The mean square of the configuration-by-example interaction, less what runs put into it. Of one configuration alone
    it is the most that it can be: all that varies over examples.
    """
    figures = np.stack([side.by_example for side in sides])
    figures = figures - figures.mean(axis=1, keepdims=True)
    own = figures - (figures.mean(axis=0) if len(sides) > 1 else 0.0)
    square = float((own**2).sum() / max(len(sides) - 1, 1) / (figures.shape[1] - 1))
    return max(square - float(np.mean([side.residual / side.runs for side in sides])), 0.0)


Ranked = tuple[tuple[float, ...], VarianceEstimate]


def _own(results: Results, split: str) -> list[Ranked]:
    estimate = from_outcomes(crossed(results, results.primary, split), "this study")
    return [((1, min(estimate.df, _ENOUGH), 1, estimate.df), estimate)] if estimate else []


def _of_others(plan: Plan, state: State, results: Results, split: str) -> list[Ranked]:
    """Return what other studies in the state tell, and earlier runs of this one that it no longer declares."""
    metric, ranked = str(results.primary), list[Ranked]()
    data, column = _data_of_plan(plan, split)
    current = set(plan.results)
    for study in [name for (name,) in state.rows("SELECT DISTINCT study FROM attempts WHERE kind = 'score'")]:
        scored = _scores(state, study, metric, split)
        scored = {run: found for run, found in scored.items() if study != plan.study or found[0] not in current}
        prepared = _prepared(state, next(iter(scored.values()))[0]) if scored else None
        if prepared is None or prepared["format"] != data["format"]:
            continue
        clusters = _clusters(state, prepared, column) if column else None
        if column and clusters is None:
            continue
        same = prepared["digest"] == data["digest"]
        words = "earlier runs of this study" if study == plan.study else f'study "{study}" in this state'
        words += "" if same else ", on other data of the same format"
        try:
            estimate = from_outcomes(_crossed(state, scored, metric, split, clusters), words)
        except LoraError:  # a damaged file of another study, which `lora state verify` names
            continue
        if estimate is not None:
            ranked.append(((float(same), min(estimate.df, _ENOUGH), 0, estimate.df), estimate))
    return ranked


def _data_of_plan(plan: Plan, split: str) -> tuple[dict[str, str], str]:
    """Return the section of the data that most configurations are judged on, and the column of its clusters."""
    graph = plan.graph
    name = next(c.name for c in graph.spec.configurations if split in graph.splits[c.name])
    key = graph.clusters.get(name, {}).get(split)
    column = str(graph.nodes[key].settings["data"]["clusters"]) if key else ""
    return graph.nodes[graph.splits[name][split]].settings["data"], column


Scored = dict[tuple[str, int], tuple[str, float, str]]  # configuration, seed -> key, figure, digest of its outcomes


def _scores(state: State, study: str, metric: str, split: str) -> Scored:
    """Return the finished scores of a study that has the metric."""
    rows = state.rows(
        "SELECT r.address, r.key, r.figures, o.digest FROM results r JOIN outputs o ON o.attempt = r.id "
        "WHERE r.kind = 'score' AND r.study = ? AND o.name = ? ORDER BY r.id DESC",
        study,
        _OUTCOMES,
    )
    scored: Scored = {}
    for address, key, text, digest in rows:
        match, figure = _RUN.fullmatch(address), json.loads(text).get(metric)
        if match and match["split"] == split and figure is not None and state.objects.has(digest):
            scored.setdefault((match["name"], int(match["seed"])), (key, float(figure), digest))
    return dict(list(scored.items())[:_MOST_RUNS])


def _prepared(state: State, score: str) -> dict[str, str] | None:
    """Return the section of the data that a score is on."""
    node: Node | None = state.node(score)
    for role in (None, "data"):
        inputs = {} if node is None else node.inputs
        node = state.node(inputs.get(role, "") if role else next(iter(inputs.values()), ""))
    return None if node is None else node.settings.get("data")


def _clusters(state: State, prepared: Mapping[str, object], column: str) -> str | None:
    """Return the digest of what tells which examples belong together by a column; None where that is not stored."""
    wanted = {"clusters": column} | {name: prepared.get(name) for name in ("digest", "rows")}
    for node, _ in state.finished("prepare"):
        data = node.settings.get("data", {})
        if all(data.get(name) == value for name, value in wanted.items()):
            digest = state.latest([node.key])[node.key][-1].outputs.get(_CLUSTERS)
            return digest if digest and state.objects.has(digest) else None
    return None


def _crossed(state: State, scored: Scored, metric: str, split: str, clusters: str | None) -> Crossed:
    """Return the outcomes of another study's runs."""
    import pandas as pd

    together = pd.DataFrame(list(state.objects.rows(clusters))) if clusters else None

    def read(digest: str) -> pd.DataFrame:
        frame = pd.DataFrame(list(state.objects.rows(digest)))
        return frame if together is None else frame.merge(together, on="row", how="left", validate="one_to_one")

    names = list(dict.fromkeys(name for name, _ in scored))
    rows = [
        {"configuration": name, "seed": seed, "outcome": "done", f"{split}.{metric}": figure}
        for (name, seed), (_, figure, _) in scored.items()
    ]
    files = {(name, seed, split): digest for (name, seed), (_, _, digest) in scored.items()}
    nothing, runs = pd.DataFrame(), pd.DataFrame(rows)
    of_names = pd.DataFrame({"configuration": names})
    others = Results(
        "", "", "", metric, (metric,), (), of_names, runs, nothing, nothing, outcomes=OnDemand(files, read)
    )
    return crossed(others, metric, split)


def _published(results: Results) -> VarianceEstimate | None:
    """Return the variance of the published figure on the primary metric whose deviation is from the most runs."""
    scale = compared_as(str(results.primary))
    tables = [
        table
        for table in results.published
        if table.sd is not None and (table.metric is None or compared_as(metric_label(table.metric)) == scale)
    ]
    if not tables:
        return None
    table = max(tables, key=lambda table: table.seeds or 0)
    source = f'the published deviation of "{table.name}" ({table.source})'
    df = table.seeds - 1 if table.seeds else 0
    return _typed(results, table.sd or 0.0, None, source, df, table.value)


def _expected(results: Results) -> VarianceEstimate | None:
    """Return the variance that the spec expects."""
    expected = results.verdict.expect_sd
    if expected is None:
        return None
    typed = expected if isinstance(expected, ExpectedTable) else ExpectedTable(runs=expected)
    runs, examples = (margin_of(value, str(results.primary), nan) for value in (typed.runs, typed.examples))
    return _typed(results, runs or 0.0, examples, "verdict.expect_sd, a guess", 0, nan)


def _typed(
    results: Results, runs: float, examples: float | None, source: str, df: int, value: float
) -> VarianceEstimate:
    """Return a variance from a deviation between runs; answers that are right or wrong vary no more than coins."""
    binary = is_share(results.primary)
    share = value if binary and 0 < value < 1 else _UNKNOWN_SHARE
    most = 2 * share * (1 - share) if binary else nan
    return VarianceEstimate(
        runs=runs**2,
        df=df,
        residual=0.0,
        examples=most if examples is None else examples**2,
        n=0,
        rows=0,
        mean=share if binary else value,
        binary=binary,
        source=source,
        bound=binary and examples is None,
    )
