"""Where figures were computed, and which differences of it matter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_fixture import study

from lorafile import Study
from lorafile.results.environments import Environments, between, differs
from lorafile.results.gather import gather
from lorafile.state import State

HERE: dict[str, Any] = {"device": "cpu", "driver": None, "torch": "2.9.1", "transformers": "5.1.0", "peft": "0.18.0"}


@pytest.mark.parametrize(
    ("change", "quality", "cost"),
    [
        ({}, [], []),
        ({"torch": "2.10.0"}, [], ["torch 2.9.1 and 2.10.0"]),
        ({"torch": "3.0"}, ["torch 2 and 3"], ["torch 2.9.1 and 3.0"]),
        ({"device": "NVIDIA L4"}, ["device cpu and NVIDIA L4"], ["device cpu and NVIDIA L4"]),
        ({"driver": "570"}, [], ["driver None and 570"]),
        ({"peft": "1.0", "threads": 8}, ["peft 0 and 1"], []),
        ({"imported": True, "torch": "1.0"}, [], []),
    ],
)
def test_only_what_matters_differs(change: dict[str, Any], quality: list[str], cost: list[str]) -> None:
    assert differs(HERE, HERE | change, "quality") == quality
    assert differs(HERE, HERE | change, "cost") == cost


def test_two_configurations_differ_where_any_of_their_runs_does() -> None:
    found = study()
    runs = found.runs.copy()
    runs.loc[(runs["configuration"] == "rank/r=16") & (runs["seed"] == 42), "environment"] = 1
    found = replace(found, runs=runs, environments=[HERE, HERE | {"device": "NVIDIA L4"}])
    assert between(found, "rank/r=16", "rank/r=8", "quality") == ["device cpu and NVIDIA L4"]
    assert between(found, "rank/r=16", "rank/r=16", "quality") == ["device cpu and NVIDIA L4"]
    assert between(found, "rank/r=4", "rank/r=8", "quality") == []
    assert between(found, "rank/r=16", "rank/r=8", "cost") == []


def test_a_profile_of_a_busy_machine_is_named_with_what_measures_it_again(spec_file: Path) -> None:
    pytest.importorskip("torch")
    spec_file.write_text(spec_file.read_text(encoding="utf-8").replace("enabled = false", "repeats = 3"), "utf-8")
    loaded = Study.load(spec_file, spec_file.parent / ".lora")
    loaded.apply(loaded.plan(target=("*:profile",)))
    plan = loaded.plan()
    ((name, key),) = plan.graph.profiles.items()
    measured = plan.results[key]
    assert measured.figures["generate_spread"] >= 0 <= measured.figures["merged_generate_spread"]
    for spread, told in ((1.25, True), (0.05, False)):
        steady = {"generate_spread": 0.02, "base_generate_spread": 0.02}
        figures = measured.figures | steady | {"merged_generate_spread": spread}
        plan.results[key] = measured._replace(figures=figures)
        found = [line for line in gather(plan, State.read(loaded.state)).warnings if "are unreliable" in line]
        assert [line.endswith(f"lora apply {spec_file} --replace '{name}:profile'") for line in found] == [True] * told
        assert all(
            "The times in 1 of 1 profile " in line and "up to 125.0\u202f% of their median" in line for line in found
        )


def test_runs_of_one_configuration_from_two_environments_are_named(spec_file: Path) -> None:
    pytest.importorskip("torch")
    loaded = Study.load(spec_file, spec_file.parent / ".lora")
    loaded.apply()
    plan = loaded.plan()
    name = next(name for name, replicates in plan.graph.replicates.items() if len(replicates) == 2)
    second = plan.graph.replicates[name][1].train
    assert second is not None
    moved = plan.results[second]
    plan.results[second] = moved._replace(environment=moved.environment | {"device": "NVIDIA L4"})
    results = gather(plan, State.read(loaded.state))
    assert any("more than one environment (device cpu and NVIDIA L4)" in line for line in results.warnings)
    runs = results.runs[results.runs["configuration"] == name]
    devices = [results.environments[int(at)]["device"] for at in runs["environment"]]
    assert devices == ["cpu", "NVIDIA L4"]
    assert [pd.notna(at) for at in runs["predicted_in"]] == [True, True]


def test_a_program_with_libraries_of_its_own_is_not_called_a_mixture(spec_file: Path) -> None:
    pytest.importorskip("torch")
    loaded = Study.load(spec_file, spec_file.parent / ".lora")
    loaded.apply()
    plan = loaded.plan()
    name = next(name for name, replicates in plan.graph.replicates.items() if len(replicates) == 2)
    for replicate in plan.graph.replicates[name]:
        assert replicate.train is not None
        node, done = plan.graph.nodes[replicate.train], plan.results[replicate.train]
        plan.graph.nodes[replicate.train] = node._replace(settings=node.settings | {"trainer": {}})
        plan.results[replicate.train] = done._replace(environment=done.environment | {"transformers": "4.57.6"})
    said = Environments(plan).mixed(plan.graph)
    now = done.environment["transformers"].partition(".")[0]
    expected = f"those that evaluate the results (transformers 4 and {now}): {name}."
    assert said == [f"Programs trained with other libraries than {expected}"]
