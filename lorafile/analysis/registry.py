"""Analyses: pure functions of a study's results.

A kind of analysis is a module with a function `analyse(results, table) -> list[Analysis]`. It is registered by its
name in `_MODULES`; the name stands among the kinds of an `[[analysis]]` table.
"""

from importlib import import_module
from typing import get_args

from lorafile.analysis.common.base import Analysis
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable

_MODULES = {  # imported on first use
    "summary": "overview.summary",
    "compare": "compare.compare",
    "recommend": "recommend.recommend",
    "tune": "training.tune",
    "trend": "factors.trend",
    "effects": "factors.effects",
    "pareto": "tradeoffs.pareto",
    "noise": "noise.noise",
    "confounds": "compare.confounds",
    "cost": "tradeoffs.cost",
    "curves": "training.curves",
    "rates": "training.rates",
    "truncation": "adapters.truncation",
    "inspect": "adapters.inspect",
    "merge": "adapters.merge",
    "forgetting": "adapters.forgetting",
    "lm_eval": "adapters.lm_eval",
    "prompts": "training.prompts",
    "data": "training.data",
    "own": "custom.custom",
}


def kinds() -> tuple[str, ...]:
    """Return the name of every analysis, in the order of a report."""
    from lorafile.specs.tables.analysis import Kind

    return get_args(Kind)


def analyses(results: Results, tables: list[AnalysisTable]) -> list[Analysis]:
    """Return the declared analyses, or every one that has something to say; then claims and published figures."""
    from lorafile.analysis.claims import claims
    from lorafile.analysis.common import published
    from lorafile.specs.tables.analysis import AnalysisTable, Question
    from lorafile.specs.tables.evaluate import metric_label

    every = [AnalysisTable.model_validate({"kind": kind}) for kind in kinds()]
    declared = tables or [*every, *(AnalysisTable.model_validate({"ask": name}) for name in get_args(Question))]
    found: dict[str, Analysis] = {}
    known = {str(name): name for name in (*results.metrics, results.primary)}  # a metric file, as results call it
    for table in declared:
        if table.metric is not None:
            table = table.model_copy(update={"metric": known.get(metric_label(table.metric), table.metric)})
        for analysis in _one(results, table, asked=bool(tables)):
            same = [other for other in found.values() if other.title == analysis.title and other.kind == analysis.kind]
            if analysis.name not in found:
                found[analysis.name] = analysis
            elif not same:  # two sweeps whose names differ only in what a file name cannot hold
                renamed = analysis.renamed(f"{analysis.name}-{len(found)}")
                found[renamed.name] = renamed
    return [*found.values(), *claims.section(results), *published.section(results)]


def _one(results: Results, table: AnalysisTable, asked: bool) -> list[Analysis]:
    """Return what one table asks for; a question that nobody asked is answered where the study has an answer."""
    if table.ask is None:
        made: list[Analysis] = import_module(f"lorafile.analysis.{_MODULES[str(table.kind)]}").analyse(results, table)
        return made
    from lorafile.analysis.overview.questions import answer

    return answer(results, table, asked)
