"""`lora import`: runs of transformers' own Trainer become finished training of a study's configurations."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")

from foreign import train_adapter

from lorafile import Study
from lorafile.cli.main import main
from lorafile.errors import NodeError
from lorafile.models.trainer_output import read_run
from lorafile.plan.plan import Action
from lorafile.state import State

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft itself, used here

SWEEP = """
[lora]
target_modules = ["q_proj", "v_proj"]
[[sweep]]
name = "rank"
lora.r = [4, 8]
"""


@pytest.fixture(scope="module")
def runs(tiny_model: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("foreign")
    train_adapter(tiny_model, rows_file, where / "r4")
    train_adapter(tiny_model, rows_file, where / "r8", lora={"r": 8, "lora_alpha": 16}, warmup_steps=2, save_steps=3)
    train_adapter(tiny_model, rows_file, where / "silent", card=False, save_strategy="no")
    return where


@pytest.fixture
def spec(spec_file: Path) -> Path:
    text = spec_file.read_text(encoding="utf-8").replace("max_steps = 3", "max_steps = 6")
    spec_file.write_text(text + SWEEP, encoding="utf-8")
    return spec_file


def lora(spec: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--state", str(spec.parent / ".lora")])


def study(spec: Path) -> Study:
    return Study.load(spec, spec.parent / ".lora")


def test_an_imported_run_is_reused_predicted_scored_and_marked(spec: Path, runs: Path) -> None:
    tried = lora(spec, "import", str(runs / "r4"), "--spec", str(spec), "--dry-run")
    assert "rank/r=4/seed=1:train would be imported from" in tried.output
    assert not (spec.parent / ".lora").exists()
    done = lora(spec, "import", str(runs / "r4"), "--spec", str(spec))
    assert done.exit_code == 0, done.output
    assert "not verified: " in done.output
    assert "the data and their order" in done.output
    plan = study(spec).plan()
    (change,) = [change for change in plan.changes if change.address == "rank/r=4/seed=1:train"]
    assert (change.action, change.reason) == (Action.REUSE, f"imported from {runs / 'r4'}")
    assert all(change.forecast for change in plan.work if change.kind == "train")
    applied = study(spec).apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    assert len([attempt for attempt in applied.attempts if attempt.kind == "train"]) == 3
    results = study(spec).gather()
    assert "1 run was imported, not trained under this protocol: rank/r=4/seed=1." in results.warnings
    row = results.runs[(results.runs["configuration"] == "rank/r=4") & (results.runs["seed"] == 1)].iloc[0]
    assert row["message"].startswith(f"imported from {runs / 'r4'}; not verified: ")
    assert row["test.log_loss"] == pytest.approx(
        study(spec).evaluate(runs / "r4", profile=False).figures["test"]["log_loss"]
    )
    state = json.loads((runs / "r4" / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    curve = results.curves[(results.curves["configuration"] == "rank/r=4") & (results.curves["seed"] == 1)]
    assert list(curve["loss"]) == losses
    lora(spec, "report", str(spec))
    assert "imported from" in (spec.parent / "report" / "report.html").read_text(encoding="utf-8")


def test_importing_again_changes_nothing_and_other_bytes_are_refused(spec: Path, runs: Path) -> None:
    where = ["--spec", str(spec)]
    lora(spec, "import", str(runs / "r4"), *where)
    again = lora(spec, "import", str(runs / "r4"), *where)
    assert "already exists" in again.output
    (attempts,) = State.read(spec.parent / ".lora").latest().values()
    assert len(attempts) == 1
    other = lora(spec, "import", str(runs / "silent"), *where, "--seed", "1")
    assert other.exit_code == 0, "the same bytes, whatever stands next to them"
    shutil.copytree(runs / "r4", spec.parent / "tampered")
    from safetensors.torch import load_file, save_file

    file = spec.parent / "tampered" / "adapter_model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    other = lora(spec, "import", str(spec.parent / "tampered"), *where)
    assert "is already finished: it was imported from other files" in other.output
    assert lora(spec, "import", str(spec.parent / "tampered"), *where, "--replace").exit_code == 0


def test_what_differs_is_named_and_only_training_can_be_overruled(spec: Path, runs: Path) -> None:
    where = ["--spec", str(spec)]
    warm = lora(spec, "import", str(runs / "r8"), *where)
    assert warm.exit_code == 1
    assert "the closest is rank/r=8: warmup_steps 2 there, 0 here." in warm.output
    taken = lora(spec, "import", str(runs / "r8"), *where, "--configuration", "rank/r=8")
    assert taken.exit_code == 0
    assert "differs: warmup_steps 2 there, 0 here" in taken.output
    rank = lora(spec, "import", str(runs / "r8"), *where, "--configuration", "rank/r=4")
    assert "is not rank/r=4: lora_alpha 16 there, 8 here; r 8 there, 4 here." in rank.output
    unknown = lora(spec, "import", str(runs / "r8"), *where, "--configuration", "rank/r=9")
    assert 'the study trains no "rank/r=9"' in unknown.output
    spec.write_text(spec.read_text(encoding="utf-8").replace("learning_rate = 1e-2", "learning_rate = 2e-2"))
    rate = lora(spec, "import", str(runs / "silent"), *where, "--seed", "1")
    assert "learning_rate: 0.01 was logged at step 1, not this schedule's" in rate.output


def test_a_seed_that_is_not_known_has_to_be_said(spec: Path, runs: Path) -> None:
    silent = lora(spec, "import", str(runs / "silent"), "--spec", str(spec))
    assert "does not state its seed. Pass its seed, one of 1, 2." in silent.output
    absent = lora(spec, "import", str(runs / "silent"), "--spec", str(spec), "--seed", "9")
    assert "the study has no seed 9; it has: 1, 2." in absent.output
    other = lora(spec, "import", str(runs / "r4"), "--spec", str(spec), "--seed", "2")
    assert "differs: seed 1 there, 2 here" in other.output
    both = lora(spec, "import", str(runs / "r4"), str(runs / "silent"), "--spec", str(spec), "--seed", "2")
    assert "are both rank/r=4/seed=2:train" in both.output


def test_a_whole_model_is_the_full_configuration(spec: Path, tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    model.save_pretrained(tmp_path / "whole")
    with spec.open("a", encoding="utf-8") as stream:
        stream.write('[[sweep]]\nname = "all"\nmethod = ["full"]\n')
    done = lora(spec, "import", str(tmp_path / "whole"), "--spec", str(spec), "--seed", "1")
    assert "all/method=full/seed=1:train imported from" in done.output
    applied = study(spec).apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    runs = study(spec).gather().runs.set_index(["configuration", "seed"])
    evaluated = study(spec).evaluate(tmp_path / "whole", profile=False).figures["test"]["log_loss"]
    assert runs.loc[("all/method=full", 1), "test.log_loss"] == pytest.approx(evaluated, abs=1e-6)


def test_a_run_that_had_not_come_to_its_end_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "r8" / "checkpoint-3", tmp_path / "out" / "checkpoint-3")
    with pytest.raises(NodeError, match="was not fully trained: checkpoint-3 is step 3 of 6"):
        read_run(str(tmp_path / "out"))
    shutil.copytree(runs / "r8" / "checkpoint-6", tmp_path / "out" / "checkpoint-6")
    found = read_run(str(tmp_path / "out"))
    assert found.checkpoint.directory.name == "checkpoint-6"
    assert found.steps == 6


def test_the_pickle_beside_it_is_never_opened(spec: Path, runs: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    import pickle

    run = shutil.copytree(runs / "r4", tmp_path / "bomb")
    (run / "training_args.bin").write_bytes(pickle.dumps(Bomb()))
    assert lora(spec, "import", str(run), "--spec", str(spec)).exit_code == 0
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
def test_expected_rates_are_those_of_transformers(kind: str, warmup: float) -> None:
    import torch
    from transformers import get_scheduler

    from lorafile.engine.training.schedule import expected_rate

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    count = int(warmup if warmup >= 1 else warmup * 20)
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=count, num_training_steps=20)
    training = {"learning_rate": 0.1, "lr_scheduler_type": kind, "warmup_steps": warmup}
    for step in range(20):
        assert expected_rate(training, step, 20) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
