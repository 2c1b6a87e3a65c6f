"""What others reported: published figures as the spec gives them, drawn beside the study's own and never tested."""

from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import amount, difference, is_share, metric_name, score, setting
from lorafile.analysis.common.scores import COSTS
from lorafile.results.results import Results, missing
from lorafile.specs.configurations import flatten
from lorafile.specs.tables.analysis import PublishedTable
from lorafile.specs.tables.evaluate import metric_label
from lorafile.specs.values import in_base_units
from lorafile.units import listing

ELSEWHERE = (
    "These figures come from other setups: model, data, protocol and library versions may all differ. They are drawn "
    "beside the study's own, and take no part in any test, verdict or recommendation."
)
MARK = "Dotted lines and hollow marks: published elsewhere, ± standard error where it is known; not tested."
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
        """What stands beside its mark."""
        name = self.name if len(self.name) <= _LONGEST else f"{self.name[: _LONGEST - 1]}…"
        return f"published: {name} {score(self.metric, self.value)}"


def figures(results: Results, metric: str | None = None) -> list[PublishedFigure]:
    """Return what was published, in the spec's order; only that of one metric where it is given."""
    known = {str(name): name for name in results.metrics}
    found = []
    for table in results.published:
        name = metric_label(table.metric) if table.metric else str(results.primary)
        if metric is None or name == metric:
            found.append(_figure(table, known.get(name, name)))
    return found


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
    found = figures(results)
    if not found:
        return []
    sentences = [ELSEWHERE]
    if computed := [one.name for one in found if one.from_n]:
        told = (
            "The standard error of {} was not published: it is the binomial one, computed from the number of examples."
        )
        sentences.append(told.format(listing(computed, 12)))
    if unknown := [one.name for one in found if missing(one.error)]:
        sentences.append(f"No error is known of {listing(unknown, 12)}.")
    question = "What did others report?"
    return [Analysis("published", "published", "Published figures", question, sentences, (_table(found),))]


def _table(found: list[PublishedFigure]) -> Table:
    rows = [
        {
            "name": one.name,
            "metric": metric_name(one.metric),
            "value": one.value,
            "shown": score(one.metric, one.value),
            "error": one.error,
            "shown_error": "" if missing(one.error) else difference(one.metric, one.error),
            "origin": "from n" if one.from_n else "" if missing(one.error) else "published",
            "n": one.table.n,
            "costs": ", ".join(
                f"{COSTS[key].title} {amount(COSTS[key].kind, cost)}" for key, cost in one.costs.items()
            ),
            "settings": ", ".join(f"{key} {setting(value)}" for key, value in one.settings.items()),
            "source": one.table.source,
        }
        for one in found
    ]
    frame = pd.DataFrame(rows)
    columns = (
        Column("name", "figure"),
        Column("metric", "metric"),
        Column("shown", "value"),
        Column("shown_error", "standard error"),
        Column("origin", "error is"),
        Column("n", "examples", "count"),
        Column("settings", "settings"),
        Column("costs", "costs"),
        Column("source", "source"),
    )
    empty = [name for name in frame.columns if all(missing(value) or value == "" for value in frame[name])]
    return Table("Published figures", frame, tuple(column for column in columns if column.key not in empty))
