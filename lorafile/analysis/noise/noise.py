"""How large is the noise: what other seeds, other examples, and the machine alone would change; beside the effects."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import difference, kind_of, metric_name, on, slug
from lorafile.analysis.common.scores import split_of, values
from lorafile.analysis.compare.outcomes import compared_as, crossed
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
    if not any(not one.exact for one in crossed(results, metric, split).outcomes.values()):
        return []
    found = floors(results, metric, split)
    name = slug("noise", "" if metric == results.primary else metric)
    rows = floor_rows(found)
    question = f"How far does {metric_name(metric)} move without any cause?"
    tables = (_table(found, rows), *([repeats_table(results, metric, split)] if len(results.repeats) else []))
    made = Analysis("noise", name, "The noise floor", question, _sentences(found), tables)
    if not any(row["kind"] == "floor" for row in rows):
        return [made]
    from lorafile.analysis.noise.chart import caption, chart

    return [made.with_chart(chart(found, rows), caption(found))]


def floor_rows(found: Floors) -> list[dict[str, Any]]:
    """Return one row for each floor: `what`, `size`, `low`, `high`, `kind` (floor: a standard deviation; threshold)."""
    again, part = found.repeats, min(found.of_examples, found.variance.value)
    parts = [
        ("the same seed again", again.spread, "floor", plural(again.runs, "repeat")),
        (SEEDS, found.spread, "floor", f"{found.variance.df} degrees of freedom"),
        ("of it the examples' part", _root(part), "floor", "seed-by-example residual"),
        ("other examples: one configuration", found.one, "floor", _examples(found)),
        ("other examples: a difference", found.paired, "floor", f"{_examples(found)}, paired"),
        ("seeds and examples: a difference", found.error, "floor", _sizes(found)),
        ("inside the noise, below", found.inside, "threshold", "95 %, one comparison"),
        (
            "found with 80 % power, from",
            found.found,
            "threshold",
            f"{_compared(found)} share alpha" if found.effects else "of one comparison",
        ),
    ]
    metric, rows = compared_as(found.metric), []
    for what, size, kind, source in parts:
        row: dict[str, Any] = {
            "what": what,
            "size": size,
            "kind": kind,
            "from": source,
            "shown": difference(metric, size),
        }
        low, high = found.interval if what == SEEDS else (None, None)
        rows.append(row | {"low": low, "high": high})
    return [row for row in rows if not isnan(row["size"])]


def _root(variance: float) -> float:
    return variance if isnan(variance) else max(variance, 0.0) ** 0.5


def _examples(found: Floors) -> str:
    return plural(found.examples, "example")


def _sizes(found: Floors) -> str:
    return f"{listing(map(str, found.seeds))} {'seed' if found.seeds == (1,) else 'seeds'} × {_examples(found)}"


def _sentences(found: Floors) -> list[str]:
    metric = compared_as(found.metric)
    lines = [*_threshold(found), *_seeds(found)]
    if not isnan(found.one):
        line = f"Other examples would move the figure of one configuration by {difference(metric, found.one)}"
        if not isnan(found.paired):
            line += f", and a difference, judged on the same examples, by {difference(metric, found.paired)}"
        lines.append(f"{line} (standard error, {_examples(found)}).")
    return [*lines, _again(found)]


def _threshold(found: Floors) -> list[str]:
    """Return the headline: which differences are inside the noise, and which stand out."""
    metric = compared_as(found.metric)
    if isnan(found.inside):
        return ["Nothing tells how far another seed would move a difference: no configuration has two finished runs."]
    inside = [one for one in found.effects if one.estimate and abs(one.estimate.difference) < found.inside]
    where = f"A difference in {on(metric, found.split)} below {difference(metric, found.inside)}"
    counted = f"{len(inside)} of {_compared(found)} {'is' if len(inside) == 1 else 'are'}"
    lines = [f"{where} is inside the noise of this study{f': {counted}' if found.effects else ''}."]
    lines.append(
        f"With {_sizes(found)} a true difference of {difference(metric, found.found)} is found with 80 % power"
        f"{', all comparisons sharing alpha' if len(found.effects) > 1 else ''}."
    )
    return lines


def _compared(found: Floors) -> str:
    return plural(len(found.effects), "comparison")


def _seeds(found: Floors) -> list[str]:
    """Return the spread between seeds, its interval, and how much of it more examples would take away."""
    if isnan(found.spread):
        return []
    metric, (low, high) = compared_as(found.metric), found.interval
    bounds = _bounds(metric, low, high)
    line = f"Another seed moves the figure of one run by {difference(metric, found.spread)}"
    line += f" (standard deviation, 95 % interval {bounds}, {found.variance.df} degrees of freedom)"
    if found.variance.value > 0:
        share = min(found.of_examples / found.variance.value, 1.0)
        line += f"; about {100 * share:.0f} % of that variance is the examples' and would vanish with more of them"
    lines = [f"{line}."]
    if found.variance.differ:
        lines.append(
            "Configurations clearly differ in it, so that this is an average, and each difference has its own."
        )
    if max(found.seeds) < FEW:
        lines.append(f"With {plural(max(found.seeds), 'seed')} each, the spread between seeds is itself uncertain.")
    return lines


def _again(found: Floors) -> str:
    """Return what the machine alone changes: the same seed, done again."""
    again, metric = found.repeats, compared_as(found.metric)
    if not again.wanted:
        return (
            "What the machine alone changes was not measured; study.repeats = 2 runs the first seed of every trained "
            "configuration again."
        )
    if not again.runs:
        return f"{plural(again.wanted, 'repeat')} of the first seed declared, and none has a figure yet."
    gone = again.wanted - again.runs
    lost = f" {gone} of {plural(again.wanted, 'repeat')} {'has' if gone == 1 else 'have'} no figure." if gone else ""
    done = plural(again.runs, "run")
    bytes_too = f", {again.same} of {again.known} with the very same predictions" if again.known else ""
    if again.spread == 0:
        return f"The machine alone changes nothing: {done} done again gave the same figure{bytes_too}.{lost}"
    return (
        f"The machine alone moves a figure by {difference(metric, again.spread)} "
        f"(standard deviation, {done} done again under the same seed{bytes_too}).{lost}"
    )


def _table(found: Floors, rows: list[dict[str, Any]]) -> Table:
    metric = compared_as(found.metric)
    frame = pd.DataFrame([row | {"interval": _bounds(metric, row["low"], row["high"])} for row in rows])
    columns = (
        Column("what", "what changes"),
        Column("shown", f"moves {on(metric, found.split)} by"),
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
        Column("repeat", "time"),
        Column("first", f"{on(metric, split)}, the first time", kind_of(metric)),
        Column("value", "this time", kind_of(metric)),
        Column("same", "same predictions"),
        Column("runs", "run"),
        Column("key", "key"),
    )
    return Table("Repeats of the first seed", pd.DataFrame(rows), columns)
