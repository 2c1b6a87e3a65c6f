"""What a report says, in order, before it is HTML or Markdown: both show the same."""

from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.format import amount, direction, kind_of, metric_name, number, on, setting
from lorafile.analysis.overview.first_screen import short_training
from lorafile.analysis.overview.questions import PLACEMENT
from lorafile.engine.metrics.registry import unit_of
from lorafile.report.figures_json import look_lines
from lorafile.results.results import Results, cells, grouped, missing, row_dicts
from lorafile.units import listing, plural

LIMITS = (
    "A verdict generalizes to other seeds and other examples like these: both are random factors. All comparisons on "
    "the primary metric form one family, and verdicts, trends and effects share one error rate. The interval next to "
    "a verdict is the one that decided it.",
    "± is the sample standard deviation over seeds. With three seeds it is itself uncertain, and it is not a test.",
    "All configurations share the test examples, so another sample would shift all of their results together.",
    "Results hold for this model, this data and these settings. A setting that did not vary was not examined.",
    "Memory and time apply to the device they were measured on. Sizes are decimal: 1 GB is 10^9 bytes.",
)
PROTOCOL = (
    "Rates and other settings are chosen on validation; verdicts, claims and recommendations are tested on test.",
    "Quality is measured on held-out examples through the template that inference uses.",
    "Memory and latency are measured separately: with nothing else on the device, in a fresh process, after a warm-up.",
    "Runs that diverged, failed or are missing are counted and marked, but are not part of any mean.",
)
FEW_SEEDS = 3


class Fact(NamedTuple):
    """One line of the methods: a name and its value."""

    name: str
    value: str


def split_summary(results: Results, analyses: list[Analysis]) -> tuple[Analysis, list[Analysis]]:
    """Return the summary that answers the study's question, made here where none was declared, and all others."""
    declared = next((analysis for analysis in analyses if analysis.kind == "summary"), None)
    if declared is not None:
        return declared, [analysis for analysis in analyses if analysis is not declared]
    from lorafile.analysis.overview.summary import answer

    begun = len(results.configurations) > 0
    lines = answer(results, results.primary) if begun else ["No run has been recorded yet."]
    return Analysis("summary", "summary", "Summary", results.question, lines), analyses


def warnings(results: Results, analyses: list[Analysis]) -> list[str]:
    """Return what a reader has to know first: of the study, and of analyses that could not be made."""
    failed = [f"{analysis.title}: {analysis.sentences[0]}" for analysis in analyses if analysis.failed]
    return [*short_training(results), *results.warnings, *failed]


FIRST = ("recommend", "claims")  # what a reader may do, and what others say of the study, before how it is known
QUESTION = "question"
# Which of the questions that people bring an analysis belongs to: by the setting that it is about, or by its kind.
_BY_FACTOR = {
    "lora.r": "rank",
    **dict.fromkeys(PLACEMENT, "placement"),
    "quantization": "quantization",
    "method": "lora-or-full",
}
_BY_KIND = {
    "recommend": "best-for-my-gpu",
    "cost": "inference-speed",
    "noise": "real-or-noise",
    "confounds": "real-or-noise",
}


class Section(NamedTuple):
    """A part of the page under one heading: a question with its answer and the analyses behind it, or one of these."""

    name: str
    title: str
    sentences: list[str]
    members: list[Analysis]
    asked: bool = False  # a question's own words are no name of anything


def sections(questions: list[Analysis], others: list[Analysis]) -> list[Section]:
    """Return the page's sections: questions in their order, each with what shows its answer; then the other analyses.

    What a question says its members do not say again.
    """
    by_question = grouped((_question_of(analysis), analysis) for analysis in others)
    found = []
    for question in questions:
        members = by_question.pop(question.name, [])
        factors = list(dict.fromkeys(member.factor for member in members))
        members.sort(key=lambda member: (factors.index(member.factor), member.kind != "trend"))
        unsaid = [[line for line in member.sentences if line not in question.sentences] for member in members]
        members = [replace(member, sentences=lines) for member, lines in zip(members, unsaid, strict=True)]
        found.append(Section(question.name, question.title, question.sentences, members, asked=True))
    left = {id(analysis) for members in by_question.values() for analysis in members}
    rest = [analysis for analysis in others if id(analysis) in left]
    return [*found, *(Section(analysis.name, analysis.title, [], [analysis]) for analysis in rest)]


def _question_of(analysis: Analysis) -> str:
    name = _BY_FACTOR.get(analysis.factor) or _BY_KIND.get(analysis.kind)
    return f"question-{name}" if name else ""


def questions(analyses: list[Analysis]) -> list[Analysis]:
    """Return the questions that are asked by name, with their answers."""
    return [analysis for analysis in analyses if analysis.kind == QUESTION]


