"""What `lora trainer check` finds of an honest program, and of those that no single run gives away."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from engine_fixture import Engine
from trainer_fixture import ProgramRuns

from lorafile.engine.data.sources import find_data, find_model
from lorafile.engine.run import run
from lorafile.engine.trainers.probe import probe

FAILS: dict[str, set[str]] = {"": set(), "seed": {"other seed"}, "rate": {"builtin"}}


@pytest.mark.parametrize("lie", FAILS)
def test_a_program_fails_the_probe_of_what_it_does_not_do_and_no_other(tmp_path: Path, lie: str) -> None:
    model = find_model("builtin:facts-llama", None, tmp_path)
    rows = next(find_data("builtin:facts", None, tmp_path).rglob("*train*"))
    programs = ProgramRuns(Engine(model, rows, tmp_path), tmp_path)
    findings = list(probe(programs.request(lie, pause=0.02), tmp_path / "probe", run))
    assert [finding.name for finding in findings] == ["same seed", "other seed", "resume", "data", "builtin"]
    assert {finding.name for finding in findings if not finding.holds} == FAILS[lie], findings
