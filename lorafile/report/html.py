"""The page: one file, every script and figure inside it, nothing that it could ask the network for."""

import json
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.display_names import readable
from lorafile.analysis.common.factors import factors, full_name, setting_labels, sweeps
from lorafile.analysis.common.format import DASH, cell
from lorafile.analysis.common.scores import LOST_WORDS
from lorafile.analysis.overview.first_screen import first_screen
from lorafile.report import content, glossary
from lorafile.report.citations import cited
from lorafile.report.embedded import TOLD, embedded, runs_by_configuration
from lorafile.report.figures_json import Spec, specifications
from lorafile.report.theme import INK
from lorafile.results.results import Results, cells, grouped, row_dicts

RELOAD_SECONDS = 5
SCRIPTS = ("page.js", "tables.js", "brush.js", "runs.js", "downloads.js")
SHOWN = 2  # sentences of a section; the others are folded away
LONG = 160  # letters; a longer name is shown in a box that scrolls
MOST = 2000  # letters of a text without one
Show = Callable[[object], Markup]


def page(results: Results, analyses: list[Analysis], specs: dict[str, Spec] | None = None, live: bool = False) -> str:
    """Return the report as one HTML document; whatever a spec or a run says appears in it as plain text.

    :param specs: the charts' specifications, where they are made already
    :param live: the study runs, and the page is written again: it reloads itself, and stays where the reader is
    """
    summary, others = content.split_summary(results, analyses)
    questions, others = content.questions(others), content.ordered(others)
    specs = specifications([summary, *others]) if specs is None else specs
    first = first_screen(results, others)
    if first is not None and first.chart is not None and not set(first.chart.charts) <= set(specs):
        specs = specs | specifications([first.chart])
    drawn = [first.chart] if first is not None and first.chart is not None and first.chart not in others else []
    tables = content.named_tables(results, [summary, *others])
    if first is not None and first.table is not None:
        tables = {"answer": first.table, **tables}
    rendered: str = _template(results, list(tables.values())).render(
        results=results,
        reload=RELOAD_SECONDS if live else 0,
        first_screen=first,
        summary=summary,
        sections=content.sections(questions, others),
        shown_first=SHOWN,
        glossary=glossary.TERMS,
        warnings=content.warnings(results, analyses),
        facts=content.facts(results),
        environments=tables.get("environments"),
        runs=tables.get("every-run"),
        blocks=_blocks(results),
        told=TOLD,
        protocol=content.PROTOCOL,
        limits=content.limits(results, analyses),
        papers=[paper.text for paper in cited(results)],
        ink=INK,
        css=Markup(_read("page.css")),  # noqa: S704 (the package's own text)
        js=Markup("\n".join(map(_read, SCRIPTS))),  # noqa: S704 (the package's own text)
        stay=Markup(_read("live.js")),  # noqa: S704 (the package's own text)
        vega=Markup(_vega()) if specs else "",  # noqa: S704 (a library's own text)
        data=_json(embedded(results, [summary, *questions, *others], specs, tables, drawn)),
    )
    return rendered


def _template(results: Results, tables: list[Table]) -> Any:
    """Return the page's template with what it calls: names linked to their runs in text, isolated in headings."""
    linked, places = isolation(results, linked=True), anchors(results)
    numbers = {id(table): at for at, table in enumerate(tables)}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_read)
    )
    environment.filters |= {"isolate": isolation(results), "linked": linked, "boxed": boxed}
    environment.filters |= {"number": lambda column: column.kind != "text", "lost": _is_lost}
    environment.globals |= {
        "cell": lambda column, row: _cell(column, row, linked),
        "differing": _differing,
        "fresh": _once(),
        "number_of": lambda table: numbers[id(table)],
        "anchor": lambda row: places.get(str(row.get("configuration")), ""),
    }
    return environment.get_template("page.html")


class _Shown(NamedTuple):
    """A table's columns as a reader sees them: (place, column) of those that differ, (title, text) of the others."""

    columns: list[tuple[int, Column]]
    same: list[tuple[str, str]]


def _differing(table: Table) -> _Shown:
    """Return which columns of a table say something: one with the same text in every row is said once below it."""
    rows, columns = row_dicts(table.frame), list(enumerate(table.columns))
    texts = {at: {cell(column, row) for row in rows} for at, column in columns}
    same = [(at, column) for at, column in columns[1:] if len(rows) > 2 and len(texts[at]) == 1]
    kept = [place for place in columns if place not in same]
    return _Shown(kept, [(column.title, text) for at, column in same if (text := texts[at].pop()) not in ("", DASH)])


def _cell(column: Column, row: dict[str, Any], names: Show) -> Markup:
    return names(cell(column, row)) if column.kind == "text" else escape(cell(column, row))


def _once() -> Callable[[str], bool]:
    """Return what says of a chart whether it is met for the first time: each is drawn in one place."""
    met: set[str] = set()

    def fresh(name: str) -> bool:
        before = name in met
        met.add(name)
        return not before

    return fresh


