"""Learning rate schedules: their rates are transformers', and their own settings are checked before anything runs."""

from typing import Any, get_args

import pytest
from spec_fixture import message as refused
from spec_fixture import parse

from lorafile.engine.training.schedule import expected_rate, other_rate
from lorafile.specs.schedules import DEFAULT_SCHEDULE, SCHEDULES, ScheduleName, schedule_rows
from lorafile.specs.tables.train import TrainTable

OWN: dict[str, list[dict[str, Any]]] = {
    "cosine": [{"num_cycles": 1.5}],
    "cosine_with_restarts": [{"num_cycles": 3}],
    "polynomial": [{"lr_end": 1e-4, "power": 2}],
    "inverse_sqrt": [{"timescale": 7}],
    "cosine_with_min_lr": [{"min_lr": 1e-4}, {"min_lr_rate": 0.2, "num_cycles": 0.25}],
    "cosine_warmup_with_min_lr": [{"min_lr_rate": 0.1}, {"min_lr": 1e-4, "warmup_lr_rate": 0.3}],
    "warmup_stable_decay": [
        {"num_decay_steps": 5},
        {"num_decay_steps": 4, "num_stable_steps": 3, "min_lr_ratio": 0.1, "num_cycles": 0.4},
        *(
            {"num_decay_steps": 6, "warmup_type": w, "decay_type": d}
            for w in ("cosine", "1-sqrt")
            for d in ("linear", w)
        ),
    ],
}
CASES = [(name, own) for name in SCHEDULES for own in [*([] if SCHEDULES[name].required else [{}]), *OWN.get(name, [])]]
TOTAL = 20


def test_the_names_are_those_of_the_table() -> None:
    assert list(get_args(ScheduleName)) == list(SCHEDULES) == [row.name for row in schedule_rows()]
    assert TrainTable().lr_scheduler_type == DEFAULT_SCHEDULE


def test_what_is_left_out_of_transformers_schedules_reads_a_metric() -> None:
    trainer_utils = pytest.importorskip("transformers.trainer_utils")
    others = {kind.value for kind in trainer_utils.SchedulerType} - set(SCHEDULES)
    assert others <= {"reduce_lr_on_plateau", "greedy"}


@pytest.mark.parametrize("warmup", [0, 1, 4, 0.25, TOTAL + 5])
@pytest.mark.parametrize(("name", "own"), CASES, ids=str)
def test_rates_are_those_of_transformers(name: str, own: dict[str, Any], warmup: float) -> None:
    torch = pytest.importorskip("torch")
    from lorafile.engine.training.optimizer import OptimizerStep

    model = torch.nn.Linear(2, 2)
    settings = {"learning_rate": 3e-3, "lr_scheduler_type": name, "lr_scheduler_kwargs": own, "warmup_steps": warmup}
    training = TrainTable(**settings)
    step = OptimizerStep(model, training.model_dump(), TOTAL, torch.device("cpu"))
    for number in range(TOTAL):
        assert step.rate == pytest.approx(expected_rate(training.results, number, TOTAL), rel=1e-12, abs=1e-18)
        model.weight.grad, model.bias.grad = torch.ones(2, 2), torch.ones(2)
        step.step()


def test_a_run_may_end_with_its_warm_up() -> None:
    """Where transformers' polynomial schedule would divide by zero, there is no step left to have a rate."""
    torch = pytest.importorskip("torch")
    from lorafile.engine.training.optimizer import OptimizerStep

    model = torch.nn.Linear(2, 2)
    training = TrainTable(lr_scheduler_type="polynomial", warmup_steps=3).model_dump()
    step = OptimizerStep(model, training, 3, torch.device("cpu"))
    for _ in range(3):
        model.weight.grad, model.bias.grad = torch.ones(2, 2), torch.ones(2)
        step.step()


def test_a_logged_rate_may_be_that_of_a_module() -> None:
    training = TrainTable(learning_rate=1e-3, learning_rates={"q_proj": 1e-4}).results
    assert other_rate([(1, 5e-5)], training, 2) is None
    assert other_rate([(1, 5e-4)], training, 2) is None
    assert other_rate([(1, 2e-4)], training, 2) is not None


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("lr_scheduler_type = 'cosine_with_min_lr'", 'lr_scheduler_type = "cosine_with_min_lr" needs min_lr or min_lr'),
        ("lr_scheduler_type = 'warmup_stable_decay'", "needs num_decay_steps"),
        (
            "lr_scheduler_type = 'cosine_with_min_lr'\nlr_scheduler_kwargs = { min_lr = 1e-5, min_lr_rate = 0.1 }",
            "needs min_lr or min_lr_rate, not both",
        ),
        (
            "lr_scheduler_kwargs = { num_cycles = 1 }",
            'lr_scheduler_type = "linear" has no setting "num_cycles"; it has',
        ),
        (
            "lr_scheduler_type = 'cosine'\nlr_scheduler_kwargs = { num_cycle = 1 }",
            'has no setting "num_cycle"; did you mean "num_cycles"?',
        ),
        (
            "lr_scheduler_type = 'warmup_stable_decay'\nlr_scheduler_kwargs = { num_decay_steps = 1.5 }",
            '"num_decay_steps" should be a whole number above 0, not 1.5',
        ),
        (
            "lr_scheduler_type = 'warmup_stable_decay'\nlr_scheduler_kwargs = { decay_type = 'x' }",
            '"decay_type" should be one of "linear", "cosine", "1-sqrt", not "x"',
        ),
        (
            "lr_scheduler_type = 'cosine_with_min_lr'\nlr_scheduler_kwargs = { min_lr = 'low' }",
            '"min_lr" should be a number of at least 0, not "low"',
        ),
        (
            "lr_scheduler_type = 'polynomial'\nlr_scheduler_kwargs = { lr_end = 1.0 }",
            "lr_end = 1 should be below the l",
        ),
    ],
)
def test_settings_of_a_schedule_are_checked(train: str, message: str) -> None:
    text = refused(f"[train]\n{train}\n")
    assert message in text
    assert "train.lr_scheduler_kwargs" in text


def test_a_sweep_may_vary_them() -> None:
    rows = (
        "[[sweep]]\nname = 's'\ntrain.lr_scheduler_type = ['cosine']\ntrain.lr_scheduler_kwargs = [{ num_cycles = 1 }]"
    )
    (configuration,) = parse(rows).configurations
    assert configuration.train is not None
    assert configuration.train.results["lr_scheduler_kwargs"] == {"num_cycles": 1.0}


def test_a_setting_at_its_default_changes_no_key() -> None:
    plain = TrainTable(lr_scheduler_type="cosine").results
    assert TrainTable(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 0.5}).results == plain
    assert TrainTable(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1}).results != plain
