"""The page: one file, every script and figure inside it, nothing that it could ask the network for."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.factors import factors, setting_labels, sweeps
from lorafile.analysis.common.format import cell
from lorafile.analysis.common.scores import LOST_WORDS
from lorafile.report import content
from lorafile.report.citations import cited
from lorafile.report.embedded import TOLD, embedded, runs_by_configuration
from lorafile.report.figures_json import Spec, specifications
from lorafile.report.name_escaping import anchors, boxed, isolation
from lorafile.report.theme import INK
from lorafile.results.results import Results

RELOAD_SECONDS = 5
SCRIPTS = ("page.js", "tables.js", "brush.js", "runs.js", "downloads.js")


def page(results: Results, analyses: list[Analysis], specs: dict[str, Spec] | None = None, live: bool = False) -> str:
    """Return the report as one HTML document; whatever a spec or a run says appears in it as plain text.

    :param specs: the charts' specifications, where they are made already
    :param live: the study runs, and the page is written anew: it reloads itself, and stays where the reader is
    """
    summary, others = content.split_summary(results, analyses)
    questions, others = content.questions(others), content.ordered(others)
    specs = specifications([summary, *others]) if specs is None else specs
    tables = content.named_tables(results, [summary, *others])
    rendered: str = _template(results, list(tables.values())).render(
        results=results,
        reload=RELOAD_SECONDS if live else 0,
        summary=summary,
        questions=questions,
        first=content.FIRST,
        others=others,
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
        data=_json(embedded(results, [summary, *questions, *others], specs, tables)),
    )
    return rendered


def _template(results: Results, tables: list[Table]) -> Any:
    """Return the page's template with what it calls: names linked to their runs in text, isolated in headings."""
    linked, places = isolation(results, linked=True), anchors(results)
    numbers = {id(table): at for at, table in enumerate(tables)}
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    environment.filters |= {"isolate": isolation(results), "linked": linked, "boxed": boxed}
    environment.filters |= {"number": _is_number, "lost": _is_lost}
    environment.globals |= {
        "cell": lambda column, row: linked(cell(column, row)) if column.kind == "text" else escape(cell(column, row)),
        "number_of": lambda table: numbers[id(table)],
        "anchor": lambda row: places.get(str(row.get("configuration")), ""),
    }
    return environment.get_template("page.html")


@cache
def _read(name: str) -> str:
    return (files("lorafile.report") / name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that cannot close its own element."""
    import vl_convert

    return re.sub(
        r"<(?=/script|script|!--)",
        r"\\x3c",
        str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        flags=re.IGNORECASE,
    )


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
    also: dict[str, list[str]] = {name: [] for name in runs}
    for sweep, members in sweeps(results).items():
        for name, short in members.items():
            own = f"{sweep}/{short}" if sweep else short
            also[name] += [own] if own != name else []
    return [
        {
            "name": name,
            "anchor": places[name],
            "also": also[name],
            "settings": [(factor, found[name]) for factor, found in labels.items() if name in found],
            "runs": mine,
        }
        for name, mine in runs.items()
        if name in places
    ]


def _is_number(column: Column) -> bool:
    return column.kind != "text"


def _is_lost(column: Column, row: dict[str, Any]) -> bool:
    """Return whether a cell tells of runs without figures."""
    text = str(row.get(column.key))
    return (column.key == "runs" and any(word in text for word in LOST_WORDS)) or (
        column.key == "outcome" and text != "done"
    )
