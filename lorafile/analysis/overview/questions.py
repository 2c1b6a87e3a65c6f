"""The questions that people bring to a LoRA study, each answered in a few sentences from its verdicts and costs."""

from collections import Counter
from collections.abc import Callable
from statistics import median

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.common.factors import label, setting_labels, setting_values
from lorafile.analysis.common.format import amount, on, sentence_case
from lorafile.analysis.common.scores import COSTS, cost_of, profiled
from lorafile.analysis.compare.outcomes import compared_as
from lorafile.analysis.compare.verdict_text import levels, sentence, signed_difference
from lorafile.analysis.compare.verdicts import Verdict, family
from lorafile.analysis.noise import noise
from lorafile.analysis.recommend import recommend
from lorafile.analysis.tradeoffs import cost
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

QUESTIONS = {
    "rank": "How does rank trade quality for memory?",
    "placement": "Which modules and which layers need an adapter?",
    "quantization": "What do 4-bit, 8-bit and 16-bit bases cost and save?",
    "best-for-my-gpu": "What is the best configuration for my GPU?",
    "inference-speed": "What happens to inference speed?",
    "lora-or-full": "Is LoRA as good as full fine-tuning, or as a good prompt?",
    "real-or-noise": "Is the difference real, or noise?",
}
PLACEMENT = ("lora.target_modules", "lora.layers_to_transform", "lora.exclude_modules", "lora.layers_pattern")


def answer(results: Results, table: AnalysisTable, asked: bool) -> list[Analysis]:
    """Return the answer to one question; where the study says nothing of it, that, if somebody asked."""
    name = table.ask or ""
    lines = _ANSWERS[name](results) if len(results.runs) else []
    if not lines and not asked:
        return []
    said = lines or [f"This study says nothing of it: {_MISSING[name]}."]
    return [Analysis("question", f"question-{name}", QUESTIONS[name], QUESTIONS[name], said)]


def _rank(results: Results) -> list[str]:
    return [*_along(results, ("lora.r",)), *_costs(results, "lora.r", ("train_memory", "adapter_size"))]


def _placement(results: Results) -> list[str]:
    return [line for factor in PLACEMENT for line in _along(results, (factor,))]


def _quantization(results: Results) -> list[str]:
    costs = ("train_memory", "generate_memory", "train_time", "token_latency")
    return [*_along(results, ("quantization",)), *_costs(results, "quantization", costs)]


def _gpu(results: Results) -> list[str]:
    declared = [table for table in results.declared if table.kind == "recommend"]
    made = [recommend.analyse(results, table) for table in declared or [AnalysisTable(kind="recommend")]]
    return [line for found in made for analysis in found for line in analysis.sentences]


def _speed(results: Results) -> list[str]:
    """Return what an attached adapter costs, what merging gives back, and what a quantized base does."""
    seconds, by_method = profiled(results, "token_seconds"), results.methods
    bases = setting_labels(results, "quantization")
    untuned = {bases.get(name, ""): seconds[name] for name in seconds if by_method.get(name) == "none"}
    ratios = {
        name: seconds[name] / untuned[bases.get(name, "")] - 1
        for name in seconds
        if by_method.get(name) not in ("none", "full", None) and untuned.get(bases.get(name, ""))
    }
    lines = []
    if ratios:
        low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
        told = f"An attached adapter changes the time per token by {cost.signed_share(median(ratios.values()))}"
        if len(ratios) > 1:
            ends = f"{cost.signed_share(ratios[low])} ({low}) to {cost.signed_share(ratios[high])} ({high})"
            told += f" (median of {plural(len(ratios), 'configuration')}; {ends})"
        lines.append(f"{told}, against the untuned base.")
    lines += cost.merging(cost.cost_rows(results))
    return [*lines, *_costs(results, "quantization", ("token_latency",)), *cost.untrusted(results)] if lines else []


def _full(results: Results) -> list[str]:
    """Return the verdicts along the method, and what each side trains and takes."""
    found = [verdict for verdict in family(results).verdicts if verdict.pair.factor == "method"]
    lines = [sentence(results, verdict) for verdict in found]
    names = list(dict.fromkeys(name for verdict in found for name in (verdict.pair.other, verdict.pair.one)))
    by_method = results.methods
    for measure in ("trainable_parameters", "train_memory", "train_time"):
        measured = {name: value for name, value in cost_of(results, measure).items() if name in names}
        kind, title = COSTS[measure].kind, COSTS[measure].title
        told = [f"{amount(kind, value)} ({name})" for name, value in measured.items() if by_method[name] != "none"]
        if len(told) > 1:
            lines.append(f"{sentence_case(title)}: {listing(told)}.")
    return lines


