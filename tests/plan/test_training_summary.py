"""What a plan says of the rows and steps of a training: estimated before the data are prepared, counted afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_fixture import make_checkpoint
from click.testing import CliRunner

from lorafile import Study
from lorafile.cli.main import main
from lorafile.plan.cost import estimate_cost
from lorafile.plan.training_summary import SplitRows, dropped_lines, run_steps, split_rows, training_lines

SPEC = """
[study]
name = "long"
seeds = [1]
[model]
path = "model"
[data]
path = "data"
format = "completion"
max_length = 24
too_long = "drop"
[lora]
r = 2
[train]
num_train_epochs = 2
per_device_train_batch_size = 4
gradient_accumulation_steps = 2
lr_scheduler_type = "linear"
warmup_steps = 3
learning_rate = 1e-2
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
"""
SHORT, LONG = "where does anna live ?", " ".join(["where does anna live in rome ?"] * 8)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    make_checkpoint("llama", tmp_path / "model")
    (tmp_path / "data").mkdir()
    for split, short, long in (("train", 139, 161), ("validation", 20, 0), ("test", 21, 0)):
        rows = [{"prompt": text, "completion": " paris"} for text in [SHORT] * short + [LONG] * long]
        file = tmp_path / "data" / f"{split}.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (tmp_path / "study.toml").write_text(SPEC, encoding="utf-8")
    return Study.load(tmp_path / "study.toml", tmp_path / ".lora")


def test_rows_that_are_too_long_are_estimated_and_then_counted(study: Study) -> None:
    before = next(row for row in split_rows(study.plan()) if row.split == "train")
    assert not before.exact
    assert before.too_long == pytest.approx(161, abs=5)
    (line,) = dropped_lines(split_rows(study.plan()))
    assert "of 300 train rows" in line
    assert "are longer than data.max_length = 24 tokens and would be dropped (estimated" in line
    study.apply(study.plan(target=["data/*"]))
    (line,) = dropped_lines(split_rows(study.plan()))
    assert "161 of 300 train rows (54 %) are longer than data.max_length = 24 tokens and are dropped." in line


def test_columns_that_are_not_read_make_no_row_longer(study: Study) -> None:
    plain = study.plan()
    before, seconds = split_rows(plain), estimate_cost(plain).seconds
    for file in (study.spec.file.parent / "data").iterdir():
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        more = {"id": "0" * 200, "embedding": [0.25] * 100}
        file.write_text("".join(f"{json.dumps(row | more)}\n" for row in rows), encoding="utf-8")
    again = Study.load(study.spec.file, study.state).plan()
    assert split_rows(again) == before
    assert estimate_cost(again).seconds == seconds


def test_a_tokenizer_that_pads_and_cuts_makes_no_row_longer(study: Study) -> None:
    """As that of sentence-transformers, whose file says that every text has 128 tokens."""
    file = study.spec.file.parent / "model/tokenizer.json"
    pad = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    cut = {"direction": "Right", "max_length": 256, "strategy": "LongestFirst", "stride": 0}
    content = json.loads(file.read_text(encoding="utf-8"))
    content |= {"padding": pad | {"strategy": {"Fixed": 256}}, "truncation": cut}
    file.write_text(json.dumps(content), encoding="utf-8")
    estimated = next(row for row in split_rows(Study.load(study.spec.file, study.state).plan()) if row.split == "train")
    assert estimated.too_long == pytest.approx(161, abs=5)


def test_steps_are_those_that_are_trained(study: Study) -> None:
    study.apply(study.plan(target=["data/*"]))
    plan = study.plan()
    (run,) = run_steps(plan)
    assert run.exact
    assert (run.batch, run.warmup, run.epochs) == (8, 3, 2)
    assert run.steps == 2 * 18  # 139 rows are left, in batches of 8
    assert any(
        "36 steps of 8 examples (2 epochs), the first 3 of them a warm-up" in line for line in training_lines([], [run])
    )
    trained = next(a for a in study.apply(plan).attempts if a.kind == "train")
    assert trained.figures["steps"] == run.steps


def test_packed_examples_take_the_same_steps_and_the_plan_names_their_rows(study: Study) -> None:
    (before,) = run_steps(study.plan())
    file = study.spec.file
    file.write_text(SPEC.replace('format = "completion"', 'format = "completion"\npacking = true'), encoding="utf-8")
    again = Study.load(file, study.state)
    (after,) = run_steps(again.plan())
    assert after == replace(before, packed_row_length=24)
    assert training_lines([], [after])[0].endswith(" tokens per run, in rows of up to 24.")
    trained = next(a for a in again.apply().attempts if a.kind == "train")
    assert (trained.outcome, trained.figures["steps"]) == ("done", 2 * 18)


@pytest.mark.parametrize("limit", [24, 100])
def test_blocks_of_text_are_estimated_as_they_are_packed(study: Study, limit: int) -> None:
    """Texts of 4 to 60 tokens, longer ones in pieces: before and after they are prepared."""
    words = ("where does anna live in rome ? " * 9).split()
    lines = [" ".join(words[: 3 + number * 7 % 57]) for number in range(120)]
    for split, count in (("train", 120), ("validation", 8), ("test", 8)):
        (study.spec.file.parent / f"data/{split}.jsonl").unlink()
        text = "".join(f"{line}\n" for line in lines[:count])
        (study.spec.file.parent / f"data/{split}.txt").write_text(text, encoding="utf-8")
    spec = SPEC.replace('format = "completion"', 'format = "text"').replace("max_length = 24", f"max_length = {limit}")
    study.spec.file.write_text(spec, encoding="utf-8")
    again = Study.load(study.spec.file, study.state)
    (before,) = run_steps(again.plan())
    again.apply(again.plan(target=["data/*"]))
    (after,) = run_steps(again.plan())
    assert (before.exact, after.exact) == (False, True)
    assert before.steps == pytest.approx(after.steps, rel=0.05, abs=1)
    assert before.tokens == pytest.approx(after.tokens, rel=0.05)


def test_the_plan_shows_it_in_every_form(study: Study) -> None:
    spec = str(study.spec.file)
    for options in ((), ("--markdown",)):
        shown = CliRunner().invoke(main, ["plan", spec, *options]).output.replace("\n  ", " ")
        assert "Data: 300 train rows, 20 validation rows and 21 test rows." in shown
        assert "Training: about" in shown
    whole = json.loads(CliRunner().invoke(main, ["plan", spec, "--json"]).output)
    content, parts = whole["training"], whole["bill"]["parts"]
    assert sum(parts.values()) == pytest.approx(whole["bill"]["seconds"])
    assert parts["training"] > 0 < parts["evaluation"]
    assert parts["measuring"] == 0  # profile.enabled = false
    assert [row["split"] for row in content["splits"]] == ["train", "validation", "test"]
    assert content["runs"][0]["configurations"] == ["lora"]


def test_each_of_several_data_sets_is_named() -> None:
    one = SplitRows("one.jsonl", "train", 300, 24, "drop", 0, 0, True)
    other = SplitRows("other.jsonl", "train", 1, 24, "drop", 0, 0, True)
    assert training_lines([one], []) == ["Data: 300 train rows."]
    assert training_lines([one, other], []) == ["Data one.jsonl: 300 train rows.", "Data other.jsonl: 1 train row."]
