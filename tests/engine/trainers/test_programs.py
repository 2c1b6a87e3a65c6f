"""Programs that train: what an honest one leaves, what a dishonest one is caught at, and what nobody can be."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import Engine  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from trainer_fixture import STEPS, ProgramRuns, curve  # noqa: E402

from lorafile import environment  # noqa: E402
from lorafile.engine.data.sources import find_data, find_model  # noqa: E402
from lorafile.engine.trainers import landlock  # noqa: E402


@pytest.fixture
def programs(tmp_path: Path) -> ProgramRuns:
    model = find_model("builtin:facts-llama", None, tmp_path)
    rows = next(find_data("builtin:facts", None, tmp_path).rglob("*train*"))
    return ProgramRuns(Engine(model, rows, tmp_path), tmp_path)


def test_an_honest_program_is_done_with_its_curve_and_the_environment_of_its_own(programs: ProgramRuns) -> None:
    result, out = programs.run(programs.request())
    assert (result.outcome, result.message) == ("done", "")
    assert "failed_checks" not in result.figures
    assert [row["step"] for row in curve(out)] == list(range(1, STEPS + 1))
    assert result.figures["train_loss_after"] < result.figures["train_loss_before"] / 2
    assert result.environment["torch"] == torch.__version__
    assert set(result.files) == {"adapter_config.json", "adapter_model.safetensors", "curve.jsonl.gz", "program.json"}


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in of NVML looks into /proc")
def test_what_a_program_holds_on_gpus_is_counted_and_one_that_it_was_not_given_is_named(
    programs: ProgramRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML is a stand-in that says how much each process of the program holds."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "fixtures" / "fake_nvml")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.setattr(environment, "installed", lambda name: "2.13.0")  # not one for processors alone
    there = [{"name": "H100", "uuid": uuid, "memory": 80 << 30} for uuid in ("GPU-a", "GPU-b")]
    there[0]["users"] = {"trainer_program.py": 3 << 30, "unrelated.py": 5 << 30}
    there[1]["users"] = {"trainer_program.py": 1 << 30}
    monkeypatch.setenv("FAKE_GPUS", json.dumps(there))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    environment.gpus.cache_clear()
    try:
        result, _ = programs.run(programs.request())
    finally:
        environment.gpus.cache_clear()
    assert result.figures["process_gpu_peak_bytes"] == 4 << 30
    assert result.figures["failed_checks"] == ["trainer.mine used GPU-b, which it was not given."]


def test_an_adapter_is_stored_with_the_very_values_that_the_program_left(programs: ProgramRuns) -> None:
    _, out = programs.run(programs.request())
    left = load_file(out / "run" / "output" / "adapter" / "adapter_model.safetensors")
    stored = load_file(out / "adapter_model.safetensors")
    assert stored.keys() == left.keys()
    assert all(torch.equal(stored[name], left[name]) for name in left)


FAILED = {
    "nothing": "trainer.mine ended with exit code 0 but left no result.json: it printed nothing",
    "crash": "trainer.mine ended with exit code 3: something is wrong with the data",
    "killed": "trainer.mine was killed by SIGKILL; the system may have run out of memory: it printed nothing",
    "no-adapter": "trainer.mine left no output/adapter/adapter_config.json.",
    "bad-result": 'trainer.mine left a result.json that cannot be used: its outcome is neither "done" nor "diverged"',
    "printing": "trainer.mine ended with exit code 3: the end of it",
    "modules": r"trainer.mine: the adapter is not on exactly the planned modules: .*A.weight is missing \(\d+ of \d+\)",
    "untrained": r"trainer.mine: the adapter changes nothing: the loss of 64 train rows is 3.\d+ with it and without",
    "nan": r"trainer.mine: .*lora_A.weight holds values that are not numbers.",
    "other-scale": r"trainer.mine: its adapter has lora_alpha = 1, and the plan 16.",
    "pickle": r"trainer.mine left pickled weights \(adapter_model.bin\), which are never loaded; save them",
    "link": "trainer.mine left adapter/adapter_model.safetensors, which is a link; only plain files are taken.",
    "early": "trainer.mine: its adapter cannot be read: ",
    "downloads": "trainer.mine ended with exit code 1: ",
}


@pytest.mark.parametrize("lie", FAILED)
def test_a_program_that_leaves_no_planned_adapter_failed(programs: ProgramRuns, lie: str) -> None:
    result, out = programs.run(programs.request(lie))
    assert result.outcome == "failed"
    assert re.match(FAILED[lie], result.message), result.message
    if lie == "printing":
        assert (out / "log.txt").stat().st_size < 3 << 20
        assert "bytes left out" in (out / "log.txt").read_text(encoding="utf-8")


TRACES = {
    "alpha": [r"it reports a loss of [01]\.\d+ at the end; its adapter has \d\.\d+ on the train rows"],
    "shuffled": [r"its first loss is \d\.\d+; the untrained model's on its batches is 3\.\d+ ± 0\.\d+"],
    "whole-text": [r"its first loss is [12]\.\d+; the untrained model's on its batches is 3\.\d+ ± 0\.\d+"],
    "gaps": ["its curve has no row for step 7 and 4 more."],
    "fewer": ["it took 30 optimizer steps instead of 40."],
    "disorder": ["line 21 of its curve has no step, counted from 1."],
    "other-rate": [r"its learning rate is 0\.\d+ at step \d+; the plan has 0\.\d+\."],
    "other-base": [r"it reports a loss of [012]\.\d+ at the end; its adapter has \d\.\d+ on the train rows"],
    "stale": [r"it reports a loss of 0\.\d+ at the end; its adapter has \d\.\d+ on the train rows"],
}


@pytest.mark.parametrize("lie", TRACES)
def test_a_program_that_did_not_do_what_it_reports_is_noted(programs: ProgramRuns, lie: str) -> None:
    result = programs.outcome(lie)
    assert result.outcome == "done"
    traces = result.figures["failed_checks"]
    for expected in TRACES[lie]:
        assert any(re.search(expected, trace) for trace in traces), traces
    assert all(trace.startswith("trainer.mine: ") for trace in traces)


def test_exit_codes_of_the_contract_are_outcomes(programs: ProgramRuns) -> None:
    later, memory = programs.outcome("later"), programs.outcome("memory")
    assert (later.outcome, memory.outcome) == ("interrupted", "out-of-memory")


def test_what_a_program_leaves_running_is_ended_and_noted(programs: ProgramRuns) -> None:
    result = programs.outcome("child")
    assert result.outcome == "done"
    assert "trainer.mine left 1 processes running, which were ended." in result.figures["notes"]


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
def test_the_kernel_keeps_a_program_from_held_out_rows_and_from_the_base(programs: ProgramRuns, tmp_path: Path) -> None:
    secret = programs.protected / "test.jsonl"
    secret.write_text("the answer is 42\n", encoding="utf-8")
    _, out = programs.run(programs.request("reads", places=[str(secret)]))
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert f"could not read {secret}" in log
    assert "cat 1" in log
    assert "arrow could not read it" in log
    before = {file: file.read_bytes() for file in programs.engine.model.iterdir()}
    result, out = programs.run(programs.request("base"))
    assert (result.outcome, result.figures["reads"]) == ("done", "restricted")
    assert {file: file.read_bytes() for file in programs.engine.model.iterdir()} == before


def test_where_the_kernel_cannot_a_changed_base_fails_the_run(
    programs: ProgramRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    place = tmp_path / "model"
    shutil.copytree(programs.engine.model, place)
    request = programs.request("base")
    request.paths["model"] = str(place)
    result, _ = programs.run(request)
    assert result.outcome == "failed"
    assert result.message == "trainer.mine: the base model's files were changed by the program: generation_config.json."
    honest, _ = programs.run(programs.request(seed=2))
    assert honest.figures["reads"] == "not restricted"


def test_a_file_that_changed_after_the_plan_is_not_run(programs: ProgramRuns) -> None:
    request = programs.request()
    request.settings["trainer"]["files"]["trainer_program.py"] = "0" * 64
    result, _ = programs.run(request)
    assert result.outcome == "failed"
    expected = "trainer.mine: trainer_program.py was changed after the plan was made. Run lora plan again."
    assert result.message == expected


def test_an_environment_that_is_not_the_pinned_one_is_refused(programs: ProgramRuns) -> None:
    programs.requirements = {"torch": "torch==1.0", "nothing": "nothing==2", "py": 'py==1; python_version < "3"'}
    result = programs.outcome()
    assert result.outcome == "failed"
    assert "its environment is not the one that r.lock pins: " in result.message
    assert f"torch {torch.__version__} instead of 1.0; nothing 2 is not installed. " in result.message
    assert f"Install r.lock into the environment of {sys.executable}" in result.message


def test_own_data_must_not_hold_a_held_out_row(programs: ProgramRuns, tmp_path: Path) -> None:
    """A question that the test split holds is found in whatever column it is; one that is trained on anyway is not."""
    rows = [json.loads(line) for line in programs.engine.rows.read_text(encoding="utf-8").splitlines()]
    files = [str(programs.engine.rows)]
    places = {"train": (0, 64), "test": (64, 128)}
    programs.splits = {
        split: {"files": files, "rows": {"seed": None, "start": start, "stop": stop}, "sample_by": "auto"}
        for split, (start, stop) in places.items()
    }
    pairs = tmp_path / "pairs.jsonl"
    programs.data = {"pairs": pairs}
    pairs.write_text(json.dumps({"prompt": rows[5]["question"], "chosen": "a"}) + "\n", encoding="utf-8")
    assert programs.outcome(objective="preference").outcome == "done"
    asked = {"role": "user", "content": f"  {rows[70]['question'].upper()} "}
    pairs.write_text(json.dumps({"prompt": "other"}) + "\n" + json.dumps({"chosen": [asked]}) + "\n", encoding="utf-8")
    result = programs.outcome(objective="preference")
    assert result.outcome == "failed"
    assert result.message == "trainer.mine.data.pairs: line 2 is also a row of the test split."


def test_of_another_objective_losses_are_not_compared(programs: ProgramRuns) -> None:
    result = programs.outcome("whole-text", objective="preference")
    assert result.outcome == "done"
    assert "failed_checks" not in result.figures
    assert result.figures["reported"] == {"rewards/accuracies": 0.75}


class _StopAt:
    """Reports of a run, which is asked to stop at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, progress: dict[str, Any]) -> None:
        from lorafile.engine.request import Stopped

        if progress.get("step", 0) >= self.step:
            raise Stopped