_COUNTED = {
    "equivalent": "show that there is none that matters",
    "non-inferior": "show that the first is not inferior",
    "inconclusive": "are not decided",
}


def _noise(results: Results) -> list[str]:
    judged = family(results).judged
    words = Counter(verdict.word for verdict in judged)
    lines = []
    if judged:
        told = [f"{words['better'] + words['worse']} show a real difference"]
        told += [f"{words[word]} {text}" for word, text in _COUNTED.items() if words[word]]
        lines.append(f"Of {plural(len(judged), 'comparison')}, {listing(told)} ({levels(judged)} over all of them).")
    measured = noise.analyse(results, AnalysisTable(kind="noise"))
    return lines + (measured[0].sentences if measured else [])


def _along(results: Results, factors: tuple[str, ...]) -> list[str]:
    """Return the verdicts along a factor, one sentence for each configuration that the others are held against."""
    mine = [verdict for verdict in family(results).verdicts if verdict.pair.factor in factors]
    against: dict[str, list[Verdict]] = {}
    for verdict in mine:
        against.setdefault(verdict.pair.other, []).append(verdict)
    return [grouped(verdicts) for verdicts in against.values()]


_WORDS = {
    "better": "better",
    "worse": "worse",
    "equivalent": "equivalent within the margin",
    "non-inferior": "not inferior",
    "inconclusive": "not decided",
    "none": "without a verdict",
    "refused": "not compared",
}


def grouped(verdicts: list[Verdict]) -> str:
    """Return the verdicts on all that is held against one configuration, in one sentence, by verdict."""
    first = verdicts[0]
    parts = []
    for word, text in _WORDS.items():
        members = [_short(verdict) for verdict in verdicts if verdict.word == word]
        if members:
            parts.append(f"{text}: {listing(members, 12)}")
    return f"Against {first.pair.other}, in {on(compared_as(first.metric), first.split)}, {'; '.join(parts)}."


def _short(verdict: Verdict) -> str:
    """Return `r=16 (+24.1 points)`: the configuration within its sweep, and the difference."""
    name = verdict.pair.one.partition("/")[2] or verdict.pair.one
    if verdict.estimate is None:
        return name
    return f"{name} ({signed_difference(compared_as(verdict.metric), verdict.estimate.difference)})"


def _costs(results: Results, factor: str, measures: tuple[str, ...]) -> list[str]:
    """Return what each measure of cost does along a factor, over the configurations that the verdicts compare."""
    names = [name for v in family(results).verdicts if v.pair.factor == factor for name in (v.pair.other, v.pair.one)]
    values = setting_values(results, factor, list(dict.fromkeys(names)))
    if all(isinstance(value, (int, float)) for value in values.values()):
        values = dict(sorted(values.items(), key=lambda item: float(item[1])))
    lines = []
    for measure in measures:
        found = cost_of(results, measure)
        kind, title = COSTS[measure].kind, COSTS[measure].title
        known = {label(factor, value): amount(kind, found[name]) for name, value in values.items() if name in found}
        told = [f"{shown} ({value})" for value, shown in known.items()]
        if len(set(known.values())) > 1:
            lines.append(f"{sentence_case(title)} by {factor.rpartition('.')[2]}: {listing(told, 12)}.")
    return lines


_ANSWERS: dict[str, Callable[[Results], list[str]]] = {
    "rank": _rank,
    "placement": _placement,
    "quantization": _quantization,
    "best-for-my-gpu": _gpu,
    "inference-speed": _speed,
    "lora-or-full": _full,
    "real-or-noise": _noise,
}
_MISSING = {
    "rank": "no sweep varies lora.r",
    "placement": "no sweep varies lora.target_modules or lora.layers_to_transform",
    "quantization": "no sweep varies quantization",
    "best-for-my-gpu": "no configuration has both a quality and a cost",
    "inference-speed": "no latency was measured ([profile])",
    "lora-or-full": 'no sweep varies method, for example ["none", "lora", "full"]',
    "real-or-noise": "nothing is compared",
}
