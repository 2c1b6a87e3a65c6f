"""Is a configuration better than another: every declared comparison with its interval, judged as one family."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import level, metric_name, on, probability, slug
from lorafile.analysis.common.scores import split_of
from lorafile.analysis.compare.outcomes import compared_as
from lorafile.analysis.compare.pairs import Pair, pairs
from lorafile.analysis.compare.verdict_text import (
    levels,
    look_name,
    own_variances,
    sentence,
    signed,
    signed_difference,
    size,
)
from lorafile.analysis.compare.verdicts import DECIDED, Verdict, family, judge
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

WORDS = {"none": "without a verdict", "refused": "not compared"}
ORDER = (*DECIDED, "inconclusive", "none", "refused")
_KINDS = {
    "confound": "set beside the factor: not compared",
    "waived": "set beside the factor: waived",
    "consequence": "follows from the factor",
}


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return one analysis for each factor that is compared along; nothing where nothing is comparable."""
    metric, wanted = table.metric or results.primary, pairs(results, table)
    found = judged(results, metric, wanted)
    along: dict[str, list[Verdict]] = {}
    for verdict in found:
        along.setdefault(verdict.pair.factor, []).append(verdict)
    return [_analysis(results, table, metric, factor, mine) for factor, mine in along.items()]


def judged(results: Results, metric: str, wanted: list[Pair]) -> list[Verdict]:
    """Return the verdicts on some pairs: the study's family for its primary metric, else a family of their own."""
    if compared_as(metric) != compared_as(results.primary):
        return list(judge(results, metric, split_of(results, metric), wanted))
    known = [(pair, family(results).of(pair.one, pair.other)) for pair in wanted]
    return [verdict for _, verdict in known if verdict is not None]


def _analysis(results: Results, table: AnalysisTable, metric: str, factor: str, found: list[Verdict]) -> Analysis:
    exploratory = compared_as(metric) != compared_as(results.primary)
    about = factor or "all configurations"
    name = slug("compare", table.name or "", factor or "all", metric if exploratory else "")
    title = f"Compared along {about}{' (exploratory)' if exploratory else ''}"
    lines = [*_head(results, found, exploratory), *(sentence(results, verdict) for verdict in ordered(found))]
    question = f"Which differences in {metric_name(metric)} are real?"
    return with_verdict_chart(Analysis("compare", name, title, question, lines, (verdict_table(found),)), found, about)


def with_verdict_chart(made: Analysis, found: list[Verdict], about: str) -> Analysis:
    """Return an analysis of verdicts with their chart, where any of them was tested."""
    if not any(verdict.decision is not None for verdict in found):
        return made
    from lorafile.analysis.compare.chart import caption, chart

    return made.with_chart(chart(found, about, more_is_better(compared_as(found[0].metric))), caption(found))


def ordered(found: list[Verdict]) -> list[Verdict]:
    """Return verdicts, what could not be compared first, then the decided ones."""
    return sorted(found, key=lambda verdict: (verdict.word in DECIDED, verdict.word != "refused"))


def _head(results: Results, found: list[Verdict], exploratory: bool) -> list[str]:
    """Return what holds for all of the verdicts."""
    counts = {word: sum(verdict.word == word for verdict in found) for word in ORDER}
    told = ", ".join(f"{count} {WORDS.get(word, word)}" for word, count in counts.items() if count)
    whole = [verdict for verdict in family(results).verdicts if verdict.decision is not None]
    tested = found if exploratory else whole
    line = f"{plural(len(found), 'comparison')}: {told}."
    if exploratory:
        line += " This is not the study's primary metric: the verdicts are exploratory."
    elif len(tested) > 1 and not isnan(tested[0].alpha):
        line += f" All {len(tested)} comparisons of the study are one family (Holm, {levels(tested)})."
    return [line, *own_variances(found)]


