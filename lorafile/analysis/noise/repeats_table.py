"""Every declared repeat beside the first time: its figure, how it ended, and whether its bytes are the same."""

from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Column, Table
from lorafile.analysis.common.format import kind_of
from lorafile.analysis.common.scores import cells, values
from lorafile.analysis.common.wording import on
from lorafile.results.results import Results

_KEY = 12  # characters of a key that name it


def repeats_table(results: Results, metric: str, split: str) -> Table:
    """Return one row for each repeat, those without a figure among them."""
    name = f"{split}.{metric}"
    first = values(results, name)
    keys = ("configuration", "seed", "repeat", "outcome", name, "same_predictions", "key")
    rows: list[dict[str, Any]] = []
    for label, seed, repeat, outcome, value, same, key in zip(
        *(cells(results.repeats, column) for column in keys), strict=True
    ):
        row = {"configuration": label, "seed": str(int(seed)), "repeat": str(int(repeat)), "runs": outcome}
        row |= {"first": first.get((label, seed)), "value": value if outcome == "done" else None}
        row |= {"same": "" if same is None else "yes" if same else "no", "key": str(key or "")[:_KEY]}
        rows.append(row)
    columns = (
        Column("configuration", "configuration"),
        Column("seed", "seed"),
        Column("repeat", "time"),
        Column("first", f"{on(metric, split)}, the first time", kind_of(metric)),
        Column("value", "this time", kind_of(metric)),
        Column("same", "same predictions"),
        Column("runs", "run"),
        Column("key", "key"),
    )
    return Table("Repeats of the first seed", pd.DataFrame(rows), columns)
