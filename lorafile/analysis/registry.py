"""Analyses: pure functions of a study's results.

A kind of analysis is a function `(results, table) -> list[Analysis]`. It is registered by its name in `_ANALYSES`; the
name stands among the kinds of an `[[analysis]]` table.
"""

from importlib import import_module
from typing import get_args

from lorafile.analysis.common.base import Analysis
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable, Kind, Question
from lorafile.specs.tables.evaluate import metric_label

_ANALYSES = {  # kind -> module:function, imported on first use
    "summary": "overview.summary:analyse",
    "compare": "compare.compare:analyse",
    "recommend": "recommend.recommend:analyse",
    "tune": "training.tune:analyse",
    "trend": "factors.trend:analyse",
    "effects": "factors.effects:analyse",
    "pareto": "tradeoffs.pareto:analyse",
    "noise": "noise.noise:analyse",
    "confounds": "compare.compare:confounds",
    "cost": "tradeoffs.cost:analyse",
    "curves": "training.curves:analyse",
    "rates": "training.rates:analyse",
    "truncation": "adapters.truncation:analyse",
    "inspect": "adapters.inspect:analyse",
    "merge": "adapters.merge:analyse",
    "forgetting": "adapters.extra_evaluations:forgetting",
    "lm_eval": "adapters.extra_evaluations:lm_eval",
    "prompts": "adapters.extra_evaluations:prompts",
    "data": "training.data:analyse",
    "own": "custom.custom:analyse",
}


def kinds() -> tuple[str, ...]:
    """Return the name of every analysis, in the order of a report."""
    return get_args(Kind)


def analyses(results: Results, tables: list[AnalysisTable]) -> list[Analysis]:
    """Return the declared analyses, or every one that has something to say; then claims and published figures."""
    from lorafile.analysis.claims import claims
    from lorafile.analysis.common import published

    every = [AnalysisTable.model_validate({"kind": kind}) for kind in kinds()]
    declared = tables or [*every, *(AnalysisTable.model_validate({"ask": name}) for name in get_args(Question))]
    by_name: dict[str, Analysis] = {}
    metrics = {str(name): name for name in (*results.metrics, results.primary)}  # a metric file, as results call it
    for table in declared:
        if table.metric is not None:
            table = table.model_copy(update={"metric": metrics.get(metric_label(table.metric), table.metric)})
        for analysis in _answer(results, table, asked=bool(tables)):
            same = any((other.title, other.kind) == (analysis.title, analysis.kind) for other in by_name.values())
            if analysis.name not in by_name:
                by_name[analysis.name] = analysis
            elif not same:  # two sweeps whose names differ only in what a file name cannot hold
                renamed = analysis.renamed(f"{analysis.name}-{len(by_name)}")
                by_name[renamed.name] = renamed
    return [*by_name.values(), *claims.section(results), *published.section(results)]


def _answer(results: Results, table: AnalysisTable, asked: bool) -> list[Analysis]:
    """Return what one table asks for; a question that was not asked is answered where the study has an answer."""
    if table.ask is None:
        module, _, function = _ANALYSES[str(table.kind)].partition(":")
        answers: list[Analysis] = getattr(import_module(f"lorafile.analysis.{module}"), function)(results, table)
        return answers
    from lorafile.analysis.overview.questions import answer

    return answer(results, table, asked)
