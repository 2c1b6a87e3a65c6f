"""Reports: a page that needs nothing but itself, RESULTS.md with pictures, and every figure as JSON and CSV."""

import json
from pathlib import Path
from typing import Any

from lorafile.analysis.common.base import Analysis, Table
from lorafile.files.atomic import ignore_in_git, make_directory, replace_file, write_text
from lorafile.report.theme import config
from lorafile.results.results import Results

__all__ = ["figures", "write_page", "write_report"]
SCALE = 2  # pixels for each pixel of the chart: sharp on dense screens and on paper


def write_report(results: Results, analyses: list[Analysis], directory: Path) -> list[Path]:
    """Write the page, RESULTS.md, results.json, a table and the papers for LaTeX, `tables/*.csv` and `charts/*`."""
    from lorafile.report.citations import references_bib
    from lorafile.report.content import named_tables, split_summary
    from lorafile.report.figures_json import as_json, specifications
    from lorafile.report.html import page
    from lorafile.report.latex import table_of_results
    from lorafile.report.markdown import document

    summary, others = split_summary(results, analyses)
    specs = specifications([summary, *others])
    texts = {
        "report.html": page(results, analyses, specs),
        "RESULTS.md": document(results, analyses),
        "results.json": json.dumps(as_json(results, analyses, specs), indent=1, allow_nan=False) + "\n",
        "results.tex": table_of_results(results),
        "references.bib": references_bib(results),
    }
    make_directory(directory)
    ignore_in_git(directory)
    written = [directory / name for name in texts]
    for file, text in zip(written, texts.values(), strict=True):
        write_text(file, text)
    written += _write_tables(named_tables(results, [summary, *others]), directory / "tables")
    return written + write_pictures(specs, directory / "charts")


def write_page(results: Results, analyses: list[Analysis], directory: Path, live: bool) -> Path:
    """Write the page alone.

    :param live: it is written again and again while the study runs, so that it reloads itself
    """
    from lorafile.report.html import page

    make_directory(directory)
    ignore_in_git(directory)
    write_text(directory / "report.html", page(results, analyses, live=live))
    return directory / "report.html"


def _write_tables(tables: dict[str, Table], directory: Path) -> list[Path]:
    written = []
    for name, table in tables.items():
        make_directory(directory)
        written.append(directory / f"{name}.csv")
        with replace_file(written[-1]) as new:
            table.frame.to_csv(new, index=False, lineterminator="\r\n", encoding="utf-8")
    return written


def figures(results: Results, analyses: list[Analysis]) -> dict[str, Any]:
    """Return every figure that the page shows, as JSON-able values: what is missing is null, never NaN."""
    from lorafile.report.figures_json import as_json

    return as_json(results, analyses)


def write_pictures(specs: dict[str, dict[str, Any]], directory: Path) -> list[Path]:
    """Write each chart as `<name>.png`, `.svg` and `.vl.json`, in the light theme, and return the paths.

    :param specs: name of a chart -> its specification
    """
    if not specs:
        return []
    import vl_convert

    make_directory(directory)
    written = []
    for name, spec in specs.items():
        text = json.dumps(spec | {"config": config("light")}, allow_nan=False, indent=1)
        # An empty list of allowed addresses: a picture is made from its own data alone.
        drawn = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
        png = vl_convert.svg_to_png(drawn, scale=SCALE)
        for ending, content in (("png", png), ("svg", drawn.encode()), ("vl.json", f"{text}\n".encode())):
            written.append(directory / f"{name}.{ending}")
            with replace_file(written[-1]) as new:
                new.write_bytes(content)
    return written
