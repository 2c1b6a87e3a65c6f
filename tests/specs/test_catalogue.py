"""The catalogue: well-known sets by name, and local copies of them in their published layouts."""

import json
from pathlib import Path
from typing import get_args

import pytest

from lorafile import specs
from lorafile.errors import SpecError
from lorafile.specs.catalogue import catalogue
from lorafile.specs.tables.data import DataTable, Format
from lorafile.specs.tables.evaluate import MetricName
from lorafile.study.study import Study

NAMES = {
    "alpaca-cleaned",
    "cola",
    "dolly-15k",
    "gsm8k",
    "metamathqa",
    "mnli",
    "mrpc",
    "openassistant-guanaco",
    "qnli",
    "qqp",
    "rte",
    "squad_v2",
    "sst2",
    "stsb",
    "wnli",
}
ROWS = {
    "alpaca-cleaned": {"train.json": [{"instruction": "i", "input": "", "output": "o"}]},
    "dolly-15k": {
        "databricks-dolly-15k.jsonl": [{"instruction": "i", "context": "c", "response": "r", "category": "x"}]
    },
    "gsm8k": {name: [{"question": "q", "answer": "a #### 1"}] for name in ("train.jsonl", "test.jsonl")},
    "metamathqa": {"MetaMathQA-395K.json": [{"type": "t", "query": "q", "original_question": "o", "response": "r"}]},
    "mrpc": {
        name: [{"Quality": "1", "#1 ID": "1", "#2 ID": "2", "#1 String": 'say "x', "#2 String": "b"}]
        for name in ("train.tsv", "dev.tsv", "test.tsv")
    },
    "qnli": {
        name: [{"index": "0", "question": "a", "sentence": "b", "label": "not_entailment"}]
        for name in ("train.tsv", "dev.tsv")
    },
    "openassistant-guanaco": {
        f"openassistant_best_replies_{name}.jsonl": [{"text": "### Human: q### Assistant: a"}]
        for name in ("train", "eval")
    },
    "rte": {
        name: [{"index": "0", "sentence1": "a", "sentence2": "b", "label": "not_entailment"}]
        for name in ("train.tsv", "dev.tsv")
    },
    "sst2": {
        name: [{"sentence": "a", "label": "0"}, {"sentence": "b", "label": "1"}] for name in ("train.tsv", "dev.tsv")
    },
}


def table(**settings: object) -> DataTable:
    return DataTable.model_validate(settings)


def test_every_set_of_the_issue_is_there_with_whose_it_is() -> None:
    assert set(catalogue()) == NAMES
    for name, entry in catalogue().items():
        found = table(path=name)
        assert found.path == entry["path"]
        assert found.format in get_args(Format)
        assert {"what", "licence", "source", "metrics"} <= entry["about"].keys()
        assert set(entry["about"]["metrics"]) <= set(get_args(MetricName))
        assert entry["about"]["source"].startswith("https://")


def test_a_name_fills_in_what_the_spec_does_not_say() -> None:
    found = table(path="catalogue:sst2")
    assert (found.path, found.name, found.format) == ("nyu-mll/glue", "sst2", "classification")
    assert found.labels == {"0": "negative", "1": "positive"}
    assert found.split.test == "validation"
    own = table(path="sst2", labels={"0": "bad", "1": "good"}, split={"train": 10, "test": 5})
    assert own.labels == {"0": "bad", "1": "good"}
    assert (own.split.train, own.split.test, own.split.validation) == (10, 5, None)


def test_a_template_or_another_format_takes_the_place_of_the_set_s() -> None:
    own = table(path="gsm8k", template={"prompt": "{question}", "completion": "{answer}"})
    assert (own.format, own.path) == ("auto", "openai/gsm8k")
    own = table(path="sst2", format="completion", columns={"prompt": "sentence", "completion": "label"})
    assert (own.format, own.labels) == ("completion", {})


