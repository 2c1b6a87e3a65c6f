"""`lora state gc`: nothing goes that somebody needs."""

import json
from pathlib import Path

import pytest
from damage_fixture import lora, rows, stored, work
from state_fixture import STUDY, finish, write_study

from lorafile.study.study import Study

TRAIN = "rank/r=4/seed=1:train"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = write_study(tmp_path)
    finish(file)
    return file


def test_gc_takes_what_no_spec_declares_and_only_when_told(spec: Path) -> None:
    spec.write_text(STUDY.replace("lora.r = [4, 8]", "lora.r = [4]"), encoding="utf-8")
    gone = [stored(spec, f"rank/r=8/seed={seed}:train", "adapter_model.safetensors") for seed in (1, 2)]
    kept = stored(spec, TRAIN, "adapter_model.safetensors")
    dry = lora(spec, "gc", str(spec))
    assert (dry.exit_code, "Would free" in dry.output, all(file.exists() for file in gone)) == (0, True, True)
    assert lora(spec, "gc", str(spec), "--yes").exit_code == 0
    assert (any(file.exists() for file in gone), kept.exists()) == (False, True)
    assert stored(spec, TRAIN, "curve.jsonl.gz").exists(), "what two runs share stays while one of them is declared"
    assert work(spec) == {}
    assert lora(spec, "verify").exit_code == 0, "what was collected is no damage"
    assert rows(spec, "SELECT count(*) FROM runs") == [(5,)], "what was done stays on record"
    spec.write_text(STUDY, encoding="utf-8")
    assert Study.load(spec, spec.parent / ".lora").plan().damaged == (), "nor is it when it is declared again"


def test_gc_takes_what_killed_processes_left_and_keeps_what_goes_on(spec: Path) -> None:
    state = spec.parent / ".lora"
    half = stored(spec, TRAIN, "curve.jsonl.gz").with_name(".new-half")
    half.write_bytes(b"half")
    (state / "score-abc").mkdir()
    keys = dict(rows(spec, "SELECT address, key FROM attempts"))
    done, going_on = state / "running" / str(keys[TRAIN]), state / "running" / str(keys["rank/r=8/seed=1:train"])
    done.mkdir(parents=True)
    lora(spec, "rm", "rank/r=8/seed=1:train", "--yes")
    going_on.mkdir()  # it was begun again
    (going_on / "curve.jsonl").write_text(json.dumps({"steps": 4}) + "\n", encoding="utf-8")
    assert lora(spec, "gc", str(spec), "--yes").exit_code == 0
    assert [path.exists() for path in (half, state / "score-abc", done, going_on)] == [False, False, False, True]
