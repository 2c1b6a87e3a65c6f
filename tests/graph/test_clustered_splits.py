"""Rows that belong together: they stay in one split, and count as one."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from data_fixture import study

from lorafile import Study
from lorafile.analysis.compare.outcomes import crossed
from lorafile.errors import SpecError
from lorafile.files.jsonl import read_lines
from lorafile.state import State

UNTUNED = '[[sweep]]\nname = "shots"\nmethod = ["none"]\nnone.shots = [0, 1]\n'
PEOPLE = ["anna", "tom", "bob", "lea", "max", "ida", "ben", "eva", "jan", "mia"]


def rows(root: Path, name: str = "rows.jsonl", people: list[str] = PEOPLE, each: int = 6) -> Path:
    """Questions about people, several of each."""
    lines = [
        {"prompt": f"where does {who} live ? {n}", "completion": " paris" if n % 2 else " rome", "person": who}
        for n in range(each)
        for who in people
    ]
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return root / name


def people_of(mine: Study, state: State, file: Path, split: str) -> set[str]:
    """Whose rows a split has."""
    own = [json.loads(line)["person"] for line in file.read_text(encoding="utf-8").splitlines()]
    graph = mine.plan().graph
    key = graph.splits["shots/method=none,shots=0"].get(split) or next(
        keys[split] for keys in graph.splits.values() if split in keys
    )
    attempt = state.latest()[key][-1]
    return {own[line["row"]] for line in read_lines(state.objects.path(attempt.outputs["examples.jsonl.gz"]))}


def test_rows_of_one_cluster_stay_in_one_split_and_count_as_one(tmp_path: Path, tiny_model: Path) -> None:
    file = rows(tmp_path)
    more = 'cluster = "person"\nsplit = { train = 20, validation = 12, test = 24 }\n'
    mine = study(tmp_path, tiny_model, file, more, UNTUNED)
    applied = mine.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    state = State.read(tmp_path / ".lora")
    validation, test = (people_of(mine, state, file, split) for split in ("validation", "test"))
    assert validation
    assert not validation & test
    data = crossed(mine.gather(), "log_loss", "test")
    sides = [*data.outcomes.values()]
    assert {(side.unit, side.examples) for side in sides} == {("cluster", len(test))}
    figures = mine.results().set_index("configuration")["test.log_loss"]
    for name, side in data.outcomes.items():
        assert side.mean == pytest.approx(figures[name].mean())
    mine.report(tmp_path / "report")
    text = (tmp_path / "report" / "RESULTS.md").read_text(encoding="utf-8")
    assert f"test examples are in {len(test)} clusters" in text


def keys(mine: Study, kind: str) -> dict[str, str]:
    """The keys of a study by address."""
    return {node.address: node.key for node in mine.plan().graph.nodes.values() if node.kind == kind}


def test_splits_that_the_data_declare_stay_and_what_is_in_two_is_told(tmp_path: Path, tiny_model: Path) -> None:
    for name, people in (("train", PEOPLE), ("validation", PEOPLE[:3]), ("test", PEOPLE[2:6])):
        rows(tmp_path / "data", f"{name}.jsonl", people, 2)
    plain = study(tmp_path, tiny_model, tmp_path / "data")
    before = {kind: keys(plain, kind) for kind in ("prepare", "train", "predict", "score")}
    mine = study(tmp_path, tiny_model, tmp_path / "data", 'cluster = "person"\n')
    after = {kind: keys(mine, kind) for kind in ("prepare", "train", "predict", "score")}
    added = {f"data/{split}/clusters:prepare" for split in ("validation", "test")}
    assert set(after["prepare"]) - set(before["prepare"]) == added
    assert {kind: {a: key for a, key in found.items() if a not in added} for kind, found in after.items()} == before
    (told,) = [line for line in mine.plan().warnings if "share values of" in line]
    pairs = told.partition("(")[2].partition(")")[0].split("; ")
    counts = {"train and test": 4, "train and validation": 3, "validation and test": 1}
    assert sorted(pairs) == sorted(f"{count} in {pair}" for pair, count in counts.items())


def test_passages_of_squad_belong_together_and_an_older_lock_keeps_its_split(tmp_path: Path, tiny_model: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"context": f"{who} lives in paris .", "question": f"where ? {n}", "answers": {"text": ["paris"]}}
        for who in PEOPLE
        for n in range(3)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    mine = study(tmp_path, tiny_model, file)
    nodes = mine.plan().graph.nodes.values()
    rules = {node.settings["data"]["rows"].get("cluster") for node in nodes if node.kind == "prepare"}
    assert rules == {"context"}
    mine.lock()
    lock = tmp_path / "study.lock"
    content = json.loads(lock.read_text(encoding="utf-8"))
    for entry in content["data"].values():
        entry.pop("cluster")  # as a lock of before has it
    lock.write_text(json.dumps(content), encoding="utf-8")
    nodes = study(tmp_path, tiny_model, file).plan().graph.nodes.values()
    assert {node.settings["data"]["rows"].get("cluster") for node in nodes if node.kind == "prepare"} == {None}
    assert any(node.address == "data/test/clusters:prepare" for node in nodes), "they count as one all the same"
    none = study(tmp_path, tiny_model, file, 'cluster = ""\n').plan().graph
    assert not any("clusters" in node.address for node in none.nodes.values())


def test_a_cluster_that_is_no_column_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(SpecError, match=r'there is no column "persons"; the columns are: prompt, completion, person'):
        study(tmp_path, tiny_model, rows(tmp_path), 'cluster = "persons"\n').plan()
