"""A plan is inert data."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from lorafile import Study
from lorafile.plan.plan import Plan

SPEC = """
[study]
name = "steps"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
[[sweep]]
name = "rank"
lora.r = [4, 8]
"""


def study(tmp_path: Path, text: str) -> Study:
    file = tmp_path / "study.toml"
    file.write_text(text, encoding="utf-8")
    return Study.load(file, tmp_path / "state")


@pytest.mark.parametrize("name", [table.name for table in fields(Plan)])
def test_nobody_assigns_to_a_plan(tmp_path: Path, name: str) -> None:
    plan = study(tmp_path, SPEC).plan()
    with pytest.raises(FrozenInstanceError):
        setattr(plan, name, None)
