"""What a plan would cost, and an apply that keeps to a budget."""

from dataclasses import replace
from pathlib import Path

import pytest

from lorafile.apply.budget import Budget
from lorafile.errors import LoraError
from lorafile.plan.clusters.machines import price_of_an_hour as price
from lorafile.plan.cost import estimate_cost
from lorafile.state import State
from lorafile.study.study import Study

SPEC = """
[study]
name = "b"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
split = { train = 16, validation = 4, test = 4 }
[train]
max_steps = 2
[evaluate]
metrics = ["log_loss"]
primary = "log_loss"
[profile]
enabled = false
"""


def study(tmp_path: Path) -> Study:
    file = tmp_path / "study.toml"
    file.write_text(SPEC, encoding="utf-8")
    return Study.load(file, tmp_path / "state")


def test_a_price_makes_money_of_the_hours(tmp_path: Path) -> None:
    plan = study(tmp_path).plan()
    assert estimate_cost(plan).cost is None
    plan = replace(plan, hourly=price("2.50/h"))
    sums = estimate_cost(plan)
    assert sums.cost == pytest.approx(2.5 * sums.device_hours)
    assert sums.seconds == pytest.approx(sum((change.forecast or {})["seconds"] for change in plan.work))
    assert sums.seconds_low < sums.seconds < sums.seconds_high


def test_a_price_is_a_number_by_the_hour() -> None:
    assert price("3") == price("3/h") == 3.0
    assert price("3").money(1.5) == "1.50"
    for wrong in ("cheap", "$2 EUR/h", "2.50/h/h", "-1/h", "2.50 h"):
        with pytest.raises(LoraError, match=r"2\.50/h"):
            price(wrong)
    with pytest.raises(LoraError, match="--price"):
        Budget.of(None, 10.0, None)


@pytest.mark.parametrize(
    ("typed", "money"),
    [
        ("$2.50/h", "$84.00"),
        ("2.50 EUR/h", "84.00 EUR"),
        ("USD 2.50/h", "USD 84.00"),
        ("€2.50", "€84.00"),
        ("2.50€/hour", "84.00 €"),
        ("US$2.50/h", "US$84.00"),
    ],
)
def test_a_price_keeps_the_currency_that_was_typed(typed: str, money: str) -> None:
    assert price(typed) == 2.5
    assert price(typed).money(84) == money


def test_the_tighter_bound_counts() -> None:
    both = Budget.of(1.0, 1.0, 4.0)
    assert both is not None
    assert both.words == "--max-cost 1"
    assert both.seconds == pytest.approx(900)


def test_what_would_not_end_in_time_is_not_begun_and_can_go_on(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    mine = study(tmp_path)
    budget = Budget(0.01, "--max-hours 0")
    assert not budget.allows(3600.0)
    assert not mine.apply(budget=budget).with_outcome("done")
    assert budget.spent()
    left = mine.plan()
    assert len([change for change in left.work if change.kind == "train"]) == 2
    assert not mine.apply(left, budget=Budget(3600.0, "--max-hours 1")).with_outcome("failed")
    assert not mine.plan().work
    with pytest.raises(LoraError, match=r"^gpu: "):
        mine.plan("a potato")
    known = [attempt for attempts in State.read(mine.state).latest().values() for attempt in attempts]
    trained = [attempt for attempt in known if attempt.kind == "train" and attempt.outcome == "done"]
    assert all(attempt.forecast["analytic_seconds"] > 0 for attempt in trained), "the next forecast is corrected by it"
    longer = SPEC.replace("max_steps = 2", "max_steps = 3")
    mine.spec.file.write_text(longer, encoding="utf-8")
    again = Study.load(mine.spec.file, mine.state).plan()
    told = [change.forecast or {} for change in again.work if change.kind == "train"]
    assert [forecast["source"] for forecast in told] == ["calibrated on 2 runs"] * 2
