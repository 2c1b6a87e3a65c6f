"""Every file format, and every way in which a row becomes text."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorafile.engine.data.columns import detect
from lorafile.engine.data.example import Chat, fill
from lorafile.engine.data.files import DataFile, Reading, data_file
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.sources import data_files
from lorafile.engine.data.templates import ALPACA, ALPACA_INPUT, renderer
from lorafile.errors import NodeError

ROWS = [{"prompt": "a, b", "completion": 'say "x"'}, {"prompt": "ü", "completion": "y"}]


def written(file: Path) -> Path:
    """The two rows in the format of a file's ending."""
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    match file.suffix:
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS), encoding="utf-8")
        case ".json":
            file.write_text(json.dumps(ROWS), encoding="utf-8")
        case ".csv":
            frame.to_csv(file, index=False)
        case ".tsv":
            frame.to_csv(file, index=False, sep="\t")
        case ".parquet":
            frame.to_parquet(file)
    return file


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    assert list(read_rows([written(tmp_path / f"rows{ending}")])) == ROWS


def test_a_directory_has_a_split_for_each_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "dev", "test"):
        written(tmp_path / "data" / f"{name}.jsonl")
    files = data_files(tmp_path)
    assert {split: len(parts) for split, parts in files.items()} == {"train": 2, "validation": 1, "test": 1}
    assert len(list(read_rows(files["train"]))) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"x": 1}\n[1]\n', "a.jsonl:2: a row should be an object"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"3", "must contain a list of rows"),
        ("a.csv", b"x\n\xff\n", "is not UTF-8 text"),
        ("a.parquet", b"PAR", "not a readable Parquet file"),
        ("a.jsonl", b'{"x":' + b"[" * 100_000, "not valid JSON"),
        ("a.jsonl", b'{"x": 1}\r\n{"x": \r\n', "a.jsonl:2:7: not valid JSON: Expecting value. Every line should hold"),
        ("a.csv", b"a,b\nx, y, z\n", r"a.csv:2: has 3 fields, more than the header has columns \(2: a, b\)"),
        ("a.tsv", b"a\tb\nx\ty\tz\n", "a.tsv:2: has 3 fields"),
        ("a.csv", b"a,b\nx,y\n" * 3 + b'x,"never\nends\n', "a.csv:7: a quoted field starts here or below"),
        ("a.csv", b"a,a\nx,y\n", 'a.csv:1: two columns are named "a".*data.column_names'),
        ("a.csv", b"a,b\nx\0,y\n", "a.csv:2: contains a NUL character"),
        ("a.csv", "a,b\nx,y\n".encode("utf-16"), "is not UTF-8 text.*data.encoding"),
        ("a.csv.gz", b"a,b\nx,y\n", "is damaged, or not compressed as its suffix says"),
        ("a.jsonl.zst", b"{}\n", "is damaged, or not compressed as its suffix says"),
        ("a.json", b'{"a": [{"x": 1}], "b": [{"x": 2}]}', r'several lists of rows \(a, b\).*data.field = "a"'),
        ("a.json", b'{"names": ["x"]}', "a row should be an object"),
        ("a.dat", b"{}\n", r"unknown suffix.*Supported are \.jsonl, \.ndjson"),
        ("a.parquet.gz", b"", "unknown suffix"),
        ("a.arrow", b"no", "cannot be read by datasets"),
    ],
)
def test_what_cannot_be_read_is_said_with_file_and_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NodeError, match=message):
        list(read_rows([tmp_path / name]))


def render(data: dict[str, Any], row: dict[str, Any]) -> tuple[str, str]:
    settings = {"format": "auto", "template": None, "columns": {}, **data}
    chat = Chat(lambda messages, opens, _tools: "|".join(m["content"] for m in messages) + ("|" if opens else ""))
    example = renderer(settings, chat)(row)
    return example.prompt, example.completion


