"""Several studies side by side: every configuration in one table, and verdicts across studies where they can be had.

Two configurations of different studies are compared where their figures were measured on the same: model, held-out
examples, metric, and the way that answers are drawn. What was measured on other examples is shown next to it and not
tested.
"""

from itertools import combinations, product
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import measured, metric_name, on, sentence_case
from lorafile.analysis.common.scores import averages, best, completeness, scores, split_of
from lorafile.analysis.compare.compare import ordered, verdict_table, with_verdict_chart
from lorafile.analysis.compare.pairs import Pair
from lorafile.analysis.compare.verdict_text import sentence
from lorafile.analysis.compare.verdicts import Verdict, judge
from lorafile.analysis.multi_study.union import StudyUnion, UnionEntry
from lorafile.analysis.overview.chart import overview
from lorafile.analysis.overview.summary import columns_of, configuration_rows
from lorafile.analysis.tradeoffs import pareto
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

_SHOWN = 200  # comparisons: more would make no page, and no family with any power


def across(union: StudyUnion, waive: tuple[str, ...] = ()) -> list[Analysis]:
    """Return the page's analyses: everything in one table, the comparisons across studies, and the frontiers.

    :param waive: settings that may differ apart from the compared one: those that every study waives
    """
    groups = [(entries, union.of(entries)) for entries in union.groups()]
    analyses = [_summary(union, groups)]
    suffixes = [f"-{number + 1}" if number else "" for number in range(len(groups))]
    for (entries, results), suffix in zip(groups, suffixes, strict=True):
        analyses += _compared(union, entries, results, waive, suffix)
    for (_, results), suffix in zip(groups, suffixes, strict=True):  # whose quality is comparable
        frontiers = pareto.analyse(results, AnalysisTable(kind="pareto"))
        analyses += [frontier.renamed(f"{frontier.name}{suffix}") for frontier in frontiers]
    return analyses


def _summary(union: StudyUnion, groups: list[tuple[list[UnionEntry], Results]]) -> Analysis:
    """Return every configuration of every study, what they share, and what keeps studies apart."""
    results = union.results
    split = split_of(results, results.primary)
    lines = completeness(results)
    for number, study in enumerate(union.studies):
        names = [entry.name for entry in union.entries if number in entry.studies]
        lines.append(_best_of(results, study, names, split))
    shared = [" = ".join(entry.all_names) for entry in union.entries if len(entry.all_names) > 1]
    if shared:
        appear, listed = ("appears", "is listed") if len(shared) == 1 else ("appear", "are listed")
        lines.append(
            f"{plural(len(shared), 'configuration')} {appear} in more than one study and {listed} here once: "
            f"{listing(shared)}."
        )
    lines += _apart(union, groups)
    summary = Analysis("summary", "summary", "Summary", results.question, lines, (_table(union, groups),))
    for number, (_, own) in enumerate(groups):  # a chart for each group, whose figures share an axis
        if averages(own, f"{split_of(own, own.primary)}.{own.primary}"):
            name = f"summary-{number + 1}" if number else "summary"
            group = f"Comparable within {_letter(number)}. " if len(groups) > 1 else ""
            chart, caption = overview(own, own.primary)
            summary = summary.with_chart(chart, group + caption, name)
    return summary


def _best_of(results: Results, study: str, among: list[str], split: str) -> str:
    """Return a study's best trained configuration, chosen on validation where there is one."""
    trained = [name for name in among if results.methods[name] != "none"]
    chosen = best(results, trained)
    metric = results.primary
    if chosen is None:
        return f"{study} has no trained configuration with a result for {metric_name(metric)} yet."
    here, on_validation = (scores(results, f"{name}.{metric}")[chosen] for name in (split, "validation"))
    text = f"Best of {study} in {on(metric, 'validation' if on_validation.known else split)}: {chosen}"
    return f"{text}; on {split} it scores {measured(metric, here)}." if here.known else f"{text}."


def _apart(union: StudyUnion, groups: list[tuple[list[UnionEntry], Results]]) -> list[str]:
    """Say which configurations are never tested against each other, and why."""
    lines = []
    for (one, _), (other, _) in combinations(groups, 2):
        names = dict.fromkeys([*one[0].measured_on, *other[0].measured_on])
        what = [name for name in names if one[0].measured_on.get(name) != other[0].measured_on.get(name)]
        why = f"they do not share {listing([n if n.startswith('the ') else f'the setting {n}' for n in what])}"
        if not (one[0].measured_on and other[0].measured_on):
            why = "they have no results on the same split"
        both = f"{_those(union, one)} and {_those(union, other)}"
        lines.append(f"{sentence_case(both)} are shown side by side but not tested: {why}.")
    return lines


