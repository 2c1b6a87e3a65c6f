"""The graph of a study as text."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from lorafile import Study
from lorafile.cli.views.graph import dot, drawing, mermaid

SWEEPS = """
[[sweep]]
name = "rank"
lora.r = [2, 4]
[[sweep]]
name = "un\\"tuned"
method = ["none"]
"""
GOLDEN = """\
flowchart LR
  subgraph g0["data"]
    n0["train"]:::run
    n1["validation"]:::run
    n2["test"]:::run
  end
  subgraph g1["rank/r=2"]
    n3["train ×2"]:::run
    n6["predict ×4"]:::run
    n9["score ×4"]:::run
  end
  subgraph g2["rank/r=4"]
    n4["train ×2"]:::run
    n7["predict ×4"]:::run
    n10["score ×4"]:::run
  end
  subgraph g3["un#quot;tuned/method=none"]
    n5["predict ×2"]:::run
    n8["score ×2"]:::run
  end
  n0 --> n3
  n0 --> n4
  n1 --> n5
  n2 --> n5
  n1 --> n6
  n3 --> n6
  n2 --> n6
  n1 --> n7
  n4 --> n7
  n2 --> n7
  n5 --> n8
  n6 --> n9
  n7 --> n10
  classDef run fill:#d5f0d5"""


def study(spec_file: Path, more: str) -> Study:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(more)
    return Study.load(spec_file, spec_file.parent / ".lora")


def test_a_small_study_is_a_box_for_each_kind_of_a_configuration(spec_file: Path) -> None:
    assert mermaid(drawing(study(spec_file, SWEEPS).plan())) == GOLDEN


def test_the_same_for_graphviz(spec_file: Path) -> None:
    text = dot(drawing(study(spec_file, SWEEPS).plan()))
    assert text.startswith("digraph study {\n  rankdir=LR;\n")
    assert '    label="un\\"tuned/method=none";\n    n5 [label="predict ×2", fillcolor="#d5f0d5"];\n' in text
    assert text.count(" -> ") == GOLDEN.count(" --> ")
    assert text.count("{") == text.count("}") == 5


def test_of_a_large_study_a_sweep_is_one_group_and_full_shows_every_node(spec_file: Path) -> None:
    plan = study(spec_file, f'[[sweep]]\nname = "rank"\nlora.r = {list(range(1, 21))}\n').plan()
    found = drawing(plan)
    assert list(found.groups) == ["data", "rank (20 configurations)"]
    assert [box.words for box in found.groups["rank (20 configurations)"]] == ["train ×40", "predict ×80", "score ×80"]
    assert {box.label for box in drawing(plan, full=True).boxes} == {change.address for change in plan.changes}


def test_what_is_done_is_told_apart(spec_file: Path) -> None:
    loaded = study(spec_file, SWEEPS)
    loaded.apply(loaded.plan(target=["data/*", "rank/r=2/seed=1:train"]))
    boxes = {box.name: box for box in drawing(loaded.plan()).boxes}
    assert boxes["n0"].action == "reuse"
    assert boxes["n3"].words == "train ×2, 1 to do"
    assert boxes["n3"].action == "run"


def test_what_is_read_by_way_of_another_box_is_not_drawn_again(spec_file: Path) -> None:
    """A truncated adapter is cut from a trained one and predicts: the trained one's arrow leads to it by two ways."""
    plan = study(spec_file, '[truncate]\nranks = [2]\n[[sweep]]\nname = "rank"\nlora.r = [4]\n').plan()
    drawn = drawing(plan)
    names = {box.name: box.label for box in drawn.boxes}
    edges = {(names[read], names[reader]) for read, reader in drawn.edges}
    assert {("train", "truncate"), ("truncate", "predict")} <= edges
    assert ("train", "predict") not in edges
