"""What do the models say? Answers to the spec's own prompts, the untuned base's beside those of the tuned."""

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import missing
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import plural


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one table for each prompt, a row for each answer; nothing where nothing was asked."""
    if results.answers.empty:
        return [_hidden()] if results.answers_private else []
    answers = results.answers
    tables = [
        _one(str(group["prompt"].iloc[0]), int(str(number)), group) for number, group in answers.groupby("number")
    ]
    count = len(tables)
    asked = f"{plural(count, 'prompt')}, answered by the untuned base and by the first seed of each configuration."
    told = [asked, "These are examples to read, not a measurement; the figures above are one."]
    return [Analysis("prompts", "prompts", "Answers", "What do the models say?", told, tuple(tables))]


def _hidden() -> Analysis:
    told = "Prompts and answers are private: they are in the state, and in no report."
    return Analysis("prompts", "prompts", "Answers", "What do the models say?", [told])


def _one(prompt: str, number: int, group: pd.DataFrame) -> Table:
    """Return who answered what; bases that differ have untuned answers of their own."""
    untuned: dict[str, list[str]] = {}
    rows = []
    for row in group.to_dict("records"):
        if not missing(row["untuned"]):
            untuned.setdefault(str(row["untuned"]), []).append(str(row["configuration"]))
        if not missing(row["tuned"]):
            rows.append({"who": row["configuration"], "answer": _shown(str(row["tuned"]))})
    before = [
        {"who": "untuned" if len(untuned) == 1 else f"untuned base of {', '.join(whose)}", "answer": _shown(text)}
        for text, whose in untuned.items()
    ]
    columns = (Column("who", "model"), Column("answer", "answer"))
    return Table(f"Prompt {number}: {prompt}", pd.DataFrame([*before, *rows]), columns)


def _shown(text: str) -> str:
    return text.strip() or "(nothing)"
