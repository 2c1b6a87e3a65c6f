"""Reports: a page that needs nothing but itself, RESULTS.md with pictures, and every figure as JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafile.analysis.base import Analysis
    from lorafile.results import Results

__all__ = ["figures", "write_report"]


def write_report(results: "Results", analyses: "list[Analysis]", directory: Path) -> list[Path]:
    """Write `report.html`, `RESULTS.md` and `charts/*.png` to a directory, and return their paths."""
    from lorafile.report.html import page
    from lorafile.report.markdown import document
    from lorafile.report.pictures import write_pictures

    directory.mkdir(parents=True, exist_ok=True)
    written = [directory / "report.html", directory / "RESULTS.md"]
    written[0].write_text(page(results, analyses), encoding="utf-8", newline="\n")
    written[1].write_text(document(results, analyses), encoding="utf-8", newline="\n")
    return written + write_pictures(analyses, directory / "charts")


def figures(results: "Results", analyses: "list[Analysis]") -> dict[str, Any]:
    """Return every figure that the page shows, as JSON-able values: what is missing is null, never NaN."""
    from lorafile.report.numbers import as_json

    return as_json(results, analyses)
