"""RESULTS.md: the report for a repository, with pictures next to it and every name as plain text."""

import re
from collections.abc import Iterable

import pandas as pd

from lorafile.analysis.common.base import Analysis, Table
from lorafile.analysis.common.format import cell
from lorafile.analysis.compare.compare import verdict_table
from lorafile.analysis.compare.verdicts import family
from lorafile.analysis.overview.first_screen import first_screen
from lorafile.analysis.overview.summary import columns_of, configuration_rows
from lorafile.report import content
from lorafile.results.results import Results, row_dicts

# Kinds of analyses that verdicts, the answer and the table of configurations say already; and those of which the first
# sentence is enough.
_COVERED = ("recommend", "compare", "confounds", "trend", "pareto", "summary", "data", "question")
_BRIEF = ("effects", "noise", "rates", "tune", "cost", "curves", "truncation", "inspect", "merge")
_SAID = ("data splits", "model path", "model parameters", "model dtype", "data path", "seeds")
_LEFT_OUT = ("seconds", "adapter_bytes", "rank", "environment", "cost_environment")
_OF_VERDICTS = ("configuration", "against", "verdict", "shown", "interval", "lost", "why")
# What Markdown or a right-to-left mark would act on. An underscore inside a word is plain text already.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]+")
_MARKS = re.compile(r"([\\`*\[\]|~#$!^])|(?<!\w)_|_(?!\w)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def document(results: Results, analyses: list[Analysis]) -> str:
    """Return the report as a page for an appendix, in Markdown (GitHub's tables): pictures are `charts/<name>.png`.

    What it does not repeat stands in report.html, in `tables/` and in results.json.
    """
    summary, others = content.split_summary(results, analyses)
    others, questions = content.ordered(others), content.questions(others)
    first = first_screen(results, others)
    lines = [f"# {plain(results.title or results.study)}", ""]
    lines += [plain(results.question), ""] if results.question else []
    lines += [plain(" · ".join(first.provenance)), ""] if first is not None else []
    if warnings := content.warnings(results, analyses):
        lines += ["## Read this first", "", *_list(warnings)]
    lines += ["## Answer", "", *_list(first.sentences if first is not None else summary.sentences)]
    lines += _tables([first.table] if first is not None and first.table is not None else [])
    if first is not None and first.chart in others:
        lines += _charts(first.chart, captions=False)
    if any(
        table.ask for table in results.declared
    ):  # what the spec asks is answered; else verdicts and figures below say it
        for question in questions:
            lines += [f"### {plain(question.title)}", "", *_list(question.sentences)]
    lines += ["## Configurations", "", *_charts(summary, captions=False), *_tables(_configurations(results, summary))]
    lines += _tables(_verdicts(results))
    for analysis in others:
        lines += _section(results, analysis, drawn=first is not None and first.chart is analysis)
    facts = "; ".join(f"{fact.name}: {fact.value}" for fact in content.facts(results) if fact.name not in _SAID)
    lines += ["## Methods and limits", "", plain(facts), "", *_tables(_lost(results))]
    lines += _list([line for analysis in analyses for line in analysis.limits])
    lines += [
        "See also: tables/ (all tables), results.json (every number), references.bib (papers), report.html (the rest).",
        "",
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _configurations(results: Results, summary: Analysis) -> list[Table]:
    """Return one table of all configurations; of several studies, those that the summary has."""
    if not results.names or any("study" in table.frame.columns for table in summary.tables):
        return list(summary.tables)
    rows = list(configuration_rows(results).values())
    frame = pd.DataFrame(rows).assign(shown=[row["configuration"] for row in rows])
    told = any("of" in str(row.get("runs")).split() or "," in str(row.get("runs")) for row in rows)  # of lost runs
    left_out = _LEFT_OUT if told else (*_LEFT_OUT, "runs")
    kept = tuple(column for column in columns_of(results, frame) if column.key not in left_out)
    return [Table("", frame, kept)]


def _verdicts(results: Results) -> list[Table]:
    verdicts = list(family(results).verdicts)
    if not verdicts:
        return []
    whole = verdict_table(results, verdicts)
    return [Table("Verdicts", whole.frame, tuple(column for column in whole.columns if column.key in _OF_VERDICTS))]


def _lost(results: Results) -> list[Table]:
    """Return the runs without figures, and what became of them."""
    table = content.every_run(results)
    if table is None:
        return []
    lost = table.frame[table.frame["outcome"] != "done"]
    columns = tuple(column for column in table.columns if column.key in ("configuration", "seed", "outcome", "message"))
    return [Table("Runs without a result", lost, columns)] if len(lost) else []


def _section(results: Results, analysis: Analysis, drawn: bool) -> list[str]:
    """Return an analysis: whole where nothing above says it, else its pictures, and its first sentence.

    :param drawn: its picture stands above
    """
    whole = analysis.failed or analysis.kind not in (*_COVERED, *_BRIEF) or analysis.name.startswith("across")
    charts = [] if drawn else _charts(analysis, captions=whole)
    if whole:
        start = [f"## {plain(analysis.title)}", "", plain(analysis.question), ""]
        return [*start, *charts, *_list(analysis.sentences), *_tables(analysis.tables)]
    private = analysis.kind == "data" and any(card["private"] for card in results.card)  # a reader misses the texts
    said = analysis.sentences[:1] if analysis.kind in _BRIEF or private else []
    return [*([f"**{plain(analysis.title)}.** {plain(said[0])}", ""] if said else []), *charts]


def plain(text: object) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no links, in one line, left to right."""
    shown = _CONTROL.sub(_visible, str(text))
    shown = _MARKS.sub(lambda match: f"\\{match.group()}", shown)
    shown = re.sub(r"[&<>@]", lambda match: _ENTITIES[match.group()], shown)
    # GitHub makes links of bare addresses; an entity in them reads the same and links to nothing.
    shown = re.sub(r"(?i)(https?|ftp|mailto|xmpp):", r"\1&#58;", shown)
    shown = re.sub(r"(?i)\bwww\.", "www&#46;", shown)
    return re.sub(r"^(\s*)([-+=](?!\d)|\d+[.)](?=\s|$))", _first, shown)


def _visible(match: re.Match[str]) -> str:
    """Return white space as one space, any other control character by its code: unseen, it could turn a line around."""
    text = match.group()
    return " " if text.isspace() else "".join(" " if mark.isspace() else f"U+{ord(mark):04X}" for mark in text)


def _first(match: re.Match[str]) -> str:
    space, mark = match.groups()
    return f"{space}{mark[:-1]}\\{mark[-1]}"


def _list(lines: list[str] | tuple[str, ...]) -> list[str]:
    return [*(f"- {plain(line)}" for line in lines), ""] if lines else []


def _charts(analysis: Analysis, captions: bool = True) -> list[str]:
    lines = []
    for name in analysis.charts:
        lines += [f"![{plain(analysis.title)}](charts/{name}.png)", ""]
        if captions and (caption := analysis.captions.get(name)):
            lines += [plain(caption), ""]
    return lines


def _tables(tables: Iterable[Table]) -> list[str]:
    lines = []
    for table in tables:
        heads = [plain(column.title) for column in table.columns]
        rules = ["---" if column.kind == "text" else "---:" for column in table.columns]
        rows = [[plain(cell(column, row)) for column in table.columns] for row in row_dicts(table.frame)]
        body = [f"| {' | '.join(cells)} |" for cells in [heads, rules, *rows]]
        lines += [*([f"**{plain(table.title)}**", ""] if table.title else []), *body, ""]
    return lines
