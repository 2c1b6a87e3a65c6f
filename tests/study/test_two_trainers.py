"""A study of two trainers, from plan to report: an external run is a run like every other, under its own name."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from command_fixture import lora
from trainer_fixture import PROGRAM

from lorafile.study.study import Study

SPEC = """
[study]
name = "trainers"
question = "Is this program as good as the built-in loop?"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
max_length = 32
split = { train = 64, validation = 32, test = 32 }
[lora]
r = 8
lora_alpha = 16
[train]
max_steps = 12
learning_rate = 3e-3
per_device_train_batch_size = 16
warmup_steps = 0.1
[trainer.mine]
command = ["python", "trainer_program.py"]
[evaluate]
metrics = ["exact_match", "log_loss"]
max_new_tokens = 4
[profile]
enabled = false
[inspect]
[truncate]
ranks = [2]
[merge]
dtypes = ["float32"]
[verdict]
margin = "50pt"
[[sweep]]
name = "trainers"
train.trainer = ["builtin", "mine"]
[[analysis]]
kind = "compare"
factor = "train.trainer"
baseline = { train.trainer = "builtin" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text(SPEC, encoding="utf-8")
    shutil.copy(PROGRAM, folder)
    done = lora("apply", "--yes", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_second_plan_is_empty_and_a_first_one_says_what_it_runs(folder: Path) -> None:
    assert "Nothing to do" in lora("plan", cwd=folder).stdout
    first = lora("plan", "--state", "other", cwd=folder).stdout
    assert "runs: python trainer_program.py (sha256 " in first
    assert "not checked (lora trainer check mine)" in " ".join(first.split())
    assert "unknown" in first


def test_two_trainers_get_a_verdict_and_every_page_names_them(folder: Path) -> None:
    study = Study.load(folder / "study.toml", folder / ".lora")
    (verdict,) = study.verdicts().to_dict("records")
    assert {verdict["configuration"], verdict["compared_with"]} == {"trainers/trainer=mine", "trainers/trainer=builtin"}
    assert verdict["verdict"] in ("equivalent", "non-inferior", "inconclusive")
    assert verdict["differs"] == []
    assert lora("export", "trainers/trainer=mine", "out", cwd=folder).returncode == 0
    card = (folder / "out" / "README.md").read_text(encoding="utf-8")
    assert "| trained by | mine, a program of the study's |" in card
    assert "trainer: files" in card
    assert "trainer.command" in lora("show", "trainers/trainer=mine", cwd=folder).stdout


def test_what_is_done_with_adapters_is_done_with_a_programs(folder: Path) -> None:
    results = Study.load(folder / "study.toml", folder / ".lora").gather()
    for table in (results.inspections, results.truncations, results.merges):
        assert set(table["configuration"]) == {"trainers/trainer=builtin", "trainers/trainer=mine"}
    assert set(results.runs["outcome"]) == {"done"}
    curves = lora("state", "export", "--table", "curves", cwd=folder).stdout.splitlines()
    assert sum("trainer=mine" in line for line in curves) == 2 * 12


def test_a_state_with_external_runs_travels_and_verifies(folder: Path) -> None:
    assert lora("state", "verify", cwd=folder).returncode == 0
    assert lora("state", "export", "--bundle", "bundle.tar", cwd=folder).returncode == 0
    assert lora("state", "import", "bundle.tar", "--state", "elsewhere", cwd=folder).returncode == 0
    assert "Nothing to do" in lora("plan", "--state", "elsewhere", cwd=folder).stdout


def test_only_comments_of_a_program_can_be_accepted(folder: Path) -> None:
    program = folder / PROGRAM.name
    text = program.read_text(encoding="utf-8")
    program.write_text(text + "\n# a remark\n", encoding="utf-8")
    try:
        assert "only comments and layout differ" in " ".join(lora("plan", cwd=folder).stdout.split())
        program.write_text(text + "\nX = 1\n", encoding="utf-8")
        changed = " ".join(lora("plan", cwd=folder).stdout.split())
        assert "trainer_program.py changed" in changed
        assert "only comments" not in changed
    finally:
        program.write_text(text, encoding="utf-8")


def test_a_wrong_environment_is_said_once_and_nothing_is_run(folder: Path) -> None:
    (folder / "pins.lock").write_text("torch==1.0\n", encoding="utf-8")
    spec = SPEC.replace('"trainer_program.py"]', '"trainer_program.py"]\nrequirements = "pins.lock"')
    (folder / "pinned.toml").write_text(spec, encoding="utf-8")
    planned = lora("plan", "pinned.toml", cwd=folder)
    assert (planned.stdout + planned.stderr).count("its environment is not the one that pins.lock pins") == 1
    applied = lora("apply", "pinned.toml", "--yes", cwd=folder)
    assert applied.returncode == 1
    assert "Install pins.lock into the environment of" in applied.stderr
