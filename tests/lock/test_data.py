"""The lock of a data set: rows that are left out, labels that are hidden, and machines without `datasets`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafile.engine.data.columns import check_columns
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.templates import named
from lorafile.errors import NodeError
from lorafile.graph.settings import named_classes
from lorafile.graph.splits import draw
from lorafile.lock.data import DataLock, lock_data, split_files
from lorafile.lock.lockfile import Lock, identity, shown_name
from lorafile.specs.catalogue import catalogue
from lorafile.specs.tables.data import DataTable
from lorafile.study.init import first_spec

LABELS = [0, 1, 2, -1, None]


def table(**settings: Any) -> DataTable:
    return DataTable.model_validate(settings)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows of three classes, and as many of none."""
    many = [{"text": f"t {n}", "label": LABELS[n % len(LABELS)]} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many), encoding="utf-8")
    return tmp_path


def test_rows_that_are_left_out_are_counted_and_not_locked(rows: Path) -> None:
    whole, kept = (lock_data(table(path="rows.jsonl", **more), rows) for more in ({}, {"where": "label >= 0"}))
    assert (whole.rows, whole.left_out, whole.labels["train"]) == ({"train": 40}, {}, ["", "-1", "0", "1", "2"])
    assert (kept.rows, kept.left_out, kept.labels["train"]) == ({"train": 24}, {"train": 16}, ["0", "1", "2"])
    assert whole.digests != kept.digests
    files = split_files(rows / "rows.jsonl", table(path="rows.jsonl", where={"label": [2]}))
    assert {row["label"] for row in read_rows(files["train"])} == {2}


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, "rows.csv"),
        ({"name": "main", "revision": "v2"}, "rows.csv/main@v2"),
        (
            {"column_names": ["label", "Text with {braces}"]},
            'rows.csv (column_names = ["label", "Text with {braces}"])',
        ),
        ({"delimiter": ";", "where": "a > 1"}, 'rows.csv (delimiter = ";", where = "a > 1")'),
    ],
)
def test_data_are_named_as_a_spec_writes_what_is_set(settings: dict[str, Any], shown: str) -> None:
    assert shown_name(identity(table(path="rows.csv", **settings))) == shown


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lable >= 0", 'has no column "lable"; its columns are: text, label'),
        ("text > 0", r'row 0: text is "t 0", which is not a number'),
        ("label > 7", "has no rows left after data.where"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused(rows: Path, where: str, message: str) -> None:
    with pytest.raises(NodeError, match=message):
        lock_data(table(path="rows.jsonl", where=where), rows)


def test_what_a_readme_says_is_locked_by_names_from_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "ds").mkdir()
    for name in ("en", "de"):
        (tmp_path / "ds" / f"{name}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3, encoding="utf-8")
    card = "configs: [{config_name: en, data_files: en.jsonl, default: true}, {config_name: de, data_files: de.jsonl}]"
    (tmp_path / "ds" / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "ds", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    for base, path in ((Path(), "ds"), (tmp_path, "link"), (tmp_path, str(tmp_path / "ds"))):
        entry = lock_data(table(path=path), base)
        assert (entry.layout, entry.configurations) == ({"train": ["en.jsonl"]}, ["de"])


def test_an_entry_without_what_some_have_is_written_as_before(rows: Path) -> None:
    entry = lock_data(table(path="rows.jsonl"), rows)
    content = json.loads(Lock({}, {"rows.jsonl": entry}).text())["data"]["rows.jsonl"]
    assert set(content) == {
        *("revision", "digests", "rows", "characters", "columns", "label", "labels", "lengths", "kinds", "percentiles")
    }
    assert DataLock(**content) == entry


def tsv(header: list[str], row: Callable[[int], list[Any]]) -> str:
    return "".join("\t".join(map(str, line)) + "\n" for line in [header, *map(row, range(20))])


def entails(number: int) -> str:
    return ("entailment", "not_entailment")[number % 2]


def three(number: int) -> list[str]:
    return [("entailment", "neutral", "contradiction")[number % 3]] * 3


PAIR = ["index", "sentence1", "sentence2"]
MNLI = [*PAIR[:1], "promptID", "pairID", "genre", *PAIR[1:]]
STRINGS, ASKS = ["#1 String", "#2 String"], ["question1", "question2"]
STS = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]
# Directories as GLUE publishes them: name in the catalogue -> (directory, file -> content). Words of our own.
GLUE: dict[str, tuple[str, dict[str, str]]] = {
    "sst2": (
        "SST-2",
        dict.fromkeys(("train.tsv", "dev.tsv"), tsv(["sentence", "label"], lambda n: [f'"gut {n}', n % 2]))
        | {"test.tsv": tsv(["index", "sentence"], lambda n: [n, "gut"])},
    ),
    "cola": (
        "CoLA",
        dict.fromkeys(
            ("train.tsv", "dev.tsv"), tsv(["k", "0", "*", "An first ."], lambda n: ["k", n % 2, "", f"A {n} ."])
        )
        | {"test.tsv": tsv(["index", "sentence"], lambda n: [n, "A ."])},
    ),
    "mrpc": (
        "MRPC",
        dict.fromkeys(
            ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
            "\ufeff"
            + tsv(["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], lambda n: [n % 2, n, n, f'"a {n}', "b"]),
        ),
    ),
    "rte": (
        "RTE",
        dict.fromkeys(("train.tsv", "dev.tsv"), tsv([*PAIR, "label"], lambda n: [n, f"a {n}", "b", entails(n)]))
        | {"test.tsv": tsv(PAIR, lambda n: [n, "a", "b"])},
    ),
    "wnli": (
        "WNLI",
        dict.fromkeys(("train.tsv", "dev.tsv"), tsv([*PAIR, "label"], lambda n: [n, f"a {n}", "b", n % 2]))
        | {"test.tsv": tsv(PAIR, lambda n: [n, "a", "b"])},
    ),
    "qnli": (
        "QNLI",
        dict.fromkeys(
            ("train.tsv", "dev.tsv"),
            tsv(["index", "question", "sentence", "label"], lambda n: [n, f"a {n}", "b", entails(n)]),
        )
        | {"test.tsv": tsv(["index", "question", "sentence"], lambda n: [n, "a", "b"])},
    ),
    "qqp": (
        "QQP",
        dict.fromkeys(
            ("train.tsv", "dev.tsv"),
            tsv(
                ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
                lambda n: [n, n, n, f"a {n}", "b", n % 2],
            ),
        )
        | {"test.tsv": tsv(["id", *ASKS], lambda n: [n, "a", "b"])},
    ),
    "mnli": (
        "MNLI",
        {"train.tsv": tsv([*MNLI, "label1", "gold_label"], lambda n: [n, n, n, "g", f"a {n}", "b", *three(n)[:2]])}
        | dict.fromkeys(
            ("dev_matched.tsv", "dev_mismatched.tsv"),
            tsv([*MNLI, "label1", "label2", "gold_label"], lambda n: [n, n, n, "g", f"a {n}", "b", *three(n)]),
        )
        | dict.fromkeys(("test_matched.tsv", "test_mismatched.tsv"), tsv(MNLI, lambda n: [n, n, n, "g", "a", "b"])),
    ),
    "stsb": (
        "STS-B",
        dict.fromkeys(
            ("train.tsv", "dev.tsv"),
            tsv([*STS, "score"], lambda n: [n, "g", "f", 1, n, "s", "s", f"a {n}", "b", n / 8]),
        )
        | {"test.tsv": tsv(STS, lambda n: [n, "g", "f", 1, n, "s", "s", "a", "b"])},
    ),
}


def published(root: Path, name: str) -> Path:
    directory, files = GLUE[name]
    (root / directory).mkdir()
    for file, text in files.items():
        (root / directory / file).write_text(text, encoding="utf-8")
    return root / directory


@pytest.mark.parametrize("name", GLUE)
def test_the_names_of_glue_read_its_published_directories(tmp_path: Path, name: str) -> None:
    data = table(path=str(published(tmp_path, name)), like=name)
    lock = lock_data(data, tmp_path)
    splits = draw(data.split, 0, lock.rows)
    assert set(splits) == {"train", "validation", "test"}
    check_columns(data.model_dump() | {"template": None}, lock.columns, name)
    files = split_files(Path(data.path), data, lock)
    for rows in splits.values():
        assert lock.labels[rows.source]
        row = named(next(read_rows(files[rows.source])), data.columns, "classification")
        texts = [row["text"]] if "text" in row else [row["sentence1"], row["sentence2"]]
        assert texts in (['"gut 0'], ["An first ."], ['"a 0', "b"], ["a 0", "b"])
    if name != "stsb":
        values = catalogue()[name]["labels"]
        assert [name for _, name in named_classes(data, lock)] == list(values.values())


@pytest.mark.parametrize("name", [name for name in GLUE if name != "stsb"])
def test_init_knows_the_directories_of_glue(tmp_path: Path, name: str) -> None:
    text = first_spec(data=str(published(tmp_path, name))).text
    assert f'like = "{name}"' in text
    assert f'metrics = ["{catalogue()[name]["about"]["metrics"][0]}"' in text


PLAN = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
missing = {"torch", "datasets", "transformers", "peft", "tokenizers", "safetensors"}
importlib.machinery.PathFinder.find_spec = lambda name, *more: None if name in missing else find(name, *more)
from lorafile.cli.main import main
main(["plan", sys.argv[1], "--state", sys.argv[2]])
"""
CARD = "---\nconfigs:\n- config_name: a\n  data_files:\n"
CARD += "  - {split: train, path: 'a*.jsonl'}\n  - {split: test, path: held.jsonl}\n---\n"


def plan_without_datasets(spec: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PLAN, str(spec), str(spec.parent / ".lora")], capture_output=True, text=True
    )
    return done.stdout + done.stderr


def test_a_machine_without_the_libraries_plans_plain_files_and_what_a_lock_knows(
    tmp_path: Path, tiny_model: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    from lorafile import Study

    pairs = [{"prompt": f"q {n}", "completion": f"a {n}"} for n in range(20)]
    rows = datasets.Dataset.from_list(pairs)
    for number in range(2):
        rows.to_json(tmp_path / "card" / f"a{number}.jsonl")
    rows.to_json(tmp_path / "card" / "held.jsonl")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "card" / "README.md").write_text(CARD, encoding="utf-8")
    rows.save_to_disk(tmp_path / "saved")
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_json(tmp_path / "rows.jsonl.gz", compression="gzip")
    spec = tmp_path / "study.toml"

    def write(path: str) -> None:
        spec.write_text(
            f'[study]\nname = "x"\nseeds = [1]\n[model]\npath = "{tiny_model}"\n[data]\npath = "{path}"\n'
            "[train]\nmax_steps = 1\n[profile]\nenabled = false\n",
            encoding="utf-8",
        )

    for path in ("card", "saved", "rows.parquet", "rows.jsonl.gz", "rows.csv"):
        write(path)
        study = Study.load(spec, tmp_path / ".lora")
        study.lock()
        assert f"{len(study.plan().work)} to run" in plan_without_datasets(spec), path
        lock = spec.with_suffix(".lock")
        content = json.loads(lock.read_text(encoding="utf-8")) | {"data": {}}
        lock.write_text(json.dumps(content), encoding="utf-8")
        refused = "needs the library datasets, which is not installed" in plan_without_datasets(spec)
        assert refused == (path in ("card", "saved")), path
