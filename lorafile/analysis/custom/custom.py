"""A user's own analysis: a Python file that the spec names, with `analyse(results)` from tables to tables and charts.

It is run in the reporting process, with the rights of the user who reports: their own file, named in their own spec.
What it raises becomes one sentence in the report; nothing else of the report is lost.
"""

import contextlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lorafile.analysis.common.base import Analysis, Column, ColumnKind, Table, specification
from lorafile.analysis.common.format import slug
from lorafile.analysis.common.scores import FIXED, split_of
from lorafile.analysis.compare.verdicts import family
from lorafile.engine.data.hub import hide_tokens
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable

if TYPE_CHECKING:
    import pandas as pd

GIVES = ("title", "question", "sentences", "tables", "charts")
_MOST_ROWS = 10_000  # of one table on the page


@dataclass(frozen=True, eq=False)
class StudyTables:
    """A study's results for an analysis of one's own; tables are copies, so that nothing done to them shows elsewhere.

    :ivar primary: the metric that the study decides by; `metrics`: all of them
    :ivar split: where figures are shown: `test`, or `validation` while there is nothing else
    :ivar configurations: one row each, in the spec's order: `configuration`, `sweep`, `method`, and each setting that
        varies, by its dotted name (`lora.r`, `quantization`, …)
    :ivar runs: one row for each configuration and seed: `configuration`, `seed` (missing for the untuned base),
        `outcome` (`done`, `diverged`, …; only those that are done have figures), `validation.<metric>`,
        `test.<metric>`, `trainable_parameters`, `total_parameters`, `adapter_bytes`, `seconds`, and the
        configuration's settings
    :ivar profiles: one row for each measured configuration: `configuration`, `device`, `train_allocated_bytes`,
        `train_step_seconds`, `token_seconds`, … as in `lorafile.results.results.Results`
    :ivar curves: a row for each optimizer step: `configuration`, `seed`, `step`, `epoch`, `loss`, `learning_rate`
    :ivar validations: a row for each evaluation on validation while a run trained: `configuration`, `seed`, `step`,
        `epoch`, `loss`, each metric by name, and `chosen` (whether the run has the weights of that step)
    :ivar verdicts: a row for each comparison that the study declares on its primary metric: `one`, `other`, `verdict`,
        `difference` (of `one` from `other`), `low`, `high` (its 95 % interval)
    """

    study: str
    question: str
    primary: str
    metrics: tuple[str, ...]
    split: str
    seeds: tuple[int, ...]
    configurations: "pd.DataFrame"
    runs: "pd.DataFrame"
    profiles: "pd.DataFrame"
    curves: "pd.DataFrame"
    validations: "pd.DataFrame"
    verdicts: "pd.DataFrame"
    _results: Results

    def better_is_more(self, metric: str) -> bool:
        """Return whether more of a metric is better."""
        return more_is_better(next((m for m in self._results.metrics if m == metric), metric))

    def examples(self, configuration: str, seed: int | None, split: str | None = None) -> "pd.DataFrame":
        """Return what one run made of each example: `row` (the same for every run) and what it adds to each metric.

        :param seed: None for the untuned base
        :raises KeyError: when the run has none
        """
        return self._results.outcomes[configuration, seed, split or self.split].copy()


def study_tables(results: Results) -> StudyTables:
    """Return a study's results as its own analyses see them."""
    settings = results.configurations.drop(columns=[name for name in FIXED if name != "configuration"], errors="ignore")
    runs = results.runs.drop(columns="sweep", errors="ignore")
    begun = "configuration" in settings and "configuration" in runs
    return StudyTables(
        study=results.study,
        question=results.question,
        primary=str(results.primary),
        metrics=tuple(map(str, results.metrics)),
        split=split_of(results, results.primary),
        seeds=tuple(results.seeds),
        configurations=results.configurations.copy(),
        runs=runs.merge(settings, on="configuration", how="left") if begun else runs.copy(),
        profiles=results.profiles.copy(),
        curves=results.curves.copy(),
        validations=results.validations.copy(),
        verdicts=_verdicts(results),
        _results=results,
    )


def _verdicts(results: Results) -> "pd.DataFrame":
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    for verdict in family(results).verdicts:
        interval = verdict.decision.interval if verdict.decision is not None else (None, None)
        gap = verdict.estimate.difference if verdict.estimate is not None else None
        rows.append((verdict.pair.one, verdict.pair.other, verdict.word, gap, *interval))
    return pd.DataFrame(rows, columns=["one", "other", "verdict", "difference", "low", "high"])


class WrongAnswer(Exception):
    """What `analyse` returned is not what it should be."""


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return what the user's file makes of the results; where it fails, an analysis that says how, and is `failed`."""
    if table.file is None:
        return []  # without a spec that names a file there is none
    name = slug("own", table.name or Path(table.file).stem)
    file = (results.folder / Path(table.file).expanduser()).resolve()  # as a traceback names it
    try:
        # what it prints must not stand in the middle of `lora report --json`
        with contextlib.redirect_stdout(sys.stderr):
            function = getattr(_module(file), "analyse", None)
            if not callable(function):
                raise WrongAnswer("it does not define the function analyse(results)")
            return [_analysis(name, table, function(study_tables(results)))]
    except (Exception, SystemExit) as error:
        line = f"{table.file}{_line(error, file)}: {_message(error)}. This analysis has no result."
        question = "What does the study's own analysis show?"
        return [Analysis("own", name, _title(table), question, [line], failed=True)]


