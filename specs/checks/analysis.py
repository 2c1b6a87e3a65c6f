"""The checks of what a spec asks: settings that their kind does not read, names that point at nothing, margins."""

from operator import attrgetter
from typing import Any, get_args

from lorafile.specs.checks.sweeps import SWEEP_SETTINGS
from lorafile.specs.configurations import flatten, inner_tables
from lorafile.specs.error_messages import Problems, show, suggestion
from lorafile.specs.positions import Path
from lorafile.specs.tables.analysis import (
    MARGINED,
    NEEDS,
    PROFILED,
    QUALITIES,
    READS,
    AnalysisTable,
    ExpectedTable,
    VerdictTable,
)
from lorafile.specs.tables.evaluate import MetricName, is_metric_file
from lorafile.specs.tables.settings import SpecTables

LOST = ("diverged", "out-of-memory")  # runs that a claim may be made without
WAIVED = ("environment", "imported", "trainer_checks", *LOST)  # what may be waived in addition to settings
_ALWAYS = ("kind", "ask", "name")
WITHOUT_POINTS = (
    "log_loss",
    "perplexity",
    "bits_per_byte",
    "matthews_correlation",
    "pearson",
    "spearman",
    "mse",
)


def check_analyses(tables: SpecTables, raw: dict[str, Any], problems: Problems) -> None:
    """Check the `[[analysis]]` tables as they stand in the document, and the margin of `[verdict]`."""
    varied = varied_settings(raw)
    metrics = tables.evaluate.metrics
    primary = tables.evaluate.primary or metrics[0]
    for index, block in inner_tables(raw, "analysis"):
        path: Path = ("analysis", index)
        _check_kind(block, path, problems)
        _check_need(block.get("kind"), tables, path, problems)
        _check_names(block, varied, metrics, path, problems)
        _check_measured(block, tables.profile.enabled, path, problems)
        _check_waivers(block.get("waive"), varied, (*path, "waive"), problems)
        check_margin(block.get("margin"), block.get("metric") or primary, (*path, "margin"), problems)
    check_margin(tables.verdict.margin, primary, ("verdict", "margin"), problems)
    for place, deviation in expected_deviations(tables.verdict):
        check_margin(deviation, primary, place, problems)
    _check_waivers(tables.verdict.waive, varied, ("verdict", "waive"), problems)


def expected_deviations(verdict: VerdictTable) -> list[tuple[Path, Any]]:
    """Return every standard deviation that the spec expects, with where it stands."""
    expected, place = verdict.expect_sd, ("verdict", "expect_sd")
    if isinstance(expected, ExpectedTable):
        return [((*place, "runs"), expected.runs), ((*place, "examples"), expected.examples)]
    return [(place, expected)]


def _check_kind(block: dict[str, Any], path: Path, problems: Problems) -> None:
    kind = block.get("kind")
    if (kind is None) == (block.get("ask") is None):
        mistake = "sets both kind and ask; keep one" if kind else 'is empty; write kind = "compare", or ask = "rank"'
        problems.add((*path, "ask") if kind else path, mistake)
        return
    reads = READS.get(kind, ()) if isinstance(kind, str) else MARGINED
    for setting in block:
        if setting in AnalysisTable.model_fields and setting not in (*_ALWAYS, *reads):
            readers = ", ".join(reader for reader, settings in READS.items() if setting in settings)
            question = kind or "a question asked by name"
            problems.add((*path, setting), f"applies to {readers}, not to {question}")


def _check_need(kind: Any, tables: SpecTables, path: Path, problems: Problems) -> None:
    """Refuse a kind whose results would never be measured: its part of the report would be empty."""
    need = NEEDS.get(kind) if isinstance(kind, str) else None
    if need and not attrgetter(need)(tables):
        missing = need if "." in need else f"the table [{need}]"
        problems.add((*path, "kind"), f'"{kind}" has nothing to show without {missing}; add it, or omit the analysis')


def _check_names(block: dict[str, Any], varied: list[str], metrics: list[str], path: Path, problems: Problems) -> None:
    what_varies = f"; settings that vary: {', '.join(varied) or 'nothing'}"
    for setting in ("factor", "by"):
        factor = block.get(setting)
        if isinstance(factor, str) and factor not in (*varied, *(QUALITIES if setting == "factor" else ())):
            close = suggestion(factor, varied) or what_varies
            problems.add((*path, setting), f"{show(factor)} does not vary in this study{close}")
    named: list[tuple[Path, Any]] = [(("metric",), block.get("metric"))]
    measures = block.get("measures")
    named += [(("measures", at), name) for at, name in enumerate(measures if isinstance(measures, list) else [])]
    for inner, metric in named:
        is_metric = isinstance(metric, str) and (metric in get_args(MetricName) or is_metric_file(metric))
        if is_metric and metric not in metrics:
            problems.add((*path, *inner), f'"{metric}" is not among evaluate.metrics: {", ".join(metrics)}')
    baseline = block.get("baseline")
    for setting in flatten(baseline) if isinstance(baseline, dict) else ():
        if setting not in varied:
            close = suggestion(setting, varied) or what_varies
            mistake = f"{show(setting)} does not vary in this study, so it does not select a baseline{close}"
            problems.add((*path, "baseline"), mistake)


def _check_waivers(waived: Any, varied: list[str], path: Path, problems: Problems) -> None:
    for number, setting in enumerate(waived if isinstance(waived, list) else []):
        if isinstance(setting, str) and setting not in (*varied, *WAIVED):
            close = suggestion(setting, (*varied, *WAIVED)) or f"; allowed here: {', '.join((*varied, *WAIVED))}"
            problems.add((*path, number), f"{show(setting)} never differs in this study{close}")


def _check_measured(block: dict[str, Any], profiled: bool, path: Path, problems: Problems) -> None:
    """Refuse a measure that stands twice, and a limit on what only a profile measures where there are no profiles."""
    listed = block.get("measures")
    measures = listed if isinstance(listed, list) else []
    for at, name in enumerate(measures):
        if name in measures[:at]:
            problems.add((*path, "measures", at), f"{show(name)} is listed twice")
    budgets = block.get("budgets")
    for name, budget in (budgets if isinstance(budgets, dict) and not profiled else {}).items():
        place = (*path, "budgets", name)
        for limit in budget if isinstance(budget, dict) else ["train_memory"]:
            if limit in PROFILED:
                mistake = f"limits {limit}, which only a profile measures, and profile.enabled is false"
                problems.add((*place, limit) if isinstance(budget, dict) else place, mistake)


def check_margin(margin: Any, metric: str, path: Path, problems: Problems) -> None:
    """Refuse percentage points of a metric that has none: a whole nat would make everything equivalent."""
    if isinstance(margin, str) and margin.endswith("pt") and metric in WITHOUT_POINTS:
        remedy = "write a number in its unit" + ("" if "expect_sd" in path else ', or "1%"')
        problems.add(path, f"{margin} is in percentage points, and {metric} is not a percentage; {remedy}")


def varied_settings(raw: dict[str, Any]) -> list[str]:
    """Return every setting that some sweep of the raw document varies."""
    varied: set[str] = set()
    for _, block in inner_tables(raw, "sweep"):
        varied |= flatten({key: value for key, value in block.items() if key not in SWEEP_SETTINGS}).keys()
        for _, row in inner_tables(block, "configurations"):
            varied |= flatten(row).keys() - {"name"}
    return sorted(varied)
