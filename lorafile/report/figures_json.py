"""Results and analyses as JSON: every figure of the page, in base units, under a format version."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorafile.analysis.common.base import Analysis, Table
from lorafile.analysis.common.format import missing
from lorafile.report.interim_looks import looks
from lorafile.results.results import Results

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = "1.0"

Spec = dict[str, Any]  # a chart in Vega-Lite


def as_json(results: Results, analyses: list[Analysis], specs: dict[str, Spec] | None = None) -> dict[str, Any]:
    """Return the report's figures; bytes, seconds and shares of one, as in `Results`.

    :param specs: the charts' specifications, where they are made already
    """
    from lorafile.analysis.claims.claims import as_json as claims_as_json
    from lorafile.analysis.claims.claims import check

    specs = specifications(analyses) if specs is None else specs
    return {
        "format_version": FORMAT_VERSION,
        "study": results.study,
        "title": results.title,
        "question": results.question,
        "primary": results.primary,
        "metrics": list(results.metrics),
        "seeds": [int(seed) for seed in results.seeds],
        "looks": looks(results),
        "warnings": [str(warning) for warning in results.warnings],
        "model": plain(results.model),
        "data": plain(results.data),
        "environments": plain(results.environments),
        "configurations": records(results.configurations),
        "runs": records(results.runs),
        "profiles": records(results.profiles),
        "candidates": records(results.candidates),
        "claims": claims_as_json(check(results)),
        "analyses": [_analysis(analysis, specs) for analysis in analyses],
    }


def _analysis(analysis: Analysis, specs: dict[str, Spec]) -> dict[str, Any]:
    return {
        "kind": analysis.kind,
        "name": analysis.name,
        "title": analysis.title,
        "question": analysis.question,
        "sentences": list(analysis.sentences),
        "tables": [_table(table) for table in analysis.tables],
        "charts": {name: _chart(specs[name], analysis.captions.get(name, "")) for name in analysis.charts},
    }


def _table(table: Table) -> dict[str, Any]:
    columns = [
        {
            "key": column.key,
            "title": column.title,
            "kind": column.kind,
            "spread": column.spread or None,
            "n": column.n or None,
        }
        for column in table.columns
    ]
    return {"title": table.title, "columns": columns, "rows": records(table.frame)}


def _chart(spec: Spec, caption: str) -> dict[str, Any]:
    return {
        "description": spec.get("description", ""),
        "caption": caption,
        "data": list(spec.get("datasets", {}).values()),
    }


def specifications(analyses: list[Analysis]) -> dict[str, Spec]:
    """Return name of a chart -> its specification; making one takes longer than most of what is done with it."""
    return {name: specification(chart) for analysis in analyses for name, chart in analysis.charts.items()}


def specification(chart: Any) -> Spec:
    """Return a chart's Vega-Lite specification with all of its data inside, and no NaN."""
    import altair as alt

    with alt.data_transformers.disable_max_rows():
        found: Spec = plain(chart.to_dict())
    return found


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a table's rows as JSON-able values."""
    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numpy's numbers as Python's, NaN and infinity as null, paths as text."""
    if missing(value):
        return None
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    return str(value)