def _those(union: StudyUnion, entries: list[UnionEntry]) -> str:
    """Return what a group is made of: whole studies, or some configurations' names."""
    group = {entry.name for entry in entries}
    members = [{entry.name for entry in union.entries if at in entry.studies} for at in range(len(union.studies))]
    whole = [study for study, names in zip(union.studies, members, strict=True) if names <= group]
    if set().union(*(names for names in members if names <= group)) == group:
        return f"all configurations of {listing(whole)}"
    return listing([entry.name for entry in entries], 4)


def _table(union: StudyUnion, groups: list[tuple[list[UnionEntry], Results]]) -> Table:
    """Return one row for each configuration, under each of its names."""
    rows = configuration_rows(union.results)
    letters = {entry.name: _letter(at) for at, (entries, _) in enumerate(groups) for entry in entries}
    shown: list[dict[str, Any]] = [
        rows[entry.name] | {"shown": " = ".join(entry.all_names), "group": letters[entry.name]}
        for entry in union.entries
    ]
    columns = list(columns_of(union.results, pd.DataFrame(shown)))
    if len(groups) > 1:
        columns.insert(1, Column("group", "comparable within"))
    return Table("Every configuration of every study", pd.DataFrame(shown), tuple(columns))


def _letter(number: int) -> str:
    """Return A, B, … for a group; beyond Z its number."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _compared(
    union: StudyUnion, entries: list[UnionEntry], results: Results, waive: tuple[str, ...], suffix: str
) -> list[Analysis]:
    """Return the comparisons across studies within one group; nothing where it holds one study alone."""
    if all(a.studies & b.studies for a, b in combinations(entries, 2)):
        return []
    metric = results.primary
    wanted = pairs_across(union, entries, results, waive)
    verdicts = list(judge(results, metric, split_of(results, metric), wanted[:_SHOWN]))
    question = f"Which differences in {metric_name(metric)} between the studies are real?"
    lines = [*_head(verdicts, len(wanted)), *(sentence(results, verdict) for verdict in ordered(verdicts))]
    tables = (verdict_table(results, verdicts),) if verdicts else ()
    analysis = Analysis("compare", f"across{suffix}", "Compared across studies", question, lines, tables)
    return [with_verdict_chart(results, analysis, verdicts, "across studies")]


def pairs_across(
    union: StudyUnion, entries: list[UnionEntry], results: Results, waive: tuple[str, ...] = ()
) -> list[Pair]:
    """Return what is compared: the studies' best, and whatever differs between them in one setting alone.

    The best are chosen on validation, so where there is none they are not compared: test examples that choose cannot
    judge. Configurations of two methods share few settings; of those only the best are compared.
    """
    pairs: dict[frozenset[str], Pair] = {}
    chosen = _best_on_validation(union, entries, results)
    for one, other in combinations(chosen, 2):
        if not one.studies & other.studies:
            factor = _one_setting(one, other) or ""
            pairs[frozenset((one.name, other.name))] = Pair(other.name, one.name, factor, waive=waive)
    for one, other in product(entries, entries):
        if min(one.studies) < min(other.studies) and not one.studies & other.studies:
            alone = _one_setting(one, other)
            if alone is not None and alone != "method":
                pair = Pair(other.name, one.name, alone, waive=waive)
                pairs.setdefault(frozenset((one.name, other.name)), pair)
    return list(pairs.values())


def _best_on_validation(union: StudyUnion, entries: list[UnionEntry], results: Results) -> list[UnionEntry]:
    """Return each study's best trained configuration, in the studies' order; none where test would choose."""
    by_name = scores(results, f"validation.{results.primary}")
    if split_of(results, results.primary) != "test":
        return []
    chosen = []
    for number in range(len(union.studies)):
        own = {entry.name: entry for entry in entries if number in entry.studies and by_name[entry.name].known}
        name = best(results, [name for name in own if results.methods[name] != "none"])
        chosen += [own[name]] if name else []
    return list(dict.fromkeys(chosen))


def _one_setting(one: UnionEntry, other: UnionEntry) -> str | None:
    """Return the one setting in which two configurations differ; None where there are more, or none."""
    names = one.settings.keys() | other.settings.keys()
    differing = [name for name in names if one.settings.get(name) != other.settings.get(name)]
    if "method" in differing:
        return "method"
    return differing[0] if len(differing) == 1 else None


def _head(verdicts: list[Verdict], wanted: int) -> list[str]:
    """Return what is compared and how it is judged, before the verdicts."""
    if not verdicts:
        return [
            "Nothing is tested across the studies: no two of their configurations differ in only one setting, and "
            "their best configurations are identical or were chosen on the examples that the test would need."
        ]
    line = (
        f"{plural(len(verdicts), 'comparison')} across the studies: their best configurations, chosen on validation, "
        "and those that differ in only one setting. They form one family, separate from each study's own report."
    )
    return [line, *([f"{wanted - _SHOWN} more are not shown."] if wanted > _SHOWN else [])]
