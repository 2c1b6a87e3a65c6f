"""How large is the noise: what other seeds, other examples, and the machine alone would change, next to the effects."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.display_names import display_names
from lorafile.analysis.common.format import difference, kind_of, metric_name, on, slug
from lorafile.analysis.common.scores import split_of, values
from lorafile.analysis.compare.outcomes import crossed
from lorafile.analysis.compare.verdict_text import FEW, signed
from lorafile.analysis.noise.floors import Floors, floors
from lorafile.results.results import Results, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

SEEDS = "another seed"
_KEY = 12  # characters of a key that name it


def analyse(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return the noise floor of one metric; nothing where no run has outcomes of single examples."""
    metric = table.metric or results.primary
    split = split_of(results, metric)
    if all(side.exact for side in crossed(results, metric, split).outcomes.values()):
        return []
    noise = floors(results, metric, split)
    name = slug("noise", "" if metric == results.primary else metric)
    rows = floor_rows(noise)
    question = f"How much does {metric_name(metric)} vary by chance?"
    tables = (_table(noise, rows), *([repeats_table(results, metric, split)] if len(results.repeats) else []))
    analysis = Analysis("noise", name, "The noise floor", question, _sentences(noise), tables)
    if not any(row["kind"] == "floor" for row in rows):
        return [analysis]
    from lorafile.analysis.noise.chart import caption, chart

    return [analysis.with_chart(chart(noise, display_names(results), rows), caption(noise))]


def floor_rows(noise: Floors) -> list[dict[str, Any]]:
    """Return one row for each floor: `what`, `size`, `low`, `high`, `kind` (floor: a standard deviation; threshold)."""
    again, part = noise.repeats, min(noise.of_examples, noise.variance.value)
    of_examples = part if isnan(part) else max(part, 0.0) ** 0.5
    sharing = f"{_compared(noise)} share alpha" if noise.effects else "of one comparison"
    parts = [
        ("the same seed again", again.spread, "floor", plural(again.runs, "repeat")),
        (SEEDS, noise.spread, "floor", f"{noise.variance.df} degrees of freedom"),
        ("the part of it due to examples", of_examples, "floor", "seed-by-example residual"),
        ("other examples: one configuration", noise.single, "floor", _examples(noise)),
        ("other examples: a difference", noise.paired, "floor", f"{_examples(noise)}, paired"),
        ("seeds and examples: a difference", noise.error, "floor", _sizes(noise)),
        ("within the noise: below", noise.inside, "threshold", "95 %, one comparison"),
        ("detected with 80 % power: from", noise.detectable, "threshold", sharing),
    ]
    rows = []
    for what, size, kind, source in parts:
        if not isnan(size):
            row: dict[str, Any] = {"what": what, "size": size, "kind": kind, "from": source}
            low, high = noise.interval if what == SEEDS else (None, None)
            rows.append(row | {"shown": difference(noise.scale, size), "low": low, "high": high})
    return rows


def _examples(noise: Floors) -> str:
    return plural(noise.examples, noise.unit)


def _sizes(noise: Floors) -> str:
    return f"{listing(map(str, noise.seeds))} {'seed' if noise.seeds == (1,) else 'seeds'} × {_examples(noise)}"


def _sentences(noise: Floors) -> list[str]:
    metric = noise.scale
    lines = [*_threshold(noise), *_seeds(noise)]
    if not isnan(noise.single):
        line = f"Other examples would change the result of one configuration by {difference(metric, noise.single)}"
        if not isnan(noise.paired):
            line += f", and a difference on the same examples by {difference(metric, noise.paired)}"
        lines.append(f"{line} (standard error, {_examples(noise)}).")
    if noise.clustered is not None:
        correlation = "not known" if isnan(noise.intraclass) else f"{noise.intraclass:.2f}"
        lines.append(
            f"The {noise.clustered[0]} examples are in {noise.clustered[1]} clusters, which are the units that count. "
            "The intraclass correlation (the share of the variance between examples that is due to their cluster) is "
            f"{correlation}."
        )
    return [*lines, _again(noise)]


def _threshold(noise: Floors) -> list[str]:
    """Return the headline: which differences are inside the noise, and which stand out."""
    metric = noise.scale
    if isnan(noise.inside):
        return ["The effect of another seed on a difference is unknown: no configuration has two finished runs."]
    sizes = [abs(verdict.estimate.difference) for verdict in noise.effects if verdict.estimate is not None]
    inside = sum(size < noise.inside for size in sizes)
    below = f"A difference in {on(metric, noise.split)} below {difference(metric, noise.inside)}"
    counted = f": {inside} of {_compared(noise)} {'is' if inside == 1 else 'are'}" if noise.effects else ""
    sharing = ", with alpha shared by all comparisons" if len(noise.effects) > 1 else ""
    return [
        f"{below} is within the noise of this study{counted}.",
        f"With {_sizes(noise)}, a true difference of {difference(metric, noise.detectable)} is detected with 80 % power"
        f"{sharing}.",
    ]


