"""What an apply has measured corrects the next plan."""

from pathlib import Path

import pytest

from lorafile.plan.forecast.calibration import ARITHMETIC, Corrections, errors
from lorafile.state import Attempt, State
from lorafile.study.study import Study

pytest.importorskip("torch")

SPEC = """
[study]
name = "c"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
split = { train = 32, validation = 4, test = 4 }
[train]
max_steps = 2
[evaluate]
metrics = ["log_loss"]
[profile]
steps = 1
repeats = 1
[[sweep]]
name = "made"
configurations = [MADE]
"""
ALL = '{ name = "all", lora.r = 8, lora.target_modules = "all-linear" }'
OTHERS = (
    '{ name = "wide", lora.r = 32, lora.target_modules = "all-linear" }',
    '{ name = "few", lora.r = 8, lora.target_modules = ["q_proj", "v_proj"] }',
    '{ name = "upper", lora.r = 8, lora.target_modules = "all-linear", lora.layers_to_transform = [2, 3] }',
)


def study(tmp_path: Path, *configurations: str) -> Study:
    file = tmp_path / "study.toml"
    file.write_text(SPEC.replace("MADE", ", ".join(configurations)), encoding="utf-8")
    return Study.load(file, tmp_path / "state")


def attempt(kind: str, seconds: float, **figures: object) -> Attempt:
    forecast = {"arithmetic": ARITHMETIC, "group": f"{kind}/lora", "analytic_seconds": 10.0, "analytic_bytes": 100}
    about = {"message": "", "started": "", "device": "cpu", "environment": {}, "figures": dict(figures)}
    return Attempt(key="k", kind=kind, outcome="done", seconds=seconds, forecast=forecast, **about)  # type: ignore[arg-type]


def test_times_of_a_busy_machine_or_an_interrupted_run_correct_nothing() -> None:
    """What such a profile says of memory still counts."""
    busy = attempt("profile", 90.0, generate_spread=0.8, merged_generate_spread=0.1, train_reserved_bytes=150)
    steady = attempt("profile", 20.0, generate_spread=0.1, train_reserved_bytes=160)
    resumed = attempt("train", 70.0, resumed_from=[5], seconds_before=20.0)
    known = Corrections.of([busy, steady, resumed, attempt("train", 30.0)], "cpu")
    assert known.time["profile"] == [2.0]
    assert known.time["train"] == [3.0]
    assert known.of_memory("profile/lora").runs == 2


def test_after_one_profile_the_memory_of_others_is_known_within_a_tenth(tmp_path: Path) -> None:
    study(tmp_path, ALL).apply()
    first = set(State.read(tmp_path / "state").latest())
    more = study(tmp_path, ALL, *OTHERS)
    assert {(change.forecast or {})["memory_source"] for change in more.plan().work if change.kind == "train"} == {
        "calibrated on 1 run"
    }
    more.apply()
    rest = [known[-1] for key, known in State.read(tmp_path / "state").latest().items() if key not in first]
    off = errors(rest)["memory"]
    assert len(off) == len(OTHERS)
    assert max(map(abs, off)) < 0.1


def test_what_an_attempt_keeps_is_of_the_examples_as_they_were_prepared(tmp_path: Path) -> None:
    mine = study(tmp_path, ALL)
    before = next(change for change in mine.plan().work if change.kind == "train")
    mine.apply()
    state = State.read(tmp_path / "state").latest()
    told = state[before.key][-1].forecast
    assert told["seconds"] == pytest.approx((before.forecast or {})["seconds"]), "what was foretold stays"
    longer = SPEC.replace("max_steps = 2", "max_steps = 4").replace("MADE", ALL)
    mine.spec.file.write_text(longer, encoding="utf-8")
    after = next(c for c in Study.load(mine.spec.file, mine.state).plan().work if c.kind == "train")
    measured = state[before.key][-1].seconds / told["analytic_seconds"]
    assert (after.forecast or {})["seconds"] == pytest.approx(2 * measured * told["analytic_seconds"])