@cache
def _read(name: str) -> str:
    return (files("lorafile.report") / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that cannot close its own element."""
    import vl_convert

    script = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return re.sub(r"<(?=/script|script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: no `<`, and no line separators of JavaScript's own."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (every character that HTML reads is escaped above)


def _blocks(results: Results) -> list[dict[str, Any]]:
    """Return a block for each configuration: its name, what it is also called, what varies in it, and its runs."""
    runs, places = runs_by_configuration(results), anchors(results)
    labels = {str(name): setting_labels(results, str(name)) for name in factors(results)}
    also = grouped((name, own) for name, own in _sweep_names(results) if own != name)
    return [
        {
            "name": name,
            "anchor": places[name],
            "also": also.get(name, []),
            "settings": [(factor, values[name]) for factor, values in labels.items() if name in values],
            "runs": own_runs,
        }
        for name, own_runs in runs.items()
        if name in places
    ]


def _is_lost(column: Column, row: dict[str, Any]) -> bool:
    """Return whether a cell tells of runs without figures."""
    text = str(row.get(column.key))
    if column.key == "runs":
        return any(word in text for word in LOST_WORDS)
    return column.key == "outcome" and text != "done"


def _sweep_names(results: Results) -> list[tuple[str, str]]:
    """Return (configuration, name that a sweep gives it) for each member of each sweep."""
    return [
        (name, full_name(sweep, short)) for sweep, members in sweeps(results).items() for name, short in members.items()
    ]


def anchors(results: Results) -> dict[str, str]:
    """Return configuration, by each name that a sweep gives it -> the anchor of its runs: made of a number alone."""
    places = {name: f"c{at}" for at, name in enumerate(results.names)}
    for name, own in _sweep_names(results):
        places.setdefault(own, places[name])
    return places


def boxed(text: object) -> Markup:
    """Return text on its own: isolated, and in a box that scrolls where it is long."""
    box = Markup(' class="long" tabindex="0"') if len(str(text)) > LONG else Markup("")
    return Markup("<bdi{}>{}</bdi>").format(box, text)


def isolation(results: Results, linked: bool = False) -> Show:
    """Return what escapes text and isolates the names in it: a right-to-left one turns nothing else.

    :param linked: configurations are called as a reader would call them, and lead to their runs; their own name is
        told to who points at one, and terms are explained likewise
    """
    places, words = (anchors(results), readable(results)) if linked else ({}, {})
    isolated = _isolated_texts(results)
    longest_first = sorted(filter(None, isolated), key=len, reverse=True)
    if not longest_first:
        return escape
    pattern = re.compile(r"(?<!\w)(" + "|".join(re.escape(name) for name in longest_first) + r")(?!\w)")

    def named(name: str, in_address: bool = False, begins: bool = False) -> Markup:
        if name not in places:
            return boxed(name)
        kind = "run long" if len(name) > LONG else "run"
        if name in words and not in_address:
            shown = words[name][:1].upper() + words[name][1:] if begins else words[name]
            spoken = Markup('<a class="run" href="#{}" title="{}"><bdi>{}</bdi></a>')
            return spoken.format(places[name], name, shown)
        return Markup('<a class="{}" href="#{}"><bdi>{}</bdi></a>').format(kind, places[name], name)

    @cache
    def isolate(text: object) -> Markup:
        if text in isolated:
            return named(str(text))
        parts = pattern.split(str(text))
        shown = [
            named(part, _in_address(parts[at - 1], parts[at + 1]), at == 1 and not parts[0])
            if at % 2
            else _plain(part, linked)
            for at, part in enumerate(parts)
        ]
        return Markup("").join(shown)

    return isolate


def _in_address(before: str, after: str) -> bool:
    """Return whether a name is part of what a user types: quoted, or followed by a node or a seed."""
    return before.endswith(("'", '"')) or re.match(r"[:/]\w", after) is not None


def _plain(text: str, explained: bool) -> Markup:
    """Return text that stands between names; one long word without a break is no sentence, and is boxed.

    :param explained: terms have what they mean as their title
    """
    endless = len(text) > MOST or max(map(len, text.split()), default=0) > LONG
    if endless:
        return boxed(text)
    if not explained:
        return escape(text)
    term = Markup('<abbr title="{}">{}</abbr>')
    shown = [(glossary.TERMS[part] if at % 2 else "", _unbroken(part)) for at, part in enumerate(glossary.split(text))]
    return Markup("").join(term.format(meaning, part) if meaning else escape(part) for meaning, part in shown)


def _unbroken(text: str) -> str:
    """Return text whose lines do not break between a number and its percent sign."""
    return re.sub(r"(?<=\d) (?=%)", "\u00a0", text)


def _isolated_texts(results: Results) -> set[str]:
    """Return every name, and whatever else holds letters that could turn a line around."""
    names = {*results.names, str(results.study), *anchors(results), *sweeps(results)}
    foreign = {str(item) for key in ("outcome", "message") for item in cells(results.runs, key) if item is not None}
    foreign |= {claim.text for claim in results.claims}
    foreign |= {text for published in results.published for text in (published.name, published.source)}
    for factor in results.configurations.columns:
        if factor not in ("configuration", "aliases") and "method" in results.configurations.columns:
            foreign |= set(setting_labels(results, str(factor)).values())
    return names | {text for text in foreign if not text.isascii()}
