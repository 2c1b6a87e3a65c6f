"""A study that tunes, done for real on a two-layer model: one apply goes through all of its stages."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from apply_fixture import Watch, load
from command_fixture import lora

from lorafile import Study
from lorafile.state import Attempt

RATES = "learning_rate = { tune = [1e-3, 1e-2, 1e-1] }"
SWEEP = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'


def tuned(spec_file: Path, rates: str = RATES, more: str = SWEEP) -> Study:
    text = spec_file.read_text(encoding="utf-8").replace("learning_rate = 1e-2", rates)
    spec_file.write_text(text + more, encoding="utf-8")
    return load(spec_file)


def done(attempts: list[Attempt], kind: str) -> list[str]:
    return [attempt.address for attempt in attempts if attempt.kind == kind]


def test_one_apply_chooses_on_validation_and_predicts_only_the_winners_on_test(spec_file: Path) -> None:
    watch = Watch()
    applied = tuned(spec_file).apply(watchers=[watch])
    assert len(watch.stages) == 1
    assert len(done(applied.attempts, "train")) == 12
    assert len(set(done(applied.attempts, "train"))) == 12, "nothing is trained twice"
    tested = [address for address in done(applied.attempts, "predict") if "/test/" in address]
    assert sorted(tested) == [f"rank/r={r}/seed={seed}:predict/test/likelihood" for r in (2, 4) for seed in (1, 2)]
    results = load(spec_file).gather()
    assert list(results.runs["configuration"]) == ["rank/r=2", "rank/r=2", "rank/r=4", "rank/r=4"]
    assert results.runs["test.log_loss"].notna().all()
    means = results.candidates.groupby(["configuration", "train.learning_rate"])["validation.log_loss"].mean()
    rates = results.configurations.set_index("configuration")["train.learning_rate"]
    for name in ("rank/r=2", "rank/r=4"):
        assert rates[name] == means[name].idxmin(), "the best mean over seeds"
    assert set(results.curves["configuration"]) == {"rank/r=2", "rank/r=4"}
    assert load(spec_file).plan().work == []
    assert load(spec_file).apply().attempts == []
    assert not [change for change in load(spec_file).plan().changes if change.action.value == "undeclared"]


def test_candidates_that_another_sweep_has_trained_are_used_again(spec_file: Path) -> None:
    grid = '[[sweep]]\nname = "grid"\nlora.r = [2, 4]\ntrain.learning_rate = [1e-3, 1e-2, 1e-1]\n'
    tuned(spec_file, more=grid + SWEEP).apply()
    plan = load(spec_file).plan()
    assert plan.work == []
    assert len([node for node in plan.graph.nodes.values() if node.kind == "train"]) == 12
    assert all(one.chosen for one in plan.tuning)


def test_an_apply_that_was_stopped_in_its_first_stage_goes_on_and_chooses(spec_file: Path) -> None:
    import os
    import signal

    study = tuned(spec_file)
    applied = study.apply(workers=1, watchers=[Watch("train", lambda: os.kill(os.getpid(), signal.SIGINT))])
    assert applied.interrupted
    assert not [address for address in done(applied.attempts, "predict") if "/test/" in address]
    rest = load(spec_file).apply()
    assert len(done([*applied.attempts, *rest.attempts], "train")) == 12
    assert load(spec_file).plan().work == []


def test_a_rate_at_which_runs_diverge_is_kept_and_not_chosen(spec_file: Path) -> None:
    sweep = '[[sweep]]\nname = "full"\nmethod = ["full"]\ntrain.learning_rate = { tune = [1e-3, 1e30] }\n'
    study = tuned(spec_file, "learning_rate = 1e-2", sweep)
    applied = study.apply()
    assert {attempt.address for attempt in applied.with_outcome("diverged")} == {
        f"full/method=full,learning_rate=1e+30/seed={seed}:train" for seed in (1, 2)
    }
    results = load(spec_file).gather()
    assert list(results.runs["outcome"]) == ["done", "done"]
    assert list(results.candidates["outcome"]) == ["done", "done", "diverged", "diverged"]
    assert load(spec_file).plan().work == []


def test_an_extended_range_is_trained_stage_by_stage_in_one_apply(spec_file: Path) -> None:
    watch = Watch()
    rates = "learning_rate = { tune = [1e-6, 1e-5], extend = true }"
    applied = tuned(spec_file, rates, '[[sweep]]\nname = "rank"\nlora.r = [2]\n').apply(watchers=[watch])
    tried = load(spec_file).gather().candidates["train.learning_rate"].unique()
    assert {1e-6, 1e-5, 1e-4} <= set(tried), "three steps at such rates move nothing, and a larger one is better"
    assert len(watch.stages) == len(tried) - 2 + 1
    assert [address for address in done(applied.attempts, "predict") if "/test/" in address]
    assert load(spec_file).plan().work == []


def test_the_command_line_says_what_was_chosen_and_ends_with_nothing_to_do(spec_file: Path) -> None:
    tuned(spec_file, more='[[sweep]]\nname = "rank"\nlora.r = [2]\n')
    folder: Any = spec_file.parent
    assert lora("plan", "--detailed-exitcode", cwd=folder).returncode == 2
    applied = lora("apply", "--yes", "--workers", "1", cwd=folder)
    assert applied.returncode == 0, applied.stderr
    assert "Chosen: rank/r=2: learning_rate = " in applied.stdout
    assert "of 3 candidates on validation" in applied.stdout
    again = lora("plan", "--detailed-exitcode", cwd=folder)
    assert again.returncode == 0, again.stdout
    exported = lora("export", "rank/r=2", "out", cwd=folder)
    assert exported.returncode == 0, exported.stderr


def test_before_the_choice_there_is_no_single_run_to_export(spec_file: Path) -> None:
    tuned(spec_file)
    told = lora("export", "rank/r=2", "out", cwd=spec_file.parent)
    assert told.returncode == 1
    assert "rank/r=2 is not a single run yet: its learning_rate is not chosen yet" in told.stderr
