"""The cheapest mix of seeds and test rows that detects a difference, priced by the plan that it would have."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from lorafile.analysis.compare.outcomes import margin_of
from lorafile.analysis.sensitivity.planned import PlannedSensitivity, StudySize, design, planned_sensitivity
from lorafile.errors import ArgumentError
from lorafile.graph.splits import Rows, draw
from lorafile.lock.lockfile import identity
from lorafile.plan.cost import CostEstimate, estimate_cost
from lorafile.plan.plan import Plan
from lorafile.plan.planner import make_plan
from lorafile.specs import Configuration, Spec
from lorafile.specs.tables.data import DataTable
from lorafile.specs.values import MARGIN
from lorafile.state import State
from lorafile.statistics.planning import POWER
from lorafile.statistics.sensitivity import power_of_difference

FEWEST, MOST = 3, 50  # seeds: below three every verdict is called weak
_MOST_ROWS = 1_000_000
_LARGEST = 2**31


@dataclass(frozen=True)
class Mix:
    """Seeds and test rows, and what they cost: `cost` of the plan with them, `now` of the plan as it is."""

    seeds: int
    rows: int
    cost: CostEstimate
    now: CostEstimate


@dataclass(frozen=True)
class Detection:
    """What detects a difference.

    :ivar planned: what the study will be able to conclude as it is
    :ivar wanted: the difference, in the metric's unit
    :ivar mix: the cheapest one; None where none detects it
    :ivar most_rows: the test rows that there are
    :ivar enough_rows: how many would be enough under the most seeds that are tried, None where no number would
    """

    planned: PlannedSensitivity
    wanted: float
    mix: Mix | None
    most_rows: int
    enough_rows: int | None = None


def detection(plan: Plan, state: State, difference: str, gpu: str | None = None) -> Detection:
    """Return the cheapest mix that detects a difference in a study.

    :param difference: as it is typed: `1pt`
    :raises LoraError: when it is no difference, the study compares nothing, or nothing is known of the variance
    """
    planned = planned_sensitivity(plan, state)
    if planned is None:
        raise ArgumentError(
            "detect", "no comparison in the study depends on the seed, so there is no difference to detect"
        )
    if planned.variance is None:
        remedy = 'Set verdict.expect_sd to the standard deviation you expect, such as "1.5pt"'
        raise ArgumentError("difference", f"the variation between seeds is unknown. {remedy}")
    return cheapest_mix(plan, state, planned, wanted_difference(difference, planned), gpu)


def wanted_difference(text: str, planned: PlannedSensitivity) -> float:
    """Return a difference in the metric's unit, from `1pt`, `1%` of the typical figure, or a number.

    :raises LoraError: when it is none, or the metric has no points
    """
    variance = planned.variance
    size: float | None = None
    if re.fullmatch(MARGIN, text):
        size = margin_of(text, planned.metric, variance.mean if variance else float("nan"))
    elif re.fullmatch(r"[0-9]*\.?[0-9]+(e-?[0-9]+)?", text, re.IGNORECASE):
        size = float(text)
    if size is None or not size > 0:
        remedy = "write, for example, 1pt (percentage points), or a number in the metric's unit such as 0.01"
        raise ArgumentError("difference", f'"{text}" is not a valid difference in {planned.metric}; {remedy}')
    return size


def cheapest_mix(plan: Plan, state: State, planned: PlannedSensitivity, wanted: float, gpu: str | None) -> Detection:
    """Return the cheapest mix that detects a difference with 80 % power.

    Of each number of seeds, the fewest test rows that are enough; seeds go up for as long as that is cheaper.
    """
    size, most = planned.size, most_rows(plan, planned)
    largest = size.with_rows(most)
    if not detects(planned, largest.with_seeds(MOST), wanted):
        return Detection(planned, wanted, None, most, _rows_beyond(planned, wanted))
    now, best = estimate_cost(plan), None
    least = _least(FEWEST - 1, MOST, lambda seeds: detects(planned, largest.with_seeds(seeds), wanted))
    for seeds in range(least, MOST + 1):
        rows = _fewest_rows(planned, size.with_seeds(seeds), wanted, most)
        priced = Mix(seeds, rows, _price(plan, state, seeds, rows, planned, gpu), now)
        if best is not None and _order(priced) >= _order(best):
            break
        best = priced
        if rows <= size.rows:
            break
    return Detection(planned, wanted, best, most)


def _order(mix: Mix) -> tuple[float, float]:
    return mix.cost.device_hours, mix.cost.seconds


def detects(planned: PlannedSensitivity, size: StudySize, wanted: float) -> bool:
    """Return whether a study of a size detects a difference with the usual power."""
    if planned.variance is None:
        return False
    of_size = design(size, planned.variance)
    return wanted <= of_size.reach and power_of_difference(of_size, wanted, planned.level) >= POWER


def _fewest_rows(planned: PlannedSensitivity, size: StudySize, wanted: float, most: int) -> int:
    """Return the fewest test rows that detect a difference, no fewer than there are, at most so many."""
    if most <= size.rows or detects(planned, size, wanted):
        return size.rows
    return _least(size.rows, most, lambda rows: detects(planned, size.with_rows(rows), wanted))


def _rows_beyond(planned: PlannedSensitivity, wanted: float) -> int | None:
    size = planned.size.with_seeds(MOST)
    if not detects(planned, size.with_rows(_MOST_ROWS), wanted):
        return None
    return _least(size.rows, _MOST_ROWS, lambda rows: detects(planned, size.with_rows(rows), wanted))


def _least(low: int, high: int, enough: Callable[[int], bool]) -> int:
    """Return the least number that is enough, up to a hundredth; `high` is taken to be, and `low` not to be."""
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def most_rows(plan: Plan, planned: PlannedSensitivity) -> int:
    """Return how many test rows there are, without those of other splits: as many as are used where data vary."""
    spec = plan.graph.spec
    tables = {c.data.as_text: c.data for c in spec.configurations}
    if len(tables) > 1:
        return planned.size.rows
    [table] = tables.values()
    lock = plan.graph.lock.data[identity(table)]
    drawn = draw(table.split, table.split_seed, lock.rows, lock.cluster)
    own, others = drawn[planned.split], [rows for name, rows in drawn.items() if name != planned.split]
    neighbours = [rows for rows in others if rows.source == own.source]
    if own.seed is None:
        end = min((rows.start for rows in neighbours if rows.start >= own.stop), default=lock.rows[own.source])
        return max(end - own.start, planned.size.rows)
    if any(not isinstance(getattr(table.split, name), int) for name in drawn if drawn[name] in neighbours):
        return planned.size.rows  # what is not counted out is for training, and would become less
    return max(lock.rows[own.source] - sum(rows.count for rows in neighbours), planned.size.rows)


def _price(
    plan: Plan, state: State, seeds: int, rows: int, planned: PlannedSensitivity, gpu: str | None
) -> CostEstimate:
    """Return the cost of the plan with other seeds and other test rows."""
    spec = resized(plan, planned, seeds, rows)
    other = make_plan(spec, plan.graph.lock, state, options=plan.options, gpu=gpu)
    return estimate_cost(replace(other, workers=plan.workers, hourly=plan.hourly))


def resized(plan: Plan, planned: PlannedSensitivity, seeds: int, rows: int) -> Spec:
    """Return the spec of a plan with so many seeds, its own first, and so many test rows."""
    spec = plan.graph.spec
    tables = spec.tables.model_copy(
        update={"study": spec.tables.study.model_copy(update={"seeds": _seeds(spec, seeds)}), "stage": []}
    )
    if rows == planned.size.rows:
        return replace(spec, tables=tables)
    table = spec.configurations[0].data
    lock = plan.graph.lock.data[identity(table)]
    own = draw(table.split, table.split_seed, lock.rows, lock.cluster)[planned.split]
    data = _with_rows(table, planned.split, own, rows)
    configurations = tuple(_with_data(c, data) for c in spec.configurations)
    return replace(spec, tables=tables.model_copy(update={"data": data}), configurations=configurations)


def _with_rows(table: DataTable, split: str, own: Rows, rows: int) -> DataTable:
    asked: Any = rows if own.seed is not None else f"{own.source}[{own.start}:{own.start + rows}]"
    settings = dict(table) | {"split": table.split.model_copy(update={split: asked})}
    return DataTable.model_construct(**settings)  # and no copy, which would keep the text of the one it is made from


def _with_data(configuration: Configuration, data: DataTable) -> Configuration:
    tuned = configuration.tuned
    if tuned is not None:
        tuned = replace(tuned, candidates=tuple(_with_data(candidate, data) for candidate in tuned.candidates))
    return configuration._replace(data=data, tuned=tuned)


def _seeds(spec: Spec, number: int) -> list[int]:
    """Return so many seeds: those that the study has, then the ones after its largest."""
    own = [*spec.tables.study.seeds, *(seed for stage in spec.tables.stage for seed in stage.seeds)]
    first = max(own) + 1 if max(own) + number < _LARGEST else 0
    return [*own, *islice((seed for seed in count(first) if seed not in own), max(number - len(own), 0))][:number]
