"""The page: one file, every script and figure inside it, nothing that it could ask the network for."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from lorafile.analysis.select import LOST_WORDS, cells, names, setting_labels, sweeps
from lorafile.analysis.text import cell, missing
from lorafile.report import content
from lorafile.report.numbers import specification
from lorafile.report.theme import INK, config

if TYPE_CHECKING:
    from lorafile.analysis.base import Analysis, Column
    from lorafile.results import Results


def page(results: "Results", analyses: "list[Analysis]") -> str:
    """Return the report as one HTML document; whatever a spec or a run says appears in it as plain text."""
    summary, others = content.split_summary(results, analyses)
    charts = {name: _on_page(chart) for analysis in [summary, *others] for name, chart in analysis.charts.items()}
    isolate = _isolation(results)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"isolate": isolate, "number": _is_number, "lost": _is_lost}
    environment.globals |= {"cell": lambda column, row: _cell(column, row, isolate)}
    return environment.from_string(_read("page.html")).render(
        results=results,
        summary=summary,
        others=others,
        warnings=content.warnings(results, analyses),
        facts=content.facts(results),
        environments=content.environments(results),
        runs=content.every_run(results),
        protocol=content.PROTOCOL,
        limits=content.LIMITS,
        ink=INK,
        css=Markup(_read("page.css")),  # noqa: S704 (the package's own text)
        js=Markup(_read("page.js")),  # noqa: S704 (the package's own text)
        vega=Markup(_vega()) if charts else "",  # noqa: S704 (a library's own text)
        data=_embedded({"charts": charts, "light": config("light"), "dark": config("dark")}),
    )


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


def _on_page(chart: Any) -> dict[str, Any]:
    """Return a chart for the page, which has the title as a heading, and needs no address of a schema."""
    return {key: item for key, item in specification(chart).items() if key not in ("$schema", "title", "config")}


def _embedded(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: no `<`, and no line separators of JavaScript's own."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (every character that HTML reads is escaped above)


def _is_number(column: "Column") -> bool:
    return column.kind != "text"


def _is_lost(column: "Column", row: dict[str, Any]) -> bool:
    """Return whether a cell tells of runs without figures."""
    text = str(row.get(column.key))
    return (column.key == "runs" and any(word in text for word in LOST_WORDS)) or (
        column.key == "outcome" and text != "done"
    )


def _cell(column: "Column", row: dict[str, Any], isolate: Any) -> Markup:
    text = cell(column, row)
    return isolate(text) if column.kind == "text" else escape(text)


def _isolation(results: "Results") -> Any:
    """Return a filter that escapes text and isolates the names in it: a right-to-left one turns nothing else."""
    known = set(names(results)) | {str(results.study)}
    for sweep, members in sweeps(results).items():
        known |= {sweep, *(f"{sweep}/{label}" for label in members.values())}
    foreign = {
        str(item) for column in ("outcome", "message") for item in cells(results.runs, column) if not missing(item)
    }
    for factor in results.configurations.columns:
        if factor not in ("configuration", "aliases") and "method" in results.configurations.columns:
            foreign |= set(setting_labels(results, str(factor)).values())
    known |= {text for text in foreign if not text.isascii()}
    longest_first = sorted((name for name in known if name), key=len, reverse=True)
    if not longest_first:
        return lambda text: escape(str(text))
    pattern = re.compile(r"(?<!\w)(" + "|".join(re.escape(name) for name in longest_first) + r")(?!\w)")

    def isolate(text: object) -> Markup:
        parts = pattern.split(str(text))
        return Markup("").join(
            Markup("<bdi>{}</bdi>").format(part) if at % 2 else part for at, part in enumerate(parts)
        )

    return isolate
