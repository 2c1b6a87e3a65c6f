"""Stages: further seeds of some configurations, as a spec declares them, a graph holds them, and results tell them."""

from pathlib import Path
from typing import Any

import pytest

from lorafile import specs
from lorafile.errors import SpecError
from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import resolve
from lorafile.results.runs import looks, under_way

SPEC = """\
[study]
name = "s"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[[sweep]]
name = "rank"
lora.r = [4, 8]
[[sweep]]
name = "again"
lora.r = [8]
[[sweep]]
name = "baselines"
method = ["none"]
"""


def parse(text: str) -> specs.Spec:
    return specs.parse(SPEC + text, Path("study.toml"))


def graph(text: str) -> Graph:
    spec = parse(text)
    return build(spec, resolve(spec, None)[0])


@pytest.mark.parametrize(
    ("text", "line", "setting", "words"),
    [
        ("[[stage]]\nseeds = [3, 2]", 18, "stage[0].seeds[1]", "2 is in study.seeds already"),
        ("[[stage]]\nseeds = [3]\n[[stage]]\nseeds = [3]", 20, "stage[1].seeds[0]", "3 is in stage[0] already"),
        ("[[stage]]\nseeds = [3, 3]", 18, "stage[0].seeds[1]", "3 is in stage[0] already"),
        (
            '[[stage]]\nseeds = [3]\nconfigurations = ["rank/r=88"]',
            19,
            "stage[0].configurations[0]",
            '"rank/r=88" is not a configuration of this study; did you mean "rank/r=8"?',
        ),
        (
            '[[stage]]\nseeds = [3]\nconfigurations = ["rank/r=8", "again/r=8"]',
            19,
            "stage[0].configurations[1]",
            "is listed twice",
        ),
        (
            '[[stage]]\nseeds = [3]\nconfigurations = ["baselines/method=none"]',
            19,
            "stage[0].configurations[0]",
            "does not depend on a seed",
        ),
        ("[verdict]\nkeep = 0\n[[stage]]\nseeds = [3]", 19, "stage[0]", "has no alpha left: verdict.keep = 0"),
        ("[stage]\nseeds = [3]", 17, "stage", "blocks that start with [[stage]]"),
    ],
)
def test_a_stage_that_cannot_be_is_told_where_it_stands(text: str, line: int, setting: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    [problem] = caught.value.problems
    assert (problem.line, problem.setting) == (line, setting)
    assert words in problem.message


def test_a_stage_adds_runs_of_its_configurations_after_the_study_and_changes_no_other() -> None:
    before = graph("")
    after = graph('[[stage]]\nseeds = [7, 8]\nconfigurations = ["again/r=8"]\n[[stage]]\nseeds = [9]\n')
    assert before.nodes.items() <= after.nodes.items()
    trained = [(node.configuration, node.seed) for node in after.nodes.values() if node.kind == "train"]
    study = [(name, seed) for seed in (1, 2) for name in ("rank/r=4", "rank/r=8")]
    assert trained == [*study, ("rank/r=8", 7), ("rank/r=8", 8), ("rank/r=4", 9), ("rank/r=8", 9)]
    assert len(after.replicates["baselines/method=none"]) == 1


def run(configuration: str, seed: int | None, outcome: str) -> dict[str, Any]:
    return {"configuration": configuration, "seed": seed, "outcome": outcome}


def test_a_stage_is_a_look_when_all_of_its_runs_have_ended() -> None:
    spec = parse('[[stage]]\nseeds = [7]\n[[stage]]\nseeds = [9]\nconfigurations = ["rank/r=4"]\n')
    first = [run(name, seed, "done") for name in ("rank/r=4", "rank/r=8") for seed in (1, 2)]
    stage = [run("rank/r=4", 7, "diverged"), run("rank/r=8", 7, "out-of-memory")]
    later = [run("rank/r=4", 9, "done")]
    assert looks(spec, [*first, *stage, *later]) == ((1, 2), (7,), (9,))
    assert under_way(spec, [*first, *stage, *later]) == []
    for unfinished in ("missing", "failed", "running", "interrupted"):
        begun = [*first, stage[0], run("rank/r=8", 7, unfinished), *later]
        assert looks(spec, begun) == ((1, 2),)
        [told] = under_way(spec, begun)
        assert told.startswith("Stage 1 is in progress: 1 of its 2 runs have ended.")
