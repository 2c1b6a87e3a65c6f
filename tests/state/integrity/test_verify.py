"""`lora state verify`: what is damaged or missing is named, and nothing is written."""

from pathlib import Path

import pytest
from damage_fixture import lora, stored
from state_fixture import finish, write_study

TRAIN = "rank/r=4/seed=1:train"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = write_study(tmp_path)
    finish(file)
    return file


def test_a_sound_state_is_told_and_left_alone(spec: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (spec.parent / ".lora").rglob("*")}
    told = lora(spec, "verify")
    assert (told.exit_code, "is intact" in told.output) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in (spec.parent / ".lora").rglob("*")} == before


def test_a_missing_object_is_named(spec: Path) -> None:
    stored(spec, TRAIN, "adapter_model.safetensors").unlink()
    told = lora(spec, "verify")
    assert (told.exit_code, f"of {TRAIN} is missing" in told.output) == (4, True)
