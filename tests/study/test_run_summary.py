"""`lora show` on a configuration, and what came of a run."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest
from command_fixture import lora
from spec_fixture import BASIC

pytest.importorskip("torch")

from lorafile import Study


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Path:
    """A folder with a study of two ranks and the untuned row under two seeds, applied."""
    where = tmp_path_factory.mktemp("shown")
    text = BASIC.format(model=tiny_model, data=rows_file).replace('["log_loss"]', '["log_loss", "exact_match"]')
    sweeps = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n[[sweep]]\nname = "base"\nmethod = ["none"]\n'
    (where / "study.toml").write_text(text + sweeps, encoding="utf-8")
    Study.load(where / "study.toml", where / ".lora").apply()
    return where


def test_a_configuration_is_shown_with_its_seeds_and_their_mean(here: Path) -> None:
    found = json.loads(lora("show", "rank/r=4", "--json", cwd=here).stdout)
    assert (found["configuration"], found["study"]) == ("rank/r=4", "tiny")
    assert [run["seed"] for run in found["runs"]] == [1, 2]
    losses = [run["figures"]["test.log_loss"] for run in found["runs"]]
    told = found["means"]["test.log_loss"]
    assert told == {"mean": pytest.approx(fmean(losses)), "sd": pytest.approx(stdev(losses)), "seeds": 2}
    runs = Study.load(here / "study.toml", here / ".lora").results()
    assert sorted(losses) == sorted(runs[runs["configuration"] == "rank/r=4"]["test.log_loss"])
    assert found["settings"]["adapter"]["r"] == 4
    told_on_terminal = lora("show", "rank/r=4", cwd=here).stdout
    assert f"log loss on test: {fmean(losses):.2f} ± " in told_on_terminal
    assert "2 of 2 runs done" in told_on_terminal


def test_verdicts_of_a_configuration_come_with_a_spec(here: Path) -> None:
    found = json.loads(lora("show", "rank/r=4", "--spec", "study.toml", "--json", cwd=here).stdout)
    assert any("rank/r=2" in line for line in found["verdicts"])
    assert json.loads(lora("show", "rank/r=4", "--json", cwd=here).stdout)["verdicts"] == []


def test_the_untuned_row_needs_no_seed(here: Path) -> None:
    told = lora("show", "base/method=none", cwd=here)
    assert told.returncode == 0, told.stderr
    assert "none needed" in told.stdout


def test_a_run_is_shown_with_scores_and_predictions(here: Path) -> None:
    found = json.loads(lora("show", "rank/r=4/seed=2", "--predictions", "3", "--json", cwd=here).stdout)
    assert set(found["scores"]) == {f"{s}.{m}" for s in ("test", "validation") for m in ("log_loss", "exact_match")}
    assert [row["split"] for row in found["predictions"]] == ["test"] * 3
    for row in found["predictions"]:
        assert {"prompt", "reference", "answer", "log_likelihood"} <= set(row)
    told = lora("show", "rank/r=4/seed=2", "--predictions", "1", cwd=here).stdout
    for words in ("log loss on test: ", "Prediction, test example ", "prompt: where does anna", "Attempt 1", "Loss"):
        assert words in told


def test_a_name_that_is_near_a_configuration_is_suggested(here: Path) -> None:
    told = lora("show", "rank/r=44", cwd=here)
    assert told.returncode == 1
    assert 'did you mean "rank/r=4"?' in told.stderr


def test_one_name_in_two_studies_asks_for_the_spec(here: Path) -> None:
    text = (here / "study.toml").read_text(encoding="utf-8").replace('"tiny"', '"other"').replace("1e-2", "2e-2")
    (here / "other.toml").write_text(text.replace("seeds = [1, 2]", "seeds = [1]"), encoding="utf-8")
    Study.load(here / "other.toml", here / ".lora").apply()
    told = lora("show", "rank/r=4", cwd=here)
    assert "is a configuration of two studies: other and tiny. Pass the spec with --spec." in told.stderr
    chosen = json.loads(lora("show", "rank/r=4", "--spec", "other.toml", "--json", cwd=here).stdout)
    assert [run["seed"] for run in chosen["runs"]] == [1]
