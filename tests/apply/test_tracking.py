"""Trackers, read back with their own libraries: what they have is what state holds; one that fails changes nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("wandb")
pytest.importorskip("mlflow")
pytest.importorskip("tensorboardX")
pytest.importorskip("tensorboard")

import mlflow
from spec_fixture import BASIC

from lorafile import Study
from lorafile.apply.tracking import destinations, reporter, sender
from lorafile.apply.tracking.destinations import safe_name
from lorafile.cli.main import main
from lorafile.errors import SpecError, install_command
from lorafile.specs import parse
from lorafile.state import State

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # what its client uses of SQLAlchemy

SWEEPS = """
[[sweep]]
name = "rank"
lora.r = [2, 4]
[[sweep]]
name = "rate"
train.learning_rate = [1e30]
[[sweep]]
name = "base"
method = ["none"]
"""
TRACKING = """
[tracking]
wandb = { project = "ranks", mode = "offline", tags = ["mine"] }
mlflow = { tracking_uri = "sqlite:///mlflow.db", experiment_name = "ranks" }
tensorboard = { log_dir = "events" }
"""


def read_wandb(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each offline run holds: wandb's own records, in the framing of a LevelDB log."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        run: dict[str, Any] = {"history": [], "summary": {}}
        for payload in _log_records(file.read_bytes()):
            record = Record.FromString(payload)
            kind = record.WhichOneof("record_type")
            if kind == "run" and record.run.display_name:
                config = {
                    item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.run.config.update
                }
                run |= {"id": record.run.run_id, "project": record.run.project, "config": config}
                run |= {"name": record.run.display_name, "group": record.run.run_group, "tags": list(record.run.tags)}
            elif kind == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                run["history"].append({"_step": record.history.step.num, **row})
            elif kind == "summary":
                run["summary"] |= {
                    item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update
                }
            elif kind == "exit":
                run["exit"] = record.exit.exit_code
        found.setdefault(run["name"], {"files": 0})
        found[run["name"]] |= run | {"files": found[run["name"]]["files"] + 1}
    return found


def _log_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log (blocks of 32 KiB; checksum, length and kind before each part)."""
    at, whole = 7, b""  # wandb's own header stands first
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole, or the last part
            yield whole
            whole = b""


def read_mlflow(folder: Path, experiment: str = "ranks") -> dict[str, Any]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def mlflow_curve(folder: Path, run: Any, name: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, name))


def read_tensorboard(folder: Path, run: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "events" / "tiny" / run))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Path:
    """A study that was applied without any tracker."""
    folder = tmp_path_factory.mktemp("done")
    text = BASIC.format(model=tiny_model, data=rows_file).replace("seeds = [1, 2]", "seeds = [1]") + SWEEPS
    (folder / "study.toml").write_text(text, encoding="utf-8")
    applied = Study.load(folder / "study.toml", folder / ".lora").apply()
    assert {attempt.outcome for attempt in applied.attempts if attempt.kind == "train"} == {"done", "diverged"}
    assert applied.tracking == []
    return folder


