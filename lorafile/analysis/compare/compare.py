"""Is a configuration better than another: every declared comparison with its interval, judged as one family."""

from itertools import chain
from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.display_names import display_names
from lorafile.analysis.common.format import level, metric_name, on, probability, slug
from lorafile.analysis.common.scores import split_of
from lorafile.analysis.compare.outcomes import compared_as
from lorafile.analysis.compare.pairs import Pair, pairs
from lorafile.analysis.compare.verdict_text import (
    levels,
    look_name,
    lost_runs,
    noisy_configurations,
    sentence,
    signed_difference,
    signed_interval,
    size,
)
from lorafile.analysis.compare.verdicts import DECIDED, Verdict, family, judge
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

WORDS = {"none": "without a verdict", "refused": "not compared"}
ORDER = (*DECIDED, "inconclusive", "none", "refused")
# The columns of `Study.verdicts`.
VERDICT_COLUMNS = (
    "configuration",
    "compared_with",
    "factor",
    "metric",
    "split",
    "verdict",
    "why",
    "text",
    "difference",
    "standard_error",
    "df",
    "low",
    "high",
    "confidence",
    "p",
    "p_equivalence",
    "p_non_inferiority",
    "margin",
    "seeds",
    "examples",
    "lost_runs",
    "differs",
)
_KINDS = {
    "confound": "set independently of the factor: not compared",
    "waived": "set independently of the factor: waived",
    "provenance": "how it was run: marked",
    "consequence": "follows from the factor",
}


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for each factor that is compared along; nothing where nothing is comparable."""
    metric, along = table.metric or results.primary, dict[str, list[Verdict]]()
    for verdict in judged(results, metric, pairs(results, table)):
        along.setdefault(verdict.pair.factor, []).append(verdict)
    return [_analysis(results, table, metric, factor, verdicts) for factor, verdicts in along.items()]


def judged(results: Results, metric: str, compared: list[Pair]) -> list[Verdict]:
    """Return the verdicts on some pairs: the study's family for its primary metric, else a family of their own."""
    if compared_as(metric) != compared_as(results.primary):
        return list(judge(results, metric, split_of(results, metric), compared))
    verdicts = (family(results).of(*pair.names) for pair in compared)
    return [verdict for verdict in verdicts if verdict is not None]


def _analysis(results: Results, table: AnalysisTable, metric: str, factor: str, verdicts: list[Verdict]) -> Analysis:
    exploratory = compared_as(metric) != compared_as(results.primary)
    about = f"along {factor}" if factor else "for all configurations"
    name = slug("compare", table.name or "", factor or "all", metric if exploratory else "")
    title = f"Verdicts {about}{' (exploratory)' if exploratory else ''}"
    lines = [*_head(results, verdicts, exploratory), *(sentence(results, verdict) for verdict in ordered(verdicts))]
    question = f"Which differences in {metric_name(metric)} are real?"
    analysis = Analysis("compare", name, title, question, lines, (verdict_table(results, verdicts),), factor=factor)
    return with_verdict_chart(results, analysis, verdicts, about)


def with_verdict_chart(results: Results, analysis: Analysis, verdicts: list[Verdict], about: str) -> Analysis:
    """Return an analysis of verdicts with their chart, where any of them was tested."""
    if not any(verdict.decision is not None for verdict in verdicts):
        return analysis
    from lorafile.analysis.compare.chart import caption, chart

    return analysis.with_chart(
        chart(verdicts, display_names(results), about, more_is_better(verdicts[0].scale)), caption(verdicts)
    )


def ordered(verdicts: list[Verdict]) -> list[Verdict]:
    """Return verdicts, what could not be compared first, then the decided ones."""
    return sorted(verdicts, key=lambda verdict: (verdict.word in DECIDED, verdict.word != "refused"))


def _head(results: Results, verdicts: list[Verdict], exploratory: bool) -> list[str]:
    """Return what holds for all of the verdicts."""
    counts = {word: sum(verdict.word == word for verdict in verdicts) for word in ORDER}
    counted = ", ".join(f"{count} {WORDS.get(word, word)}" for word, count in counts.items() if count)
    tested = verdicts if exploratory else family(results).judged
    line = f"{plural(len(verdicts), 'comparison')}: {counted}."
    if exploratory:
        line += " This is not the study's primary metric: the verdicts are exploratory."
    elif len(tested) > 1 and not isnan(tested[0].alpha):
        line += f" All {len(tested)} comparisons of the study form one family (Holm, {levels(tested)})."
    return [line, *noisy_configurations(verdicts)]


def verdict_table(results: Results, verdicts: list[Verdict]) -> Table:
    """Return verdicts as a table: difference, intervals, probabilities, margin, seeds and examples."""
    columns = (
        Column("configuration", "configuration"),
        Column("against", "compared with"),
        Column("verdict", "verdict"),
        Column("shown", f"difference in {on(verdicts[0].scale, verdicts[0].split)}"),
        Column("interval", "test interval"),
        Column("simultaneous", "simultaneous interval"),
        Column("p", "p (Holm)"),
        Column("margin", "margin"),
        Column("tested", "last tested"),
        Column("size", "seeds × examples"),
        Column("lost", "lost runs"),
        Column("differing", "what else differs"),
    )
    frame = pd.DataFrame([_row(results, verdict) for verdict in verdicts])
    several = any(verdict.look for verdict in verdicts)
    frame["tested"] = [
        f"{look_name(verdict.look)}, {level(verdict.alpha)}" if several and verdict.decision is not None else ""
        for verdict in verdicts
    ]
    shown = [column for column in columns if column.key == "verdict" or any(frame[column.key] != "")]
    return Table("Verdicts", frame, tuple(shown))


