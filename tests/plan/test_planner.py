"""How a plan is made: inert data, step by step, from a graph that is built once, and once more for choices."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from lorafile import Study
from lorafile.plan import planner, tuning
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
TUNED = SPEC.replace("lora.r = [4, 8]", "lora.r = [4, 8]\ntrain.learning_rate = { tune = [1e-3, 3e-3], extend = true }")


def study(tmp_path: Path, text: str) -> Study:
    file = tmp_path / "study.toml"
    file.write_text(text, encoding="utf-8")
    return Study.load(file, tmp_path / "state")


@pytest.mark.parametrize("name", [table.name for table in fields(Plan)])
def test_nobody_assigns_to_a_plan(tmp_path: Path, name: str) -> None:
    plan = study(tmp_path, SPEC).plan()
    with pytest.raises(FrozenInstanceError):
        setattr(plan, name, None)


@pytest.mark.parametrize("text", [SPEC, TUNED], ids=["plain", "tuned"])
def test_a_graph_is_built_once_while_nothing_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    built = []
    build = planner.build

    def counted(*arguments: object) -> object:
        built.append(arguments)
        return build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(planner, "build", counted)
    monkeypatch.setattr(tuning, "build", counted)
    plan = study(tmp_path, text).plan()
    assert len(built) == 1
    assert len(plan.work) == len(plan.graph.nodes)
