"""The data card of a report: whose the data are, how many and how long, and whether their splits keep apart."""

from typing import Any

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.results.datacard import leak_sentences
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import plural

QUESTION = "What were the models trained and evaluated on, and are the splits disjoint?"
_COLUMNS = (
    Column("split", "split"),
    Column("examples", "examples", "count"),
    Column("tokens", "tokens", "count"),
    Column("supervised_fraction", "supervised", "share"),
    Column("median_tokens", "median length", "count"),
    Column("p95_tokens", "95th percentile", "count"),
    Column("longest", "longest", "count"),
    Column("too_long", "too long", "count"),
    Column("duplicates", "repeated", "count"),
)


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one card for each data set whose examples are prepared."""
    prepared = [card for card in results.card if card["splits"]]
    return [_analysis(number, card, len(prepared)) for number, card in enumerate(prepared)]


def _analysis(number: int, card: dict[str, Any], count: int) -> Analysis:
    import pandas as pd

    name = "data" if count == 1 else f"data-{number + 1}"
    title = "Data" if count == 1 else f"Data: {card['name']}"
    origin = pd.DataFrame(_origin(card), columns=["what", "value"])
    tables = (
        Table("Splits; lengths are in tokens", pd.DataFrame(card["splits"]), _COLUMNS),
        Table("Origin of the data", origin, (Column("what", "what"), Column("value", "value"))),
    )
    return Analysis("data", name, title, QUESTION, _sentences(card), tables)


def _sentences(card: dict[str, Any]) -> list[str]:
    leaking = leak_sentences(card)
    lines = ["The data are private: this report contains none of their text."] if card["private"] else []
    lines += leaking
    if not leaking and card["leaks"]:
        lines.append("No leakage between splits (ignoring case and punctuation).")
    for split in card["splits"]:
        if split["duplicates"]:
            of = f"{split['duplicates']} of {plural(split['examples'], 'example')}"
            lines.append(f"Repeated within {split['split']}: {of} ({split['exact_duplicates']} exactly).")
    return lines


def _origin(card: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("path", card["path"]), ("format", card["format"])]
    rows.append(("licence", card["licence"] or "unknown: the data are not from the catalogue"))
    rows += [(key, card[key]) for key in ("source", "revision") if card[key]]
    return rows + [(f"digest of {split}", f"{digest[:16]}…") for split, digest in card["digests"].items()]