def verdict_frame(results: Results, verdicts: list[Verdict]) -> pd.DataFrame:
    """Return verdicts as numbers; the columns are those of `Study.verdicts`."""
    return pd.DataFrame([_figures(results, verdict) for verdict in verdicts], columns=list(VERDICT_COLUMNS))


def _figures(results: Results, verdict: Verdict) -> dict[str, Any]:
    estimate, decision = verdict.estimate, verdict.decision
    row: dict[str, Any] = {"configuration": verdict.pair.one, "compared_with": verdict.pair.other}
    row |= {"factor": verdict.pair.factor, "metric": verdict.scale, "split": verdict.split}
    row |= {"verdict": verdict.word, "why": verdict.why, "margin": verdict.margin}
    row |= {"lost_runs": lost_runs(results, verdict), "differs": [each.text() for each in verdict.differing]}
    if estimate is not None:
        row |= {"difference": estimate.difference, "standard_error": estimate.error, "df": estimate.df}
        row |= {
            "seeds": min(estimate.seeds),
            "examples": estimate.n,
            "text": signed_difference(verdict.scale, estimate.difference),
        }
    if decision is not None:
        row |= {"low": decision.interval[0], "high": decision.interval[1], "confidence": decision.confidence}
        row |= {"p": decision.p, "p_equivalence": decision.p_equivalence}
        row |= {"p_non_inferiority": decision.p_non_inferiority}
    return row


def _row(results: Results, verdict: Verdict) -> dict[str, Any]:
    estimate, decision, metric = verdict.estimate, verdict.decision, verdict.scale
    row: dict[str, Any] = {"configuration": verdict.pair.one, "against": verdict.pair.other}
    row |= {"factor": verdict.pair.factor, "verdict": WORDS.get(verdict.word, verdict.word), "why": verdict.why}
    row["differing"] = ", ".join(f"{difference.text()} ({difference.kind})" for difference in verdict.differing)
    row |= {"lost": listing(lost_runs(results, verdict))}
    row |= {"margin": "" if verdict.margin is None else signed_difference(metric, verdict.margin).removeprefix("+")}
    row |= {"shown": "", "interval": "", "simultaneous": "", "p": "", "size": size(verdict), "look": verdict.look}
    if estimate is not None:
        row |= {"difference": estimate.difference, "error": estimate.error, "df": estimate.df}
        row |= {"shown": signed_difference(metric, estimate.difference), "n": estimate.n}
        row |= {"runs_variance": estimate.runs, "examples_variance": estimate.examples}
    if decision is not None:
        (low, high), (least, most) = decision.interval, decision.simultaneous
        row |= {"low": low, "high": high, "least": least, "most": most, "p_value": decision.p}
        row |= {"p_equivalence": decision.p_equivalence, "p_non_inferiority": decision.p_non_inferiority}
        row |= {"interval": f"{signed_interval(metric, decision.interval)} ({level(decision.confidence)})"}
        row |= {"confidence": decision.confidence}
        row |= {"simultaneous": signed_interval(metric, decision.simultaneous)}
        row["p"] = probability(decision.p).removeprefix("= ")
    return row


def confounds(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what differs in each comparison of the study's family; nothing where there are no comparisons."""
    verdicts = family(results).verdicts
    if not verdicts:
        return []
    question = "Does anything else differ between the compared configurations?"
    limits, following = _confounded(verdicts), _consequences(verdicts)
    nothing = f"{plural(len(verdicts), 'comparison')}: only the factor differs."
    lines, tables = [*limits, *following] or [nothing], _confound_table(verdicts)
    return [Analysis("confounds", "confounds", "What else differs", question, lines, tables, limits=tuple(limits))]


def _confounded(verdicts: tuple[Verdict, ...]) -> list[str]:
    """Say what was set independently of the factor: what was not compared for it, and what was waived."""
    lines = []
    for kind, start in (("confound", "Not compared"), ("waived", "Compared although something else differs")):
        for verdict in verdicts:
            if texts := [row.text() for row in verdict.differing if row.kind == kind]:
                along = f"{' and '.join(verdict.pair.names)}, along {_factor(verdict)}"
                lines.append(f"{start}: {along}: {listing(texts)}.")
    return lines


def _consequences(verdicts: tuple[Verdict, ...]) -> list[str]:
    following = [[row.setting for row in verdict.differing if row.kind == "consequence"] for verdict in verdicts]
    settings = dict.fromkeys(chain(*following))
    if not settings:
        return []
    return [
        f"In {sum(map(bool, following))} of {plural(len(verdicts), 'comparison')}, other settings follow from the "
        f"factor and differ with it: {listing(settings)}. These verdicts cover both together."
    ]


def _factor(verdict: Verdict) -> str:
    return verdict.pair.factor or "all settings"


def _confound_table(verdicts: tuple[Verdict, ...]) -> tuple[Table, ...]:
    titles = {"configuration": "configuration", "against": "compared with", "factor": "compared along"}
    titles |= {"setting": "what else differs", "one": "in the first", "other": "in the second", "kind": "how"}
    rows = [
        (*verdict.pair.names, _factor(verdict), row.setting, row.one, row.other, _KINDS[row.kind])
        for verdict in verdicts
        for row in verdict.differing
    ]
    columns = tuple(Column(key, title) for key, title in titles.items())
    return (Table("What else differs", pd.DataFrame(rows, columns=list(titles)), columns),) if rows else ()