def test_a_misspelt_name_is_caught(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        '[study]\nname = "x"\n[model]\npath = "m"\n[data]\npath = "catalogue:gsm8"\nlike = "sst"\n', encoding="utf-8"
    )
    with pytest.raises(SpecError) as caught:
        specs.load(file)
    assert "study.toml:6:1: data.path: should be a name from the catalogue (alpaca-cleaned" in str(caught.value)
    assert "study.toml:7:1: data.like: should be a name from the catalogue" in str(caught.value)


def test_a_name_that_is_also_a_directory_here_is_refused(tmp_path: Path) -> None:
    """LLM-Adapters has its data in directories such as gsm8k, and they are not those of the hub."""
    (tmp_path / "gsm8k").mkdir()
    file = tmp_path / "study.toml"
    start = 'study.name = "x"\nmodel.path = "m"\n'
    sweep = (
        'data.path = "rows.jsonl"\n[[sweep]]\ndata.path = ["{0}", "sst2"]\n[[sweep]]\nconfigurations = [{{ {1} }}]\n'
    )
    written = [
        ('data.path = "{0}"\n', ["3:6: data.path"]),
        (
            sweep.replace("{1}", 'data.path = "{0}"'),
            ["5:14: sweep[0].data.path[0]", "study.toml:7:"],
        ),
    ]
    for text, places in written:
        file.write_text(start + text.format("gsm8k"), encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            specs.load(file)
        for place in places:
            assert place in str(caught.value)
        assert str(caught.value).count('write "./gsm8k" for what stands here, or "catalogue:gsm8k" for') == len(places)
    for name, path in (("./gsm8k", "./gsm8k"), ("catalogue:gsm8k", "openai/gsm8k")):
        file.write_text(start + f'data.path = "{name}"\n', encoding="utf-8")
        assert specs.load(file).tables.data.path == path


def write(root: Path, name: str) -> Path:
    """A local copy of a set in the layout in which it is published, of twenty times its rows."""
    (root / name).mkdir()
    for file, rows in ROWS[name].items():
        many = [dict(row) for _ in range(20) for row in rows]
        if file.endswith(".json"):
            text = json.dumps(many)
        elif file.endswith(".jsonl"):
            text = "".join(json.dumps(row) + "\n" for row in many)
        else:
            head = "\t".join(many[0])
            for number, row in enumerate(many):
                if "Quality" in row:
                    row["Quality"] = str(number % 2)
                if "index" in row:
                    row["label"] = ("entailment", "not_entailment")[number % 2]
            text = "\n".join([head, *("\t".join(row.values()) for row in many)]) + "\n"
        (root / name / file).write_text(text, encoding="utf-8")
    return root / name


@pytest.mark.parametrize("name", sorted(ROWS))
def test_each_set_is_read_from_its_published_files(tmp_path: Path, tiny_model: Path, name: str) -> None:
    pytest.importorskip("torch")
    where = write(tmp_path, name)
    file = tmp_path / "study.toml"
    file.write_text(
        f'[study]\nname = "x"\nseeds = [1]\n[model]\npath = "{tiny_model}"\n'
        f'[data]\npath = "{where}"\nlike = "{name}"\n[profile]\nenabled = false\n[[sweep]]\nmethod = ["none"]\n',
        encoding="utf-8",
    )
    study = Study.load(file, tmp_path / ".lora")
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    assert study.results()["test.log_loss"].notna().all()


def test_gsm8k_from_the_real_files(tmp_path: Path, shared: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        f'[study]\nname = "x"\n[model]\npath = "{shared}/models/stories260K-hf"\n'
        f'[data]\npath = "{shared}/data/gsm8k"\nlike = "gsm8k"\n',
        encoding="utf-8",
    )
    plan = Study.load(file, tmp_path / ".lora").plan()
    rows = {node.split: node.settings["data"]["rows"] for node in plan.graph.nodes.values() if node.kind == "prepare"}
    assert rows["test"]["stop"] == 1319
    assert rows["train"]["stop"] == 7473