@pytest.fixture(scope="module")
def sent(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study, sent to all trackers."""
    folder = tmp_path_factory.mktemp("sent") / "study"
    shutil.copytree(done, folder)
    told = follow(folder, TRACKING).apply()
    assert [(one.tracker, one.sent, one.left, one.problem) for one in told.tracking] == [
        ("wandb", 4, 0, ""),
        ("mlflow", 4, 0, ""),
        ("tensorboard", 4, 0, ""),
    ]
    assert told.attempts == []
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done, tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def moved(sent: Path, tmp_path: Path) -> Path:
    """The study with its state, and all that trackers have of it, in another place."""
    shutil.copytree(sent, tmp_path / "moved")
    return tmp_path / "moved"


def follow(folder: Path, tracking: str) -> Study:
    file = folder / "study.toml"
    file.write_text(file.read_text(encoding="utf-8").split("\n[tracking]")[0] + "\n" + tracking, encoding="utf-8")
    return Study.load(file, folder / ".lora")


def lora(folder: Path, *arguments: str) -> Any:
    return CliRunner().invoke(
        main, [arguments[0], str(folder / "study.toml"), "--state", str(folder / ".lora"), *arguments[1:]]
    )


def test_every_tracker_has_what_state_holds(sent: Path) -> None:
    study, folder = Study.load(sent / "study.toml", sent / ".lora"), sent
    results = study.gather()
    runs, stored = read_wandb(folder), read_mlflow(folder)
    names = {"rank/r=2/seed=1", "rank/r=4/seed=1", "rate/learning_rate=1e+30/seed=1", "base/method=none"}
    assert set(runs) == set(stored) == names
    for row in results.runs[results.runs["outcome"] == "done"].to_dict("records"):
        name = row["configuration"] + ("" if row["configuration"].startswith("base") else "/seed=1")
        own = runs[name]
        assert own["project"] == "ranks"
        assert own["exit"] == 0
        assert own["summary"]["test/log_loss"] == row["test.log_loss"]
        assert stored[name].data.metrics["test/log_loss"] == row["test.log_loss"]
        assert stored[name].data.tags["lorafile.key"] == row["key"] == own["config"]["lorafile"]["key"]
        assert stored[name].info.status == "FINISHED"
        tensors = read_tensorboard(folder, name)
        assert tensors["test/log_loss"][0][1] == pytest.approx(row["test.log_loss"], rel=1e-6)
    name, curve = "rank/r=4/seed=1", results.curves[results.curves["configuration"] == "rank/r=4"]
    steps = list(zip(curve["step"], curve["loss"], strict=True))
    assert len(steps) == 3
    assert [(row["_step"], row["train/loss"]) for row in runs[name]["history"]] == steps
    assert mlflow_curve(folder, stored[name], "train/loss") == steps
    assert [step for step, _ in read_tensorboard(folder, name)["train/loss"]] == [1, 2, 3]
    assert [value for _, value in read_tensorboard(folder, name)["train/loss"]] == pytest.approx(
        [loss for _, loss in steps]
    )
    assert runs[name]["group"] == "rank/r=4"
    assert {"tiny", "rank", "lora", "mine"} <= set(runs[name]["tags"])
    assert runs[name]["config"]["lora.r"] == 4
    assert runs[name]["config"]["lora.target_modules"] == json.loads(stored[name].data.params["lora.target_modules"])
    assert stored[name].data.params["train.learning_rate"] == "0.01"


def test_trackers_change_no_key(done: Path, sent: Path) -> None:
    before, after = (Study.load(one / "study.toml", one / ".lora").plan() for one in (done, sent))
    assert set(before.graph.nodes) == set(after.graph.nodes)
    assert before.summary() == after.summary()


def test_a_run_that_diverged_is_a_failed_one_that_says_so(sent: Path) -> None:
    name = "rate/learning_rate=1e+30/seed=1"
    own = read_wandb(sent)[name]
    assert own["exit"] == 1
    assert own["summary"]["outcome"] == "diverged"
    assert "no longer a number" in own["summary"]["message"] or "averaged" in own["summary"]["message"]
    stored = read_mlflow(sent)[name]
    assert (stored.info.status, stored.data.tags["lorafile.outcome"]) == ("FAILED", "diverged")


def test_what_is_new_is_sent_to_the_same_runs_and_nothing_else(moved: Path) -> None:
    study = Study.load(moved / "study.toml", moved / ".lora")
    assert study.untracked(study.plan()) == 0
    assert [one.sent for one in study.apply().tracking] == [0, 0, 0]
    before = read_mlflow(moved)
    text = (moved / "study.toml").read_text(encoding="utf-8")
    text = text.replace('["log_loss"]', '["log_loss", "token_accuracy"]').replace('name = "rank"', 'name = "ranks"')
    (moved / "study.toml").write_text(text, encoding="utf-8")
    changed = Study.load(moved / "study.toml", moved / ".lora")
    told = changed.apply()
    assert {attempt.kind for attempt in told.attempts} == {"score"}
    assert [one.sent for one in told.tracking] == [4, 4, 4]
    after, runs = read_mlflow(moved), read_wandb(moved)
    name = "ranks/r=2/seed=1"
    assert {run.info.run_id for run in before.values()} == {run.info.run_id for run in after.values()}
    assert len(mlflow_curve(moved, after[name], "train/loss")) == 3
    assert set(runs) == set(after)
    assert {run["files"] for run in runs.values()} == {1}, "the newest directory of a run holds all of it"
    assert len(runs[name]["history"]) == 3
    for found in (runs[name]["summary"], after[name].data.metrics, read_tensorboard(moved, name)):
        assert "test/token_accuracy" in found
    assert not (moved / "events" / "tiny" / "rank").exists()


def test_without_its_memory_a_tracker_gets_the_same_runs_again(moved: Path) -> None:
    shutil.rmtree(moved / ".lora" / "tracking")
    assert [one.sent for one in Study.load(moved / "study.toml", moved / ".lora").apply().tracking] == [4, 4, 4]
    stored = read_mlflow(moved)
    assert len(stored) == 4
    assert len(mlflow_curve(moved, stored["rank/r=2/seed=1"], "train/loss")) == 3
    assert {run["files"] for run in read_wandb(moved).values()} == {1}
    assert len(list((moved / "events").rglob("events.*"))) == 4


def test_a_run_that_was_trained_again_is_another_run(moved: Path) -> None:
    memory = moved / ".lora" / "tracking" / "mlflow.jsonl"
    lines = memory.read_text(encoding="utf-8").splitlines()
    other = next(number for number, line in enumerate(lines) if json.loads(line)["curve"])
    lines[other] = json.dumps(json.loads(lines[other]) | {"curve": "0" * 64, "digest": ""})  # as if of another training
    memory.write_text("\n".join(lines) + "\n", encoding="utf-8")
    study = Study.load(moved / "study.toml", moved / ".lora")
    assert [one.sent for one in study.apply().tracking] == [0, 1, 0]
    client = mlflow.MlflowClient(f"sqlite:///{moved / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ranks").experiment_id])
    assert len(runs) == 5
    older = next(run for run in runs if "lorafile.replaced_by" in run.data.tags)
    newer = next(run for run in runs if "lorafile.replaces" in run.data.tags)
    assert older.data.tags["lorafile.replaced_by"] == newer.data.tags["lorafile.run"]
    assert newer.data.tags["lorafile.replaces"] == older.data.tags["lorafile.run"]
    assert older.info.run_name == newer.info.run_name


FAKES = {
    "raises": ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
    "exits": ("import sys; sys.exit(7)", "SystemExit: 7"),
    "dies": ("import os; os.kill(os.getpid(), 9)", "it was killed by SIGKILL"),
    "ends": ("import os; os._exit(5)", "it exited with code 5"),
    "hangs": ("import time; time.sleep(600)", "it accepted nothing for 1 s"),
    "hides": (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.closerange(0, 99); time.sleep(600)",
        "it ",
    ),
}


def fake(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let the process of TensorBoard find a library that misbehaves."""
    (folder / "fake").mkdir()
    (folder / "fake" / "tensorboardX.py").write_text(f"print('garbage')\n{code}\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder / "fake"))


@pytest.mark.parametrize("kind", list(FAKES))
def test_a_tracker_that_fails_is_one_warning(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = lora(folder, "apply")
    code, why = FAKES[kind]
    follow(folder, '[tracking]\nreport_to = "tensorboard"\n')
    with monkeypatch.context() as patched:
        patched.setattr(sender, "_SILENCE_SECONDS", 1.0 if kind in ("hangs", "hides") else 60.0)
        fake(patched, folder, code)
        told = lora(folder, "apply")
    assert (told.exit_code, quiet.exit_code) == (0, 0)
    lines = [line for line in told.output.splitlines() if line not in quiet.output.splitlines()]
    assert lines[0].startswith("Sending 4 runs")
    assert lines[1].startswith(f"Warning: tracking: tensorboard did not receive 4 runs: {why}")
    assert len(lines) == 2
    assert "garbage" not in told.output
    assert "Sent to tensorboard (runs/tiny): 4 runs." in lora(folder, "apply").output, "the next apply sends them"


def test_ctrl_c_ends_the_sending_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(folder, '[tracking]\nreport_to = "tensorboard"\n')
    fake(monkeypatch, folder, f"open({str(folder / 'begun')!r}, 'w'); " + FAKES["hangs"][0])
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from lorafile.cli.main import main; main()"
    command = [sys.executable, "-P", "-c", code, "apply", "study.toml"]
    applying = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    while not (folder / "begun").exists():
        time.sleep(0.05)
    applying.send_signal(signal.SIGINT)
    told, _ = applying.communicate(timeout=60)
    assert applying.returncode == 0
    assert "tensorboard did not receive 4 runs: you stopped it" in told


def test_what_hangs_is_waited_for_so_long_and_no_longer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = follow(folder, '[tracking]\nreport_to = "tensorboard"\n')
    fake(monkeypatch, folder, FAKES["hangs"][0])
    (told,) = reporter.Reporter(study.plan(), State.read(folder / ".lora")).close(1.5)
    assert (told.sent, told.left, told.problem) == (0, 4, "it had not finished 1.5 s after the work")


def test_while_a_study_is_done_one_tracker_dies_and_another_follows(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, spec_file.parent, FAKES["dies"][0])
    monkeypatch.setattr(reporter, "_LAST_SECONDS", 120.0)
    study = follow(
        spec_file.parent, '[[sweep]]\nlora.r = [2]\n[tracking]\nwandb = { mode = "offline" }\ntensorboard = {}\n'
    )
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    followed, dead = applied.tracking
    assert (followed.sent, followed.left, followed.problem) == (2, 0, "")
    assert (dead.sent, dead.left, dead.problem) == (0, 2, "it was killed by SIGKILL")
    runs = read_wandb(spec_file.parent)
    for row in study.results().to_dict("records"):
        run = runs[f"{row['configuration']}/seed={row['seed']}"]
        assert run["summary"]["test/log_loss"] == row["test.log_loss"]
        assert run["files"] == 1


def test_what_is_not_installed_is_told_before_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(folder, '[tracking]\nreport_to = "wandb"\n')
    absent: Any = lambda name: None if name == "wandb" else True  # noqa: E731
    monkeypatch.setattr("lorafile.apply.tracking.destinations.find_spec", absent)
    words = f"wandb is not installed here, so nothing is sent to it. Install it with: {install_command('wandb')}"
    checked = CliRunner().invoke(main, ["validate", str(folder / "study.toml")])
    assert checked.exit_code == 0
    assert words in checked.output
    for command in ("plan", "apply"):
        told = lora(folder, command)
        assert told.exit_code == 0
        assert told.output.count(words) == 1
        assert "Sending" not in told.output
    study = Study.load(folder / "study.toml", folder / ".lora")
    assert not [line for line in study.gather().warnings if "not installed" in line], "it is nothing of the results"


def test_planning_loads_no_tracker(folder: Path) -> None:
    follow(folder, TRACKING).plan()
    assert "wandb" not in vars(sys.modules["lorafile.apply.tracking.sender"])
    assert not (folder / "wandb").exists()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('report_to = "wandbb"', 'did you mean "wandb"?'),
        ('report_to = "all"', 'one of "wandb", "mlflow", "tensorboard"'),
        ('wandb = { api_key = "x" }', "is a secret, and a spec goes into git: wandb reads WANDB_API_KEY"),
        ('wandb.project = "a/b"', "a name without"),
        ('wandb.project = ["a", "b"]', "should be a text"),
        ('wandb = { project = { tune = ["a", "b"] } }', "cannot be tuned"),
        ('mlflow.tracking_uri = "https://me:pass@host/"', "contains a password, and specs are kept in git"),
    ],
)
def test_what_a_spec_cannot_say_of_trackers_is_told_where_it_stands(written: str, words: str) -> None:
    text = 'study.name = "a"\nmodel.path = "m"\ndata.path = "d"\n[tracking]\n' + written
    with pytest.raises(SpecError) as told:
        parse(text, Path("a.toml"))
    assert str(told.value).startswith("a.toml:5:")
    assert words in str(told.value)
    assert "pass@" not in str(told.value)


def test_names_never_lead_out_of_the_directory(tmp_path: Path) -> None:
    for name in ("..", "/etc", "a/b", "a\\b", "~root", ".hidden", "", "nul\0", "x" * 999):
        inside = tmp_path / safe_name(name)
        assert inside.resolve().parent == tmp_path.resolve()
        assert len(safe_name(name)) <= 120
    text = (
        'study.name = "../../up"\nmodel.path = "m"\ndata.path = "d"\n[tracking]\ntensorboard = { log_dir = "logs" }\n'
    )
    (place,) = destinations.destinations(parse(text, tmp_path / "a.toml"))
    assert place.local is not None
    assert place.local.resolve().parent == (tmp_path / "logs").resolve()


def test_an_address_with_a_password_is_not_written_down(tmp_path: Path) -> None:
    text = 'study.name = "a"\nmodel.path = "m"\ndata.path = "d"\n[tracking]\nreport_to = "mlflow"\n'
    spec = parse(text, tmp_path / "a.toml")
    (place,) = destinations.destinations(spec, {"MLFLOW_TRACKING_URI": "https://me:secret@host"})
    assert "secret" not in place.identity(tmp_path) + place.label


def test_one_run_that_cannot_be_told_holds_up_no_other(folder: Path) -> None:
    study = follow(folder, "[tracking.tensorboard]\n")
    state = study.gather().details["rank/r=2", 1].keys["train"]
    (curve,) = [attempt.outputs["curve.jsonl.gz"] for attempt in State.read(folder / ".lora").latest([state])[state]]
    damaged = folder / ".lora" / "objects" / curve[:2] / curve
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    (told,) = study.apply().tracking
    assert (told.sent, told.left) == (3, 1)
    assert str(damaged) in told.problem
