"""What lm-evaluation-harness's tasks say of each configuration."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.scores import names, scores
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import plural

_PREFIX = "lm_eval."


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one table for each task, with every figure that the harness gave; nothing where no task has run."""
    columns = [str(name) for name in results.runs.columns if str(name).startswith(_PREFIX)]
    tasks = list(dict.fromkeys(name.removeprefix(_PREFIX).rpartition(".")[0] for name in columns))
    if not tasks:
        return []
    told = [
        f"{plural(len(tasks), 'task')} of lm-evaluation-harness, with its own prompts and metrics. Shown is what it "
        "reports, means over seeds ± sample standard deviation. Its standard errors are of examples alone."
    ]
    tables = tuple(_task(results, task, columns) for task in tasks)
    return [Analysis("lm_eval", "lm-eval", "Harness tasks", "What do the harness's tasks say?", told, tables)]


def _task(results: Results, task: str, columns: list[str]) -> Table:
    mine = [name for name in columns if name.removeprefix(_PREFIX).rpartition(".")[0] == task]
    rows: dict[str, dict[str, Any]] = {name: {"configuration": name} for name in names(results)}
    shown = [Column("configuration", "configuration")]
    for column in mine:
        metric = column.rpartition(".")[2]
        for name, one in scores(results, column).items():
            rows[name] |= {column: one.mean, f"{column}.spread": one.spread}
        shown.append(Column(column, metric, "count" if metric == "examples" else "number", f"{column}.spread"))
    return Table(task, pd.DataFrame(rows.values()), tuple(shown))