def ordered(analyses: list[Analysis]) -> list[Analysis]:
    """Return analyses in the order of the page: recommendations, claims, then the others as declared.

    Questions that are asked by name are answered next to the study's own, at the top.
    """
    analyses = [analysis for analysis in analyses if analysis.kind != QUESTION]
    return sorted(analyses, key=lambda a: FIRST.index(a.kind) if a.kind in FIRST else len(FIRST))


def limits(results: Results, analyses: list[Analysis]) -> list[str]:
    """Return what the study cannot carry: of this one first, then of every one."""
    lines = [line for analysis in analyses for line in analysis.limits]
    if 0 < (seeds := len(results.seeds)) < FEW_SEEDS:
        known = "unknown" if seeds == 1 else "hardly known"
        lines.insert(0, f"With only {plural(seeds, 'seed')}, the variation between seeds is {known}.")
    if len(results.environments) > 1:
        lines.append(
            f"Results come from {len(results.environments)} environments, listed above; quality and cost measured on "
            "different devices and versions are not directly comparable."
        )
    return list(dict.fromkeys([*warnings(results, analyses), *lines, *LIMITS]))


def named_tables(results: Results, analyses: list[Analysis]) -> dict[str, Table]:
    """Return every table of the report by a name that a file can have: its analysis's, numbered where it has more."""
    tables: dict[str, Table] = {}
    for analysis in analyses:
        for at, table in enumerate(analysis.tables, 1):
            tables[analysis.name if len(analysis.tables) == 1 else f"{analysis.name}-{at}"] = table
    common = {"environments": environments(results), "every-run": every_run(results)}
    return tables | {name: table for name, table in common.items() if table is not None}


def facts(results: Results) -> list[Fact]:
    """Return model, data, seeds and metrics as lines."""
    lines = [Fact(f"model {key}", value(key, item)) for key, item in results.model.items() if not missing(item)]
    lines += [Fact(f"data {key}", value(key, item)) for key, item in results.data.items() if not missing(item)]
    lines.append(Fact("seeds", listing([str(seed) for seed in results.seeds], 20) or "none"))
    lines += [Fact(name, text) for name, text in look_lines(results)]
    lines += [Fact("registration", text) for text in results.registration]
    unlocked, recorded = results.unlocked
    if unlocked:
        held = f"none was held for {unlocked} of {plural(recorded, 'attempt')} (--state-lock none)"
        lines.append(Fact("state lock", f"{held}: another command may have written at the same time"))
    errors = [
        f"{quantity} off by {amount('share', median(map(abs, each)))} (median of {plural(len(each), 'node')})"
        for quantity, each in results.forecast_errors.items()
        if each
    ]
    lines += [Fact("forecast", ", ".join(errors))] if errors else []
    for metric in results.metrics:
        primary = "primary; " if metric == results.primary else ""
        unit = unit_of(metric)
        lines.append(Fact(metric_name(metric), f"{primary}{direction(metric)}{f'; {unit}' if unit else ''}"))
    return lines


def value(key: str, item: Any) -> str:
    """Return a setting of model or data as text: counts with separators, fractions in percent, tables in a line."""
    if isinstance(item, dict):
        return ", ".join(f"{name} {value(name, inner)}" for name, inner in item.items() if not missing(inner)) or "none"
    if isinstance(item, bool) or not isinstance(item, (int, float)):
        return setting(item)
    if "fraction" in key:
        return amount("share", float(item))
    return amount("count", float(item)) if float(item).is_integer() else number(float(item))


def environments(results: Results) -> Table | None:
    """Return the environments that the figures come from, or None where none is recorded."""
    if not results.environments:
        return None
    keys = list(dict.fromkeys(str(key) for row in results.environments for key in row))
    rows = [{key: value(key, row[key]) for key in keys if not missing(row.get(key))} for row in results.environments]
    return Table("Environments", pd.DataFrame(rows, columns=keys), tuple(Column(key, key) for key in keys))


def every_run(results: Results) -> Table | None:
    """Return one row for each run, with its outcome and what it said, or None where there is none."""
    runs = results.runs
    if runs.empty:
        return None
    columns = [Column("configuration", "configuration"), Column("seed", "seed"), Column("outcome", "outcome")]
    both = [(split, metric) for split in ("validation", "test") for metric in results.metrics]
    columns += [Column(f"{split}.{metric}", on(metric, split), kind_of(metric)) for split, metric in both]
    columns += [Column("final_loss", "final training loss", "number"), Column("seconds", "training time", "seconds")]
    columns += [Column("micro_batch_split", "parts of a micro-batch", "count"), Column("message", "message")]
    frame = pd.DataFrame({column.key: cells(runs, column.key) for column in columns}, dtype=object)
    frame["seed"] = [setting(seed) if not missing(seed) else "none needed" for seed in frame["seed"]]
    frame["outcome"] = [outcome or "missing" for outcome in frame["outcome"]]
    return Table("Every run", frame, filled(columns, row_dicts(frame)))
