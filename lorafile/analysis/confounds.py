"""To be written."""

from typing import TYPE_CHECKING

from lorafile.analysis.base import Analysis

if TYPE_CHECKING:
    from lorafile.results import Results
    from lorafile.specs.analysis_settings import AnalysisTable


def analyse(results: "Results", table: "AnalysisTable") -> list[Analysis]:
    """Return nothing yet."""
    return []
