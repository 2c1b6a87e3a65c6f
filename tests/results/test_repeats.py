"""The same thing again: under a key of its own, for the noise floor, and in no average."""

from pathlib import Path

import pytest

from lorafile import Study
from lorafile.graph.graph import Graph

SWEEP = """
[[sweep]]
name = "rank"
lora.r = [2, 4]
[[sweep]]
name = "baselines"
method = ["none"]
"""


def again(spec_file: Path, repeats: int) -> Study:
    text = spec_file.read_text(encoding="utf-8").partition("[[sweep]]")[0]
    text = text.replace("\nrepeats = 1\n", "\n").replace("seeds = [1, 2]", f"seeds = [1, 2]\nrepeats = {repeats}")
    spec_file.write_text(text + SWEEP, encoding="utf-8")
    return Study.load(spec_file, spec_file.parent / "state")


def addresses(graph: Graph) -> dict[str, str]:
    return {node.address: key for key, node in graph.nodes.items()}


def test_a_repeat_has_a_key_of_its_own_and_moves_no_other(spec_file: Path) -> None:
    once, twice = (addresses(again(spec_file, repeats).plan().graph) for repeats in (1, 2))
    assert once.items() < twice.items()
    assert [name for name in twice if name not in once and name.endswith(":train")] == [
        "rank/r=2/seed=1/repeat=2:train",
        "rank/r=4/seed=1/repeat=2:train",
    ]
    assert "rank/r=2/seed=1/repeat=2:score/test" in twice
    assert len(set(twice.values())) == len(twice)


def test_the_plan_says_what_a_repeat_is_for(spec_file: Path) -> None:
    plan = again(spec_file, 2).plan()
    (change,) = [one for one in plan.changes if one.address == "rank/r=4/seed=1/repeat=2:train"]
    assert change.reason == "a repeat for the noise floor: study.repeats = 2"
    order = [one.address for one in plan.changes if one.kind == "train"]
    assert order.index(change.address) > order.index("rank/r=4/seed=2:train")


def test_a_repeat_gives_the_same_bytes_on_one_machine_and_counts_as_no_seed(spec_file: Path) -> None:
    pytest.importorskip("torch")
    study = again(spec_file, 2)
    study.apply()
    results = study.gather()
    assert list(results.runs["seed"].dropna()) == [1, 2, 1, 2]
    found = results.repeats
    assert list(zip(found["configuration"], found["seed"], found["repeat"], strict=True)) == [
        ("rank/r=2", 1, 2),
        ("rank/r=4", 1, 2),
    ]
    assert found["same_weights"].all()
    assert found["same_predictions"].all()
    first = results.runs[results.runs["seed"] == 1].set_index("configuration")["test.log_loss"]
    assert list(found["test.log_loss"]) == [first[name] for name in found["configuration"]]
    assert {seed for _, seed, _ in results.outcomes} == {None, 1, 2}
    keys = {change.key for change in study.plan().work}
    assert not keys & set(found["key"])  # done once, and not again
