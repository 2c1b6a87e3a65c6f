"""The questions that people bring to a LoRA study, each answered in a few sentences from its verdicts and costs."""

from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.common.factors import label, setting_labels, setting_values
from lorafile.analysis.common.format import amount, on, sentence_case
from lorafile.analysis.common.scores import COSTS, cost_of
from lorafile.analysis.compare.outcomes import compared_as
from lorafile.analysis.compare.verdict_text import levels, signed_difference
from lorafile.analysis.compare.verdicts import Verdict, family
from lorafile.analysis.noise import noise
from lorafile.analysis.recommend import recommend
from lorafile.analysis.tradeoffs import cost, speed
from lorafile.results.results import Results, grouped, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

PLACEMENT = ("lora.target_modules", "lora.layers_to_transform", "lora.exclude_modules", "lora.layers_pattern")


def answer(results: Results, table: AnalysisTable, asked: bool) -> list[Analysis]:
    """Return the answer to one question; where the study says nothing of it, that, if the spec asks it."""
    name = table.ask or ""
    question = QUESTIONS[name]
    lines = question.answer(results) if len(results.runs) else []
    if not lines and not asked:
        return []
    said = lines or [f"This study cannot answer that: {question.missing}."]
    text = question.text if asked or name != "lora-or-full" else _of_methods(results, question.text)
    return [Analysis("question", f"question-{name}", text, text, said)]


def _of_methods(results: Results, text: str) -> str:
    """Return the question about methods that a study answers: one without `full` and `none` compares adapters alone."""
    names = {name for verdict in _verdicts(results, "method") for name in (verdict.pair.one, verdict.pair.other)}
    return text if {"full", "none"} & {results.methods[name] for name in names} else "How do the methods compare?"


def _rank(results: Results) -> list[str]:
    return [*_along(results, "lora.r"), *_costs(results, "lora.r", ("train_memory", "adapter_size"))]


def _placement(results: Results) -> list[str]:
    return [line for factor in PLACEMENT for line in _along(results, factor)]


def _quantization(results: Results) -> list[str]:
    costs = ("train_memory", "generate_memory", "train_time", "token_latency")
    return [*_along(results, "quantization"), *_costs(results, "quantization", costs)]


def _gpu(results: Results) -> list[str]:
    declared = [table for table in results.declared if table.kind == "recommend"]
    tables = declared or [AnalysisTable(kind="recommend")]
    return [line for table in tables for analysis in recommend.analyse(results, table) for line in analysis.sentences]


def _speed(results: Results) -> list[str]:
    """Return what an attached adapter costs, what merging gives back, and what a quantized base does."""
    if impossible := speed.not_measurable(results):
        return impossible
    rows = speed.trusted(results, cost.cost_rows(results), cost.TIMED)
    ratios, against = speed.base_ratios(rows, "token_seconds"), "the bare base in the same process"
    if not ratios:
        ratios, against = _over_untuned(results, rows), "the untuned base"
    lines = []
    if ratios:
        low, high = (
            f"{cost.signed_share(ratios[name])} ({name})"
            for name in (pick(ratios, key=ratios.__getitem__) for pick in (min, max))
        )
        ends = f" (median of {plural(len(ratios), 'configuration')}; {low} to {high})" if len(ratios) > 1 else ""
        middle = cost.signed_share(median(ratios.values()))
        lines.append(f"An attached adapter changes the time per token by {middle}{ends}, compared with {against}.")
    lines += cost.merging(rows)
    return [*lines, *_costs(results, "quantization", ("token_latency",)), *cost.untrusted(results)] if lines else []


