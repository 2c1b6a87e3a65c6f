"""`data.packing`: which keys it changes, and what is refused with it before anything runs."""

from pathlib import Path

import pytest

from lorafile import specs
from lorafile.errors import SpecError
from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import resolve

SPEC = """
[study]
name = "packing"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
max_length = 64
[evaluate]
metrics = ["log_loss"]
"""
SWEPT = SPEC + '[[sweep]]\nname = "rows"\ndata.packing = [false, true]\n'


def graph(text: str) -> Graph:
    spec = specs.parse(text, Path("study.toml"))
    return build(spec, resolve(spec, None)[0])


def test_false_is_the_default_of_everything_but_text() -> None:
    assert graph(SPEC).nodes.keys() == graph(SPEC.replace("max_length", "packing = false\nmax_length")).nodes.keys()


def test_packed_runs_read_the_same_examples_and_have_keys_of_their_own() -> None:
    nodes = list(graph(SWEPT).nodes.values())
    assert sum(node.kind == "prepare" and node.split == "train" for node in nodes) == 1
    for kind in ("train", "profile"):
        apart, packed = (node.settings["training"] for node in nodes if node.kind == kind)
        assert packed == apart | {"packed_row_length": 64}


def test_text_is_packed_when_it_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a few words\n" * 100, encoding="utf-8")
    text = SPEC.replace('builtin:facts"', f'{tmp_path}/rows.txt"')
    assert graph(text).nodes.keys() == graph(text.replace("max_length", "packing = true\nmax_length")).nodes.keys()
    apart = graph(text.replace("max_length", "packing = false\nmax_length")).nodes
    packed = graph(text).nodes
    assert {node.settings["data"].get("packing") for node in packed.values() if node.split == "train"} == {True}
    assert {node.settings["data"].get("packing") for node in apart.values() if node.split == "train"} == {None}
    assert not any("packed_row_length" in str(node.settings) for node in packed.values())


MODEL = 'path = "builtin:facts-llama"'


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('method = "prompt_tuning"\n', "prompt_tuning puts its virtual tokens before a row, and not before each"),
        ('trainer.mine.command = ["python", "train.py"]\ntrain.trainer = "mine"\n', "[trainer.mine] gets one example"),
    ],
)
@pytest.mark.parametrize("spec", [SPEC.replace("max_length", "packing = true\nmax_length"), SWEPT])
def test_what_reads_one_example_of_a_row_is_refused(spec: str, change: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("", encoding="utf-8")
    parsed = specs.parse(change + spec, tmp_path / "study.toml")
    with pytest.raises(SpecError) as refused:
        build(parsed, resolve(parsed, None)[0])
    assert reason in str(refused.value)
    assert str(refused.value).endswith("set it to false")


def test_a_classification_head_is_refused(tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "row {n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(60))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    text = SPEC.replace(MODEL, f'{MODEL}\ntask_type = "SEQ_CLS"').replace('"log_loss"', '"accuracy"')
    text = text.replace('builtin:facts"', f'{tmp_path}/rows.jsonl"\nformat = "classification"\npacking = true')
    with pytest.raises(SpecError, match="a classification head reads one example of a row; set it to false"):
        graph(text)