def _compared(noise: Floors) -> str:
    return plural(len(noise.effects), "comparison")


def _seeds(noise: Floors) -> list[str]:
    """Return the spread between seeds, its interval, and how much of it more examples would take away."""
    if isnan(noise.spread):
        return []
    bounds, df = _bounds(noise.scale, *noise.interval), noise.variance.df
    line = f"Another seed changes the result of one run by {difference(noise.scale, noise.spread)}"
    line += f" (standard deviation, 95 % interval {bounds}, {df} degrees of freedom)"
    if noise.variance.value > 0:
        share = min(noise.of_examples / noise.variance.value, 1.0)
        line += (
            f"; about {100 * share:.0f} % of that variance is due to the examples, and more examples would remove it"
        )
    lines = [f"{line}."]
    if noise.variance.differ:
        lines.append(
            "This average excludes configurations that are clearly noisier than the others; each of those has its own."
        )
    if max(noise.seeds) < FEW:
        lines.append(f"With {plural(max(noise.seeds), 'seed')} each, the spread between seeds is itself uncertain.")
    return lines


def _again(noise: Floors) -> str:
    """Return what the machine alone changes: the same seed, done again."""
    return f"{_alone(noise)}{_packs(noise)}"


def _packs(noise: Floors) -> str:
    """Return how many runs were trained in packs, which rounds differently."""
    packed, trained = noise.packed
    if not packed or packed == trained:
        return ""
    return (
        f" {packed} of {plural(trained, 'run')} were trained in packs and the others alone. They differ by rounding, "
        "which is part of the noise; comparisons between them are marked (lora apply --pack off trains all alone)."
    )


def _alone(noise: Floors) -> str:
    again, metric = noise.repeats, noise.scale
    if not again.wanted:
        remedy = "Set study.repeats = 2 to run the first seed of every trained configuration again"
        return f"The effect of the machine alone was not measured. {remedy}."
    if not again.runs:
        return f"{plural(again.wanted, 'repeat')} of the first seed declared, but none has a result yet."
    gone = again.wanted - again.runs
    lost = f" {gone} of {plural(again.wanted, 'repeat')} {'has' if gone == 1 else 'have'} no result." if gone else ""
    done = plural(again.runs, "run")
    bytes_too = f", {again.same} of {again.compared} with identical predictions" if again.compared else ""
    if again.spread == 0:
        return f"The machine alone changes nothing: {done} repeated gave the same result{bytes_too}.{lost}"
    return (
        f"The machine alone changes a result by {difference(metric, again.spread)} "
        f"(standard deviation, {done} repeated with the same seed{bytes_too}).{lost}"
    )


def _table(noise: Floors, rows: list[dict[str, Any]]) -> Table:
    metric = noise.scale
    frame = pd.DataFrame([row | {"interval": _bounds(metric, row["low"], row["high"])} for row in rows])
    columns = (
        Column("what", "what changes"),
        Column("shown", f"changes {on(metric, noise.split)} by"),
        Column("interval", "95 % interval"),
        Column("from", "from"),
    )
    return Table("Noise", frame, columns)


def _bounds(metric: str, low: float | None, high: float | None) -> str:
    """Return `1.0 to 1.6`, of what is never below zero."""
    return "" if low is None or high is None else f"{signed(metric, low)[1:]} to {signed(metric, high)[1:]}"


def repeats_table(results: Results, metric: str, split: str) -> Table:
    """Return one row for each repeat, those without a figure among them."""
    name = f"{split}.{metric}"
    first = values(results, name)
    keys = ("configuration", "seed", "repeat", "outcome", name, "same_predictions", "key")
    rows: list[dict[str, Any]] = []
    for label, seed, repeat, outcome, value, same, key in rows_of(results.repeats, *keys):
        row = {"configuration": label, "seed": str(int(seed)), "repeat": str(int(repeat)), "runs": outcome}
        row |= {"first": first.get((label, seed)), "value": value if outcome == "done" else None}
        row |= {"same": "" if same is None else "yes" if same else "no", "key": str(key or "")[:_KEY]}
        rows.append(row)
    columns = (
        Column("configuration", "configuration"),
        Column("seed", "seed"),
        Column("repeat", "repeat"),
        Column("first", f"{on(metric, split)}, first run", kind_of(metric)),
        Column("value", "this run", kind_of(metric)),
        Column("same", "same predictions"),
        Column("runs", "run"),
        Column("key", "key"),
    )
    return Table("Repeats of the first seed", pd.DataFrame(rows), columns)