def test_formats() -> None:
    assert render({"format": "completion"}, ROWS[0]) == ("a, b", 'say "x"')
    assert render({"format": "text"}, {"text": "t"}) == ("", "t")
    alone = {"instruction": "do", "input": "", "output": "done"}
    assert render({"format": "alpaca"}, alone) == (ALPACA.format(instruction="do"), "done")
    more = {**alone, "input": "this"}
    assert render({"format": "alpaca"}, more) == (ALPACA_INPUT.format(instruction="do", input="this"), "done")
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert render({"format": "chat"}, {"messages": messages}) == ("hi|", "ho")
    assert render({"format": "completion", "columns": {"prompt": "q"}}, {"q": "Q", "completion": "A"}) == ("Q", "A")
    template = {"prompt": "Q: {q}\n{{A}}:", "completion": " {a}"}
    assert render({"template": template}, {"q": "{a}", "a": "x"}) == ("Q: {a}\n{A}:", " x")


def test_a_byte_order_mark_and_long_fields_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,completion\n" + b"x" * 200_000 + b",y\n")
    (row,) = read_rows([tmp_path / "a.csv"])
    assert list(row) == ["prompt", "completion"]


def test_one_split_in_several_directories_is_refused_and_a_name_chooses(tmp_path: Path) -> None:
    for folder in ("main", "socratic"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "train.jsonl")
    (tmp_path / "README.txt").write_text("about", encoding="utf-8")
    with pytest.raises(NodeError, match=r"several directories \(main, socratic\)"):
        data_files(tmp_path)
    assert list(data_files(tmp_path, "main")) == ["train"]
    with pytest.raises(NodeError, match="it has: main, socratic"):
        data_files(tmp_path, "../main")


def test_texts_and_their_labels_in_separate_files_are_refused(tmp_path: Path) -> None:
    """TweetEval's layout: line belongs to line, and nothing in the files says so."""
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}_text.txt").write_text("good\nbad\n", encoding="utf-8")
        (tmp_path / f"{split}_labels.txt").write_text("1\n0\n", encoding="utf-8")
    with pytest.raises(NodeError, match=r"separate files \(test_text\.txt, test_labels\.txt\), which are not joined"):
        data_files(tmp_path)
    assert list(data_files(tmp_path / "train_text.txt")) == ["train"]
    for file in tmp_path.glob("*_labels.txt"):
        file.unlink()
    assert list(data_files(tmp_path)) == ["test", "train", "validation"]


def test_a_data_digest_knows_the_order_of_files_and_not_their_names(tmp_path: Path) -> None:
    from lorafile.lock.data import data_digest

    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text("{}", encoding="utf-8")
    b.write_text('{"x": 1}', encoding="utf-8")
    assert data_digest([a, b]) != data_digest([b, a])
    assert data_digest([a]) == data_digest([a.rename(tmp_path / "c.jsonl")])


def test_a_chat_row_needs_an_answer() -> None:
    with pytest.raises(NodeError, match="no assistant turn to train on"):
        render({"format": "chat"}, {"messages": [{"role": "user", "content": "hi"}]})


def test_a_template_never_reaches_into_objects() -> None:
    with pytest.raises(NodeError, match="no column"):
        fill("{text.__class__}", {"text": "x"})


def test_formats_are_told_by_their_columns() -> None:
    assert detect(["messages", "id"], "x") == "chat"
    assert detect(["instruction", "input", "output"], "x") == "alpaca"
    assert detect(["question", "answer"], "x") == "question"
    with pytest.raises(NodeError, match=r"\(a, b\) match no known format"):
        detect(["a", "b"], "x")


