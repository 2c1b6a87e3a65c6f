"""What an analysis gives: a question, its answer in sentences, and the tables and charts that show it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from lorafile.results.results import missing
from lorafile.units import html_table, listing, plural

if TYPE_CHECKING:
    import pandas as pd

ColumnKind = Literal["text", "share", "number", "rate", "bytes", "seconds", "count"]


@dataclass(frozen=True)
class Column:
    """How one column of a table reads; the table itself keeps raw numbers.

    :ivar key: the column of the frame that holds the value
    :ivar kind: its unit: shares are fractions of one, `bytes` bytes, `seconds` seconds, `rate` a learning rate
    :ivar spread: the column that holds the sample standard deviation over seeds, in the same unit
    :ivar n: the column that holds the number of seeds behind the value
    """

    key: str
    title: str
    kind: ColumnKind = "text"
    spread: str = ""
    n: str = ""


def filled(columns: Iterable[Column], rows: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns that hold a figure or a text in any row."""
    keys = {key for row in rows for key, value in row.items() if not missing(value) and value != ""}
    return tuple(column for column in columns if column.key in keys)


@dataclass(frozen=True)
class Table:
    """Raw figures with a caption, and the columns that a reader sees."""

    title: str
    frame: "pd.DataFrame"
    columns: tuple[Column, ...]


@dataclass(frozen=True, repr=False)
class Analysis:
    """One question to the results, answered.

    :ivar name: unique in a report; letters, digits and hyphens only, so that it can name files and anchors
    :ivar sentences: plain text, the answer first; whatever failed stands before what succeeded
    :ivar charts: name (as `name`) -> Altair chart; its `description` is set
    :ivar captions: name of a chart -> what its marks mean
    :ivar failed: it could not be made, and its sentences say why
    :ivar limits: sentences that the report's limits repeat: not bracketed, waived, from few seeds
    :ivar factor: the setting that it is about, where that is one
    """

    kind: str
    name: str
    title: str
    question: str
    sentences: list[str]
    tables: tuple[Table, ...] = ()
    charts: dict[str, Any] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    limits: tuple[str, ...] = ()
    factor: str = ""

    def __repr__(self) -> str:
        held = (plural(len(self.sentences), "sentence"), plural(len(self.tables), "table"))
        return f"<Analysis {self.name!r}: {', '.join(held)}, charts: {listing(self.charts) or 'none'}>"

    def _repr_html_(self) -> str:
        """Return title, sentences and first table in a notebook; charts are in `charts`, and draw themselves."""
        table = self.tables[0] if self.tables else None
        columns = [(column.key, column.title) for column in table.columns] if table else []
        rows = [[row[key] for key, _ in columns] for row in table.frame.to_dict("records")] if table else []
        return html_table([title for _, title in columns], rows, self.sentences, self.title)

    def renamed(self, name: str) -> "Analysis":
        """Return the same analysis under another name, its charts with it."""
        charts = {key.replace(self.name, name, 1): chart for key, chart in self.charts.items()}
        captions = {key.replace(self.name, name, 1): caption for key, caption in self.captions.items()}
        return replace(self, name=name, charts=charts, captions=captions)

    def with_chart(self, chart: Any, caption: str, name: str = "") -> "Analysis":
        """Return the same analysis with one chart more, under the analysis's own name where none is given."""
        key = name or self.name
        return replace(self, charts=self.charts | {key: chart}, captions=self.captions | {key: caption})

    @property
    def table(self) -> "pd.DataFrame | None":
        """Return the first table's raw figures, or None where the analysis has no table."""
        return self.tables[0].frame if self.tables else None


def specification(chart: Any) -> dict[str, Any]:
    """Return a chart's Vega-Lite specification with all of its data inside, and no NaN."""
    import altair as alt

    with alt.data_transformers.disable_max_rows():
        spec: dict[str, Any] = plain(chart.to_dict())
    return spec


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
