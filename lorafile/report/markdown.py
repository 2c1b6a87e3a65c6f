"""RESULTS.md: the report for a repository, with pictures next to it and every name as plain text."""

import re
from collections.abc import Iterable

from lorafile.analysis.common.base import Analysis, Table
from lorafile.analysis.common.format import cell
from lorafile.analysis.overview.first_screen import first_screen
from lorafile.report import content
from lorafile.report.citations import cited
from lorafile.results.results import Results, row_dicts

# What Markdown or a right-to-left mark would act on. An underscore inside a word is plain text already.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]+")
_MARKS = re.compile(r"([\\`*\[\]|~#$!^])|(?<!\w)_|_(?!\w)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def document(results: Results, analyses: list[Analysis]) -> str:
    """Return the report as Markdown (GitHub's tables), pictures referred to as `charts/<name>.png`."""
    summary, others = content.split_summary(results, analyses)
    lines = [f"# {plain(results.title or results.study)}", ""]
    if results.question:
        lines += [plain(results.question), ""]
    first = first_screen(results, others)
    if first is not None:
        lines += [plain(" · ".join(first.provenance)), ""]
    if warnings := content.warnings(results, analyses):
        lines += ["## Read this first", "", *_list(warnings)]
    lines += ["## Answer", "", *_list(first.sentences if first is not None else summary.sentences)]
    if first is not None:
        lines += [*_tables([first.table] if first.table is not None else []), *_list(summary.sentences)]
    for question in content.questions(others):
        lines += [f"### {plain(question.title)}", "", *_list(question.sentences)]
    if summary.charts or summary.tables:
        lines += ["## All configurations", "", *_charts(summary), *_tables(summary.tables)]
    for analysis in content.ordered(others):
        lines += [f"## {plain(analysis.title)}", "", plain(analysis.question), "", *_charts(analysis)]
        lines += [*_list(analysis.sentences), *_tables(analysis.tables)]
    lines += ["## Methods and limits", "", *_list([f"{fact.name}: {fact.value}" for fact in content.facts(results)])]
    lines += ["### Protocol", "", *_list(content.PROTOCOL)]
    lines += _tables(filter(None, (content.environments(results), content.every_run(results))))
    lines += ["### Papers", "", *_list([paper.text for paper in cited(results)])]
    lines += ["### Limits", "", *_list(content.limits(results, analyses))]
    return "\n".join(lines).rstrip("\n") + "\n"


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


def _charts(analysis: Analysis) -> list[str]:
    lines = []
    for name in analysis.charts:
        lines += [f"![{plain(analysis.title)}](charts/{name}.png)", ""]
        if caption := analysis.captions.get(name):
            lines += [plain(caption), ""]
    return lines


def _tables(tables: Iterable[Table]) -> list[str]:
    lines = []
    for table in tables:
        heads = [plain(column.title) for column in table.columns]
        rules = ["---" if column.kind == "text" else "---:" for column in table.columns]
        rows = [[plain(cell(column, row)) for column in table.columns] for row in row_dicts(table.frame)]
        body = [f"| {' | '.join(cells)} |" for cells in [heads, rules, *rows]]
        lines += [f"**{plain(table.title)}**", "", *body, ""]
    return lines