def test_chat_goes_through_the_tokenizer_s_template(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from lorafile.engine.batching.tokens import Tokens
    from lorafile.engine.data.sources import find_model
    from lorafile.engine.request import Request
    from lorafile.engine.run import run

    file = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "where does anna live ?"}, {"role": "assistant", "content": "paris"}]
    file.write_text(json.dumps({"messages": turns}), encoding="utf-8")
    data = {
        "format": "chat",
        "template": None,
        "columns": {},
        "max_length": 64,
        "too_long": "error",
        "completion_only_loss": True,
        "rows": {"seed": None, "start": 0, "stop": 1},
    }
    model = str(find_model("builtin:facts-llama", None, Path()))
    paths = {"model": model, "data": [str(file)], "split": "train", "data_name": "chat.jsonl"}
    assert run(Request("k", "prepare", "a", {"data": data}, paths), tmp_path).outcome == "done"
    ids, marks = Tokens.load(tmp_path / "tokens.safetensors").example(0)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.decode(ids[marks.bool()]).strip() == "paris</s>"
    assert list(ids[~marks.bool()]) == tokenizer("question : where does anna live ? answer :")["input_ids"]


def test_a_directory_of_too_much_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafile.engine.data.sources._MOST_ENTRIES", 3)
    for name in ("train", "test", "validation"):
        written(tmp_path / f"{name}.jsonl")
    assert sorted(data_files(tmp_path)) == ["test", "train", "validation"]
    (tmp_path / "notes").mkdir()
    with pytest.raises(NodeError, match="more than 3 files and directories"):
        data_files(tmp_path)


def test_a_list_of_class_names_beside_the_splits_holds_no_rows(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,category\na,b\n", encoding="utf-8")
    (tmp_path / "categories.json").write_text('[\n  "b",\n  "c"\n]\n', encoding="utf-8")
    (tmp_path / "more.json").write_text('[{"text": "a", "category": "b"}]', encoding="utf-8")
    ignored: list[str] = []
    assert sorted(data_files(tmp_path, left_out=ignored)) == ["more", "train"]
    assert ignored == ["categories.json"]
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "names.json").write_text('["b"]', encoding="utf-8")
    with pytest.raises(NodeError, match="a row should be an object"):
        list(read_rows(data_files(alone)["names"]))


ABOUT = {
    "results.json": {"accuracy": 0.9},
    "metadata.json": {"name": "x", "tags": ["a"]},
    "eval_results.json": {"l": 1},
}


def test_results_beside_the_data_do_not_stop_the_read(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl")
    for name, content in ABOUT.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    ignored: list[str] = []
    assert list(data_files(tmp_path, left_out=ignored)) == ["train"]
    assert sorted(ignored) == sorted(ABOUT)
    (tmp_path / "test.json").write_text("{}", encoding="utf-8")
    with pytest.raises(NodeError, match="must contain a list of rows"):
        list(read_rows(data_files(tmp_path)["test"]))


def splits_of(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        written(root / name)
    return sorted(data_files(root))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (
            ("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv"),
            ["train", "validation_matched", "validation_mismatched"],
        ),
        (("train_1.jsonl", "train_2.jsonl", "dev.csv"), ["train", "validation"]),
        (("test.jsonl", "test_hard.jsonl", "train.jsonl"), ["test", "test_hard", "train"]),
        (("msr_paraphrase_train.tsv", "msr_paraphrase_test.tsv"), ["test", "train"]),
        (("msr_paraphrase_train.tsv", "train.tsv", "dev_ids.tsv"), ["msr_paraphrase_train", "train", "validation"]),
        (("train/a.jsonl", "train/b.jsonl", "test/a.jsonl"), ["test", "train"]),
        (("de.jsonl", "en.jsonl"), ["de", "en"]),
        (("rows-00000-of-00002.jsonl", "rows-00001-of-00002.jsonl"), ["rows"]),
        (("eval_data/train.jsonl",), ["train"]),
    ],
)
def test_files_are_splits_by_their_names(tmp_path: Path, names: tuple[str, ...], splits: list[str]) -> None:
    assert splits_of(tmp_path / "data", *names) == splits