def _module(file: Path) -> ModuleType:
    """Return a Python file as a module; its folder is not on the path, so that no file of it hides a library."""
    name = f"lorafile_own_{abs(hash(str(file.resolve())))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise WrongAnswer("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def _line(error: BaseException, file: Path) -> str:
    """Return the line of the user's file that an exception came from."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""


def _message(error: BaseException) -> str:
    message = " ".join(hide_tokens(str(error)).split()).rstrip(".")
    if isinstance(error, WrongAnswer):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _title(table: AnalysisTable) -> str:
    return table.name or Path(str(table.file)).stem.replace("_", " ").capitalize()


def _analysis(name: str, table: AnalysisTable, given: Any) -> Analysis:
    """Return what `analyse` gave as an analysis of the report.

    :raises WrongAnswer: when it is something else, in words that say what it should be
    """
    if not isinstance(given, dict):
        raise WrongAnswer(f"analyse(results) must return a dictionary, not {type(given).__name__}")
    if unknown := [key for key in given if key not in GIVES]:
        raise WrongAnswer(f"analyse(results) returned {unknown[0]!r}, which is not one of {', '.join(GIVES)}")
    sentences = given.get("sentences", [])
    if isinstance(sentences, str):
        sentences = [sentences]
    if not all(isinstance(line, str) for line in sentences):
        raise WrongAnswer("its sentences must be strings")
    title = str(given.get("title") or _title(table))
    charts, captions = _charts(name, given.get("charts", {}))
    tables = tuple(_table(str(caption), frame) for caption, frame in _named(given.get("tables", {}), title).items())
    return Analysis("own", name, title, str(given.get("question", "")), list(sentences), tables, charts, captions)


def _named(given: Any, title: str) -> dict[Any, Any]:
    """Return what is given by name; a single thing, or a list of things, is called after the analysis."""
    if isinstance(given, dict):
        return given
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    return {title if len(several) == 1 else f"{title} ({at})": item for at, item in enumerate(several, 1)}


def _table(title: str, frame: "pd.DataFrame") -> Table:
    import pandas as pd
    from pandas.api import types

    if not isinstance(frame, pd.DataFrame):
        raise WrongAnswer(f"its table {title!r} must be a pandas DataFrame, not {type(frame).__name__}")
    if len(frame) > _MOST_ROWS:
        raise WrongAnswer(f"its table {title!r} has {len(frame):,} rows, more than {_MOST_ROWS:,}")
    if not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None):
        frame = frame.reset_index()
    # Of several levels, as grouping makes them, all that are not empty.
    levels = [column if isinstance(column, tuple) else (column,) for column in frame.columns]
    frame = frame.set_axis([", ".join(filter(None, map(str, level))) for level in levels], axis="columns")
    if frame.columns.has_duplicates:
        raise WrongAnswer(f"its table {title!r} has two columns with the same name")
    numeric = [types.is_numeric_dtype(frame[key]) and not types.is_bool_dtype(frame[key]) for key in frame]
    kinds: list[ColumnKind] = ["number" if number else "text" for number in numeric]
    columns = [Column(str(key), str(key), kind) for key, kind in zip(frame, kinds, strict=True)]
    return Table(title, frame, tuple(columns))


def _charts(name: str, given: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (charts, captions) under names that are safe for files; each chart is proven to be drawable data."""
    from altair import TopLevelMixin

    charts: dict[str, Any] = {}
    captions: dict[str, str] = {}
    for at, (caption, chart) in enumerate(_named(given, "").items(), 1):
        if not isinstance(chart, TopLevelMixin):
            raise WrongAnswer(f"its charts must be Altair charts, not {type(chart).__name__}")
        key = name if len(charts) == 0 else f"{name}-{at}"
        charts[key] = _drawable(chart, str(caption) or "A chart from the study's own analysis")
        captions[key] = str(caption)
    return charts, captions


def _drawable(chart: Any, caption: str) -> Any:
    """Return a chart with a description for screen readers.

    :raises WrongAnswer: when it reads its data from an address: a report asks nothing of the network
    """
    whole = specification(chart)
    if _addresses(whole):
        raise WrongAnswer("a chart reads data from a URL; pass it a pandas DataFrame instead")
    return chart if whole.get("description") else chart.properties(description=caption)


def _addresses(value: Any) -> bool:
    """Return whether anything in a specification is read from an address."""
    if isinstance(value, dict):
        rest = (inner for key, inner in value.items() if key not in ("$schema", "datasets", "values"))
        return isinstance(value.get("url"), str) or any(_addresses(inner) for inner in rest)
    return isinstance(value, list) and any(_addresses(inner) for inner in value)