def test_a_run_that_is_stopped_goes_on_to_the_same_bytes(programs: ProgramRuns) -> None:
    request = programs.request(pause=0.02)
    stopped, _ = programs.run(request, _StopAt(10))
    assert stopped.outcome == "interrupted"
    result, out = programs.run(request)
    assert result.outcome == "done"
    assert 10 <= result.figures["resumed_from"][0] < STEPS
    assert [row["step"] for row in curve(out)] == list(range(1, STEPS + 1))
    whole, other = programs.run(programs.request(pause=0.02, seed=1, save_every=1000))
    assert whole.outcome == "done"
    assert (out / "adapter_model.safetensors").read_bytes() == (other / "adapter_model.safetensors").read_bytes()


def test_a_program_that_ends_with_0_and_nothing_when_it_is_stopped_was_interrupted(programs: ProgramRuns) -> None:
    result, _ = programs.run(programs.request("leaves"), _StopAt(1))
    assert result.outcome == "interrupted"


def test_own_data_that_cannot_be_compared_are_refused(programs: ProgramRuns, tmp_path: Path) -> None:
    programs.data = {"pairs": tmp_path / "pairs.jsonl"}
    programs.data["pairs"].write_text('{"prompt": "a"}\nprompt,chosen\n', encoding="utf-8")
    result = programs.outcome(objective="preference")
    assert result.outcome == "failed"
    assert result.message.startswith("trainer.mine.data.pairs: line 2 is not JSON, so it cannot be compared with")


def test_a_program_that_ignores_the_signal_is_killed_in_time(programs: ProgramRuns) -> None:
    result, out = programs.run(programs.request("hang"), _StopAt(1))
    assert result.outcome == "interrupted"
    assert '"killed": true' in (out / "run" / "status.json").read_text(encoding="utf-8")
