"""Results and analyses as JSON: every figure of the page, in base units, under a format version."""

from typing import TYPE_CHECKING, Any

from lorafile.analysis.common.base import Analysis, Table, plain, specification
from lorafile.analysis.common.format import level
from lorafile.results.results import Results, rows_of
from lorafile.statistics.deciding import shares
from lorafile.units import listing

if TYPE_CHECKING:
    import pandas as pd


FORMAT_VERSION = "1.0"

Spec = dict[str, Any]  # a chart in Vega-Lite
_NOTHING = 1e-12  # of alpha


def as_json(results: Results, analyses: list[Analysis], specs: dict[str, Spec] | None = None) -> dict[str, Any]:
    """Return the report's figures; bytes, seconds and shares of one, as in `Results`.

    :param specs: the charts' specifications, where they are made already
    """
    from lorafile.analysis.claims.claims import as_json as claims_as_json
    from lorafile.analysis.claims.claims import check

    specs = specifications(analyses) if specs is None else specs
    return {
        "format_version": FORMAT_VERSION,
        **{key: getattr(results, key) for key in ("study", "title", "question", "primary")},
        "metrics": list(results.metrics),
        "seeds": [int(seed) for seed in results.seeds],
        "looks": looks(results),
        "warnings": [str(warning) for warning in results.warnings],
        "model": plain(results.model),
        "data": plain(results.data),
        "environments": plain(results.environments),
        **{key: records(getattr(results, key)) for key in ("configurations", "runs", "profiles", "candidates")},
        "claims": claims_as_json(check(results)),
        "analyses": [_analysis(analysis, specs) for analysis in analyses],
    }


def _analysis(analysis: Analysis, specs: dict[str, Spec]) -> dict[str, Any]:
    return {
        **{key: getattr(analysis, key) for key in ("kind", "name", "title", "question")},
        "sentences": list(analysis.sentences),
        "tables": [
            {"title": table.title, "columns": column_records(table), "rows": records(table.frame)}
            for table in analysis.tables
        ],
        "charts": {
            name: {
                "description": specs[name].get("description", ""),
                "caption": analysis.captions.get(name, ""),
                "data": list(specs[name].get("datasets", {}).values()),
            }
            for name in analysis.charts
        },
    }


def column_records(table: Table) -> list[dict[str, Any]]:
    """Return the columns that a reader sees as JSON-able values."""
    return [
        {"key": c.key, "title": c.title, "kind": c.kind, "spread": c.spread or None, "n": c.n or None}
        for c in table.columns
    ]


def specifications(analyses: list[Analysis]) -> dict[str, Spec]:
    """Return name of a chart -> its specification; making one takes longer than most of what is done with it."""
    return {name: specification(chart) for analysis in analyses for name, chart in analysis.charts.items()}


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a table's rows as JSON-able values."""
    return [plain(row) for row in frame.to_dict("records")]


def look_lines(results: Results) -> list[tuple[str, str]]:
    """Return (name, value) for the first look and for each stage that is one, and what is kept for later ones."""
    rows = looks(results)
    if not rows:
        return []
    total, kept = results.verdict.alpha, results.verdict.alpha - sum(row["alpha"] for row in rows)
    lines = []
    for number, row in enumerate(rows):
        seeds = f"seeds {listing(map(str, row['seeds']), 20)} of {listing(row['configurations'])}; " if number else ""
        tested = " for what was still open" if number else ""
        dated = f"; last run started on {row['until']}" if row["until"] else ""
        name = f"stage {number}" if number else "first look"
        lines.append((name, f"{seeds}tested at {level(row['alpha'])}{tested}{dated}"))
    left = f"{level(kept)} is kept for stages" if kept > _NOTHING else "none is kept for stages"
    return [*lines, ("alpha", f"{level(total)} over all comparisons and looks, of which {left}")]


def looks(results: Results) -> list[dict[str, Any]]:
    """Return `seeds`, `configurations`, `alpha` (a share of one) and `until` (a date, or empty) of each look."""
    spent = shares(results.verdict.alpha, results.verdict.keep, len(results.looks))
    dates = results.look_dates or ("",) * len(results.looks)
    pairs = list(rows_of(results.runs, "configuration", "seed"))
    return [
        {
            "seeds": [int(seed) for seed in seeds],
            "configurations": list(dict.fromkeys(str(name) for name, seed in pairs if seed in seeds)),
            "alpha": alpha,
            "until": until,
        }
        for seeds, alpha, until in zip(results.looks, spent, dates, strict=True)
    ]
