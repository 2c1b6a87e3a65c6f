"""What others reported: published figures as the spec gives them, drawn next to the study's own and never tested."""

from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.format import amount, difference, is_share, metric_name, score, setting
from lorafile.analysis.common.scores import COSTS
from lorafile.results.results import Results, missing, row_dicts
from lorafile.specs.configurations import flatten
from lorafile.specs.tables.analysis import PublishedTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.specs.values import in_base_units
from lorafile.units import listing

ELSEWHERE = (
    "These figures come from other setups: model, data, protocol and library versions may all differ. They are shown "
    "next to the study's own results, but do not enter any test, verdict or recommendation."
)
MARK = "Dotted lines and hollow marks: published elsewhere, ± standard error where known; not tested."
_LONGEST = 48  # characters of a label in a chart


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure.

    :ivar error: its standard error, NaN where none is known; `from_n`: it was computed from the number of examples
    :ivar costs: measure -> bytes, seconds or a count; `settings`: dotted setting -> value
    """

    name: str
    metric: str
    value: float
    error: float
    from_n: bool
    costs: dict[str, float]
    settings: dict[str, Any]
    table: PublishedTable

    @property
    def ends(self) -> tuple[float, float]:
        """The figure less and plus its standard error; itself where none is known."""
        half = 0.0 if missing(self.error) else self.error
        return self.value - half, self.value + half

    @property
    def label(self) -> str:
        """What stands next to its mark."""
        name = self.name if len(self.name) <= _LONGEST else f"{self.name[: _LONGEST - 1]}…"
        return f"published: {name} {score(self.metric, self.value)}"


def figures(results: Results, metric: str | None = None) -> list[PublishedFigure]:
    """Return what was published, in the spec's order; only that of one metric where it is given."""
    metrics = {str(name): name for name in results.metrics}
    names = [metric_label(table.metric) if table.metric else str(results.primary) for table in results.published]
    return [
        _figure(table, metrics.get(name, name))
        for table, name in zip(results.published, names, strict=True)
        if metric is None or name == metric
    ]


def _figure(table: PublishedTable, metric: str) -> PublishedFigure:
    from_n = table.error is None and table.n is not None and is_share(metric) and 0 <= table.value <= 1
    error = nan if table.error is None else table.error
    if from_n and table.n:
        error = (table.value * (1 - table.value) / table.n) ** 0.5
    priced = table.costs.items()
    costs = {str(name): in_base_units(cost)[1] if isinstance(cost, str) else cost for name, cost in priced}
    return PublishedFigure(table.name, metric, table.value, error, from_n, costs, flatten(table.settings), table)


def section(results: Results) -> list[Analysis]:
    """Return the report's section on published figures; nothing where the spec gives none."""
    published = figures(results)
    if not published:
        return []
    sentences = [ELSEWHERE]
    if computed := [figure.name for figure in published if figure.from_n]:
        sentences.append(
            f"No standard error was published for {listing(computed, 12)}; the one shown is binomial, computed from "
            "the number of examples."
        )
    if unknown := [figure.name for figure in published if missing(figure.error)]:
        sentences.append(f"No standard error is known for {listing(unknown, 12)}.")
    question = "What did others report?"
    return [Analysis("published", "published", "Published figures", question, sentences, (_table(published),))]


def _table(published: list[PublishedFigure]) -> Table:
    rows = []
    for figure in published:
        row = {"name": figure.name, "metric": metric_name(figure.metric), "value": figure.value}
        row |= {"shown": score(figure.metric, figure.value), "error": figure.error, "shown_error": "", "origin": ""}
        if not missing(figure.error):
            row |= {"shown_error": difference(figure.metric, figure.error), "origin": "published"}
        if figure.from_n:
            row["origin"] = "from n"
        costs = [f"{COSTS[key].title} {amount(COSTS[key].kind, cost)}" for key, cost in figure.costs.items()]
        row |= {"n": figure.table.n, "costs": ", ".join(costs)}
        row["settings"] = ", ".join(f"{key} {setting(value)}" for key, value in figure.settings.items())
        rows.append(row | {"source": figure.table.source})
    columns = (
        Column("name", "figure"),
        Column("metric", "metric"),
        Column("shown", "value"),
        Column("shown_error", "standard error"),
        Column("origin", "source of the error"),
        Column("n", "examples", "count"),
        Column("settings", "settings"),
        Column("costs", "costs"),
        Column("source", "source"),
    )
    frame = pd.DataFrame(rows)
    return Table("Published figures", frame, filled(columns, row_dicts(frame)))