def verdict_table(found: list[Verdict]) -> Table:
    """Return verdicts as a table: difference, intervals, probabilities, margin, seeds and examples."""
    metric, split = compared_as(found[0].metric), found[0].split
    columns = (
        Column("configuration", "configuration"),
        Column("against", "held against"),
        Column("verdict", "verdict"),
        Column("shown", f"difference in {on(metric, split)}"),
        Column("interval", "95 % interval"),
        Column("simultaneous", "interval for all at once"),
        Column("p", "p (Holm)"),
        Column("margin", "margin"),
        Column("tested", "last tested"),
        Column("size", "seeds × examples"),
        Column("beside", "what else differs"),
    )
    frame = pd.DataFrame([_row(verdict) for verdict in found])
    several = any(verdict.look for verdict in found)
    frame["tested"] = [
        f"{look_name(verdict.look)}, {level(verdict.alpha)}" if several and verdict.decision is not None else ""
        for verdict in found
    ]
    known = [column for column in columns if column.key == "verdict" or any(frame[column.key] != "")]
    return Table("Verdicts", frame, tuple(known))


def _row(verdict: Verdict) -> dict[str, Any]:
    estimate, decision, metric = verdict.estimate, verdict.decision, compared_as(verdict.metric)
    beside = ", ".join(f"{row.text()} ({row.kind})" for row in verdict.differing)
    row: dict[str, Any] = {"configuration": verdict.pair.one, "against": verdict.pair.other}
    row |= {"factor": verdict.pair.factor, "verdict": WORDS.get(verdict.word, verdict.word), "why": verdict.why}
    row["beside"] = beside
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
        row |= {"interval": f"{signed(metric, low)} to {signed(metric, high)}"}
        row |= {
            "simultaneous": f"{signed(metric, least)} to {signed(metric, most)}",
            "p": probability(decision.p).removeprefix("= "),
        }
    return row


def confounds(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what differs in each comparison of the study's family; nothing where there are no comparisons."""
    found = family(results).verdicts
    if not found:
        return []
    question = "Does anything but the setting in question differ between what is compared?"
    lines, limits = _confound_sentences(found), tuple(_set_beside(found))
    return [
        Analysis("confounds", "confounds", "What else differs", question, lines, _confound_table(found), limits=limits)
    ]


def _set_beside(found: tuple[Verdict, ...]) -> list[str]:
    """Say what was set beside the factor: what was not compared for it, and what was waived."""
    lines = []
    for kind, start in (("confound", "Not compared"), ("waived", "Compared although something else differs")):
        told = [(verdict, [row.text() for row in verdict.differing if row.kind == kind]) for verdict in found]
        lines += [
            f"{start}: {verdict.pair.one} and {verdict.pair.other}, along {_factor(verdict)}: {listing(texts)}."
            for verdict, texts in told
            if texts
        ]
    return lines


def _confound_sentences(found: tuple[Verdict, ...]) -> list[str]:
    lines = _set_beside(found)
    following = [verdict for verdict in found if any(row.kind == "consequence" for row in verdict.differing)]
    settings = dict.fromkeys(row.setting for v in following for row in v.differing if row.kind == "consequence")
    if following:
        lines.append(
            f"In {len(following)} of {plural(len(found), 'comparison')} something follows from the factor and differs "
            f"with it: {listing(settings)}; the verdicts are on both together."
        )
    return lines or [f"Nothing but the factor differs in any of {plural(len(found), 'comparison')}."]


def _factor(verdict: Verdict) -> str:
    return verdict.pair.factor or "all settings"


def _confound_table(found: tuple[Verdict, ...]) -> tuple[Table, ...]:
    rows = [
        {
            "configuration": verdict.pair.one,
            "against": verdict.pair.other,
            "factor": _factor(verdict),
            "setting": row.setting,
            "one": row.one,
            "other": row.other,
            "kind": _KINDS[row.kind],
        }
        for verdict in found
        for row in verdict.differing
    ]
    titles = {"configuration": "configuration", "against": "held against", "factor": "compared along"}
    titles |= {"setting": "what else differs", "one": "in the first", "other": "in the second", "kind": "how"}
    columns = tuple(Column(key, title) for key, title in titles.items())
    return (Table("Beside the factor", pd.DataFrame(rows), columns),) if rows else ()