def test_lists_of_a_json_file_that_are_called_as_splits_are_are_these(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"test": ROWS[:1], "dev": ROWS[1:], "train": ROWS * 3}), encoding="utf-8")
    for path in (file, tmp_path):
        splits = data_files(path)
        assert {split: len(list(read_rows(parts))) for split, parts in splits.items()} == {
            "test": 1,
            "validation": 1,
            "train": 6,
        }
        again = {
            split: [data_file(json.loads(json.dumps(part.as_json()))) for part in parts]
            for split, parts in splits.items()
        }
        assert again == splits, "a request carries them as JSON"
    file.write_text(json.dumps({"version": 1, "data": ROWS}), encoding="utf-8")
    assert list(read_rows(data_files(file)["train"])) == ROWS
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}), encoding="utf-8")
    assert len(list(read_rows([file]))) == 1, "a row by itself, and not its messages"


def test_a_digest_knows_how_its_files_are_read_where_that_changes_their_rows(tmp_path: Path) -> None:
    from lorafile.lock.data import data_digest

    file = written(tmp_path / "rows.csv")
    plain = data_digest([file])
    assert data_digest([DataFile(file, Reading(field="x", tables=True))]) == plain, "these say nothing of a CSV file"
    ways = [Reading(delimiter=";"), Reading(encoding="latin-1"), Reading(where="x > 1"), Reading(column_names=("a",))]
    assert len({plain, *(data_digest([DataFile(file, way)]) for way in ways)}) == len(ways) + 1
    tabbed = written(tmp_path / "rows.tsv")
    assert data_digest([DataFile(tabbed, Reading(delimiter="\t"))]) == data_digest([tabbed])
    upper = (tmp_path / "rows.csv").rename(tmp_path / "ROWS.CSV")
    assert data_digest([upper]) == plain


def test_several_configurations_are_never_mixed(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for name in ("en", "de"):
        written(tmp_path / f"{name}.jsonl")
    card = "---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: de\n  data_files: de.jsonl\n"
    (tmp_path / "README.md").write_text(card + "---\n", encoding="utf-8")
    with pytest.raises(NodeError, match=r'data.name: .*several configurations \(en, de\).*data.name = "en"'):
        data_files(tmp_path)
    with pytest.raises(NodeError, match=r'no configuration "fr"; it has: en, de'):
        data_files(tmp_path, "fr")
    assert [part.path.name for part in data_files(tmp_path, "de")["train"]] == ["de.jsonl"]
    (tmp_path / "README.md").write_text(card + "  default: true\n---\n", encoding="utf-8")
    assert [part.path.name for part in data_files(tmp_path)["train"]] == ["de.jsonl"]
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- {config_name: a, data_file: en.jsonl}\n---\n", encoding="utf-8"
    )
    assert sorted(data_files(tmp_path)) == ["de", "en"], "no mixture where it does not name its files"
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n", encoding="utf-8")
    with pytest.raises(NodeError, match=r"datasets cannot parse .*README\.md"):
        data_files(tmp_path)


def test_a_loading_script_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(NodeError, match=r"a loading script \(rows.py\), and code from data sets is not run"):
        data_files(tmp_path)


def test_the_names_of_classes_come_with_the_data(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from lorafile.lock.data import lock_data
    from lorafile.specs.tables.data import DataTable

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = datasets.Dataset.from_list([{"text": "a", "label": 1}, {"text": "b", "label": 0}], features=features)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.save_to_disk(tmp_path / "saved")
    (tmp_path / "card").mkdir()
    rows.to_csv(tmp_path / "card" / "train.csv")
    info = "features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: [bad, good]}}}]"
    (tmp_path / "card" / "README.md").write_text(f"---\ndataset_info: {{{info}}}\n---\n", encoding="utf-8")
    for name in ("rows.parquet", "saved", "card"):
        assert lock_data(DataTable(path=name), tmp_path).class_names == {"0": "bad", "1": "good"}