def _over_untuned(results: Results, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return configuration -> its time per token over that of the study's untuned configuration, minus 1."""
    seconds = {row["configuration"]: row["token_seconds"] for row in rows if not missing(row["token_seconds"])}
    bases = setting_labels(results, "quantization")
    untuned = {bases.get(name, ""): seconds[name] for name in seconds if results.methods[name] == "none"}
    return {
        row["configuration"]: seconds[row["configuration"]] / untuned[bases.get(row["configuration"], "")] - 1
        for row in rows
        if speed.adapted(row) and row["configuration"] in seconds and bases.get(row["configuration"], "") in untuned
    }


def _full(results: Results) -> list[str]:
    """Return the verdicts along the method, and what each side trains and takes."""
    verdicts = _verdicts(results, "method")
    lines = _along(results, "method")
    names = {name for verdict in verdicts for name in (verdict.pair.other, verdict.pair.one)}
    trained = {name for name in names if results.methods[name] != "none"}
    for measure in ("trainable_parameters", "train_memory", "train_time"):
        kind, title = COSTS[measure].kind, COSTS[measure].title
        costs = [
            f"{amount(kind, value)} ({name})" for name, value in cost_of(results, measure).items() if name in trained
        ]
        if len(costs) > 1:
            lines.append(f"{sentence_case(title)}: {listing(costs)}.")
    return lines


_COUNTED = {
    "equivalent": "show that any difference is negligible",
    "non-inferior": "show that the first is non-inferior",
    "inconclusive": "are inconclusive",
}


def _noise(results: Results) -> list[str]:
    judged = family(results).judged
    words = Counter(verdict.word for verdict in judged)
    lines = []
    if judged:
        counts = [f"{words['better'] + words['worse']} show a real difference"]
        counts += [f"{words[word]} {text}" for word, text in _COUNTED.items() if words[word]]
        lines.append(f"Of {plural(len(judged), 'comparison')}, {listing(counts)} ({levels(judged)} over all of them).")
    measured = noise.analyse(results, AnalysisTable(kind="noise"))
    return lines + (measured[0].sentences if measured else [])


def _verdicts(results: Results, factor: str) -> list[Verdict]:
    return [verdict for verdict in family(results).verdicts if verdict.pair.factor == factor]


def _along(results: Results, factor: str) -> list[str]:
    """Return the verdicts along a factor, one sentence for each configuration that others are compared with."""
    against = grouped((verdict.pair.other, verdict) for verdict in _verdicts(results, factor))
    return [_by_verdict(verdicts) for verdicts in against.values()]


_WORDS = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent within the margin",
    "non-inferior": "non-inferior",
    "inconclusive": "inconclusive",
    "none": "without a verdict",
    "refused": "not compared",
}


def _by_verdict(verdicts: list[Verdict]) -> str:
    """Return the verdicts on all that is compared with one configuration, in one sentence, by verdict."""
    first = verdicts[0]
    members = grouped((verdict.word, _short(verdict)) for verdict in verdicts)
    parts = [f"{text}: {listing(members[word], 12)}" for word, text in _WORDS.items() if word in members]
    return f"Compared with {first.pair.other}, in {on(compared_as(first.metric), first.split)}, {'; '.join(parts)}."


def _short(verdict: Verdict) -> str:
    """Return `rank/r=16 (+24.1 points)`: the configuration and the difference."""
    name = verdict.pair.one
    if verdict.estimate is None:
        return name
    return f"{name} ({signed_difference(compared_as(verdict.metric), verdict.estimate.difference)})"


def _costs(results: Results, factor: str, measures: tuple[str, ...]) -> list[str]:
    """Return what each measure of cost does along a factor, over the configurations that the verdicts compare."""
    names = [name for v in _verdicts(results, factor) for name in (v.pair.other, v.pair.one)]
    values = setting_values(results, factor, list(dict.fromkeys(names)))
    if all(isinstance(value, (int, float)) for value in values.values()):
        values = dict(sorted(values.items(), key=lambda item: float(item[1])))
    lines = []
    for measure in measures:
        costs, kind, title = cost_of(results, measure), COSTS[measure].kind, COSTS[measure].title
        shown = {label(factor, value): amount(kind, costs[name]) for name, value in values.items() if name in costs}
        if len(set(shown.values())) > 1:
            parts = listing([f"{text} ({value})" for value, text in shown.items()], 12)
            lines.append(f"{sentence_case(title)} by {factor.rpartition('.')[2]}: {parts}.")
    return lines


class Question(NamedTuple):
    """A question, how it is answered, and why a study may have no answer."""

    text: str
    answer: Callable[[Results], list[str]]
    missing: str


QUESTIONS = {
    "rank": Question("How does rank trade quality for memory?", _rank, "no sweep varies lora.r"),
    "placement": Question(
        "Which modules and which layers need an adapter?",
        _placement,
        "no sweep varies lora.target_modules or lora.layers_to_transform",
    ),
    "quantization": Question(
        "What do 4-bit, 8-bit and 16-bit bases cost and save?", _quantization, "no sweep varies quantization"
    ),
    "best-for-my-gpu": Question(
        "What is the best configuration for my GPU?", _gpu, "no configuration has both a quality and a cost"
    ),
    "inference-speed": Question("What happens to inference speed?", _speed, "no latency was measured ([profile])"),
    "lora-or-full": Question(
        "Is LoRA as good as full fine-tuning, or as a good prompt?",
        _full,
        'no sweep varies method, for example ["none", "lora", "full"]',
    ),
    "real-or-noise": Question("Is the difference real, or noise?", _noise, "nothing is compared"),
}
