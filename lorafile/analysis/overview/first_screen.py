"""What a reader sees first: what was measured in one line, the answer in three sentences, one table, one chart."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table, filled
from lorafile.analysis.common.format import amount, kind_of, metric_name, on, rate, score
from lorafile.analysis.common.rate_groups import peak_rates
from lorafile.analysis.common.scores import best, price_of, references, scores, split_of
from lorafile.analysis.compare.outcomes import crossed, figure_interval
from lorafile.analysis.compare.verdict_text import signed_difference
from lorafile.analysis.compare.verdicts import family
from lorafile.analysis.recommend.choice import Recommendation
from lorafile.analysis.recommend.recommend import recommendations
from lorafile.analysis.recommend.text import OPTIMISTIC, brief
from lorafile.results.results import Results, cells, grouped, row_dicts, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

_COSTS = ("train_memory", "adapter_size", "train_time", "trainable_parameters")
_TAIL = 0.2  # the last part of a run, in which a loss that is done falls no more
_FALLING = 0.1  # of all that it fell: what falls more in that part is still falling


@dataclass(frozen=True)
class FirstScreen:
    """The top of the report.

    :ivar provenance: parts of one line: model, data, seeds and examples, how long was trained, device, date, commit
    :ivar sentences: the answer, three at most
    :ivar table: the configurations that the answer is about
    :ivar chart: quality against cost, where a cost differs
    """

    provenance: tuple[str, ...]
    sentences: tuple[str, ...]
    table: Table | None
    chart: Analysis | None


def first_screen(results: Results, analyses: list[Analysis]) -> FirstScreen | None:
    """Return the top of the report; None where no configuration has a figure yet, and across several studies.

    :param analyses: those of the page, among which the chart is taken where one is there
    """
    metric, split = results.primary, split_of(results, results.primary)
    if results.studies > 1 or not any(figure.known for figure in scores(results, f"{split}.{metric}").values()):
        return None
    choice = _choice(results)
    frontier = next((one for one in analyses if one.kind == "pareto" and one.charts), None) or _frontier(results)
    return FirstScreen(_provenance(results), _answer(results, choice), _table(results, choice), frontier)


def _choice(results: Results) -> Recommendation | None:
    declared = [table for table in results.declared if table.kind == "recommend"]
    found = recommendations(results, (declared or [AnalysisTable(kind="recommend")])[0])
    cheapest = (one for one in found if any(by.by == "cost" and not by.limits for by in one.budgets))
    return next(cheapest, next(iter(found), None))


def _answer(results: Results, choice: Recommendation | None) -> tuple[str, ...]:
    """Return what to use and how sure that is, and what the untuned model does."""
    metric, split = results.primary, split_of(results, results.primary)
    figures = scores(results, f"{split}.{metric}")
    lines = list(brief(results, choice)) if choice is not None else []
    if not lines:
        top = best(results, results.names, metric)
        value = score(metric, figures[top].mean) if top else ""
        said = f"mean on validation, and {value} on test" if split == "test" else f"mean: {value}"
        lines = [f"{top} has the best {said}."] if top else []
    untuned = [name for name, role in references(results).items() if role == "untuned" and figures[name].known]
    if untuned and len(lines) < 3:
        lines.append(f"Without training ({untuned[0]}), it is {score(metric, figures[untuned[0]].mean)}.")
    if split != "test" and OPTIMISTIC not in " ".join(lines):
        lines = [*lines[:2], OPTIMISTIC]
    return tuple(lines[:3])


def _table(results: Results, choice: Recommendation | None) -> Table | None:
    """Return the recommended, the best, the baseline, the untuned and the fully fine-tuned configuration."""
    metric, split = results.primary, split_of(results, results.primary)
    figures, roles = scores(results, f"{split}.{metric}"), list[tuple[str, str]]()
    against = Counter(verdict.pair.other for verdict in family(results).verdicts)
    baseline = against.most_common(1)[0][0] if against else None
    if choice is not None and choice.taken is not None:
        roles += [(choice.leader, "safe choice")] if choice.role.startswith("cheapest") else []
        roles.append((choice.taken, choice.role))
    if (top := best(results, results.names, metric)) is not None:
        roles.append((top, "best on validation"))
    roles += [(baseline, "baseline")] if baseline else []
    roles += list(references(results).items())
    by_name = grouped((name, role) for name, role in roles if figures[name].known)
    prices = {cost: price_of(results, cost) for cost in _COSTS}
    rows = []
    for name, own in by_name.items():
        row: dict[str, Any] = {"configuration": name, "role": ", ".join(dict.fromkeys(own))}
        row |= {"figure": figures[name].mean, "interval": _interval(results, name, metric, split)}
        row |= {cost: prices[cost].get(name) for cost in _COSTS}
        verdict = family(results).of(name, baseline) if baseline and name != baseline else None
        if verdict is not None and verdict.decision is not None:
            turned = verdict.pair.one != name
            word = {"better": "worse", "worse": "better"}.get(verdict.word, verdict.word) if turned else verdict.word
            gap = verdict.estimate.difference * (-1 if turned else 1) if verdict.estimate else 0.0
            row["verdict"] = f"{word} ({signed_difference(verdict.scale, gap)})"
        rows.append(row)
    columns = (
        Column("configuration", "configuration"),
        Column("role", "role"),
        Column("figure", on(metric, split), kind_of(metric)),
        Column("interval", "95 % interval"),
        Column("train_memory", "peak training memory", "bytes"),
        Column("train_time", "training time", "seconds"),
        Column("adapter_size", "saved size", "bytes"),
        Column("trainable_parameters", "trainable parameters", "count"),
        Column("verdict", f"against {baseline}" if baseline else "verdict"),
    )
    frame = pd.DataFrame(rows)
    return Table("The answer in numbers", frame, filled(columns, row_dicts(frame))) if rows else None


def _interval(results: Results, name: str, metric: str, split: str) -> str:
    ends = figure_interval(results, name, metric, split)
    return "" if isinstance(ends, str) else f"{score(metric, ends[0])} to {score(metric, ends[1])}"


def _frontier(results: Results) -> Analysis | None:
    """Return quality against the first cost in which configurations differ."""
    from lorafile.analysis.tradeoffs.pareto import analyse

    for cost in _COSTS:
        if len({*price_of(results, cost).values()} - {0.0}) > 1:
            found = analyse(results, AnalysisTable(kind="pareto", measures=[results.primary, cost]))
            return found[0] if found and found[0].charts else None
    return None


def _provenance(results: Results) -> tuple[str, ...]:
    """Return what was measured: each part short enough for one line of all."""
    metric, split = results.primary, split_of(results, results.primary)
    model, train = results.model, (results.data.get("splits") or {}).get("train", {})
    size = f"{amount('count', model['parameters'])} parameters" if model.get("parameters") else ""
    path = str(model.get("path", "")).rstrip("/").rpartition("/")[2]
    parts = [f"{path} ({', '.join(filter(None, (size, str(model.get('dtype') or ''))))})" if path else ""]
    data = str(results.data.get("path", "")).rstrip("/").rpartition("/")[2]
    rows = f", {plural(train['examples'], 'training row')}" if train.get("examples") else ""
    parts.append(f"{data}{rows}" if data else "")
    sides = crossed(results, metric, split).outcomes
    side = next((one for one in sides.values() if not one.exact), None)
    seeds = plural(len(results.seeds), "seed")
    parts.append(f"{seeds} × {plural(side.examples, f'{split} {side.unit}')}" if side else seeds)
    parts.append(_training(results))
    devices = dict.fromkeys(str(row["device"]) for row in results.environments if row.get("device"))
    parts.append(listing(list(devices), 3))
    parts.append(results.look_dates[-1] if results.look_dates and results.look_dates[-1] else "")
    parts.append(f"spec at commit {results.commit}" if results.commit else "")
    return tuple(filter(None, parts))


def _training(results: Results) -> str:
    """Return how long was trained: `188 steps, 2 epochs, effective batch 32, learning rate 0.002`."""
    settings = [
        detail.settings.get("training", {})
        for (name, _), detail in results.details.items()
        if results.methods.get(name) != "none"
    ]
    batches = {
        one["per_device_train_batch_size"] * one.get("gradient_accumulation_steps", 1)
        for one in settings
        if one.get("per_device_train_batch_size")
    }
    epochs = {one["num_train_epochs"] for one in settings if one.get("num_train_epochs") and not _by_steps(one)}
    steps = {int(value) for value in cells(results.runs, "steps") if value is not None}
    trained = [name for name, method in results.methods.items() if method != "none"]
    rates = {value for value in peak_rates(results, trained).values() if value == value}
    parts = [f"{_span(steps)} steps" if steps else "", f"{_span(epochs)} epochs" if epochs else ""]
    parts.append(f"effective batch {_span(batches)}" if batches else "")
    if rates:
        ends = [rate(value) for value in dict.fromkeys((min(rates), max(rates)))]
        parts.append(f"learning rate {' to '.join(ends)}")
    return ", ".join(filter(None, parts))


def _by_steps(settings: dict[str, Any]) -> bool:
    return (settings.get("max_steps") or 0) > 0


def _span(values: set[Any]) -> str:
    return " to ".join(f"{value:g}" for value in dict.fromkeys((min(values), max(values))))


def short_training(results: Results) -> list[str]:
    """Say where training was so short that the loss still fell: which configuration is best may change with more.

    A run that was best on validation before its last step was long enough.
    """
    ends = rows_of(results.runs, "configuration", "seed", "best_step", "steps")
    settled = {(name, seed) for name, seed, best, steps in ends if best is not None and best < steps}
    runs = grouped(
        ((name, seed), (step, loss))
        for name, seed, step, loss in rows_of(results.curves, "configuration", "seed", "step", "loss")
        if loss is not None and (name, seed) not in settled
    )
    falling = {run: _still_falling([loss for _, loss in sorted(curve)]) for run, curve in runs.items()}
    told = [run for run, share in falling.items() if share > _FALLING]
    if not falling or len(told) * 2 < len(falling):
        return []
    share = 100 * fmean(falling[run] for run in told)  # above 100 where it rose before
    steps = {len(curve) for curve in runs.values()}
    return [
        f"Training was short ({_span(steps)} steps): in {len(told)} of {plural(len(falling), 'run')} the loss was "
        f"still falling: {f'{share:.0f} %' if share < 99.5 else 'all'} of its decrease came in the last fifth of the "
        f"steps. Longer training may change which configuration is best in {metric_name(results.primary)}."
    ]


def _still_falling(losses: list[float]) -> float:
    """Return which share of a loss's fall falls into the last part of a run: means over parts, for it is noisy."""
    part = max(int(len(losses) * _TAIL), 1)
    if len(losses) < 3 * part:
        return 0.0
    first, before, last = fmean(losses[:part]), fmean(losses[-2 * part : -part]), fmean(losses[-part:])
    return min((before - last) / (first - last), 1.0) if first > last else 0.0  # it may have risen in between
