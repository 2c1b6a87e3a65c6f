"""Every file format, and every way in which a row becomes text."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorafile.engine.data.columns import detect
from lorafile.engine.data.example import Chat, fill
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
        ("a.json", b"3", "should hold a list of rows"),
        ("a.csv", b"x\n\xff\n", "is not UTF-8 text"),
        ("a.parquet", b"PAR", "not a readable Parquet file"),
        ("a.jsonl", b'{"x":' + b"[" * 100_000, "not valid JSON"),
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


def test_a_data_digest_knows_the_order_of_files_and_not_their_names(tmp_path: Path) -> None:
    from lorafile.lock.data import data_digest

    a, b = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    a.write_text("{}", encoding="utf-8")
    b.write_text('{"x": 1}', encoding="utf-8")
    assert data_digest([a, b]) != data_digest([b, a])
    assert data_digest([a]) == data_digest([a.rename(tmp_path / "c.jsonl")])


def test_a_chat_row_needs_an_answer() -> None:
    with pytest.raises(NodeError, match="no turn of the assistant that answers"):
        render({"format": "chat"}, {"messages": [{"role": "user", "content": "hi"}]})


def test_a_template_never_reaches_into_objects() -> None:
    with pytest.raises(NodeError, match="no column"):
        fill("{text.__class__}", {"text": "x"})


def test_formats_are_told_by_their_columns() -> None:
    assert detect(["messages", "id"], "x") == "chat"
    assert detect(["instruction", "input", "output"], "x") == "alpaca"
    assert detect(["question", "answer"], "x") == "question"
    with pytest.raises(NodeError, match=r"\(a, b\) fit no known format"):
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
    assert sorted(data_files(tmp_path)) == ["more", "train"]
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "names.json").write_text('["b"]', encoding="utf-8")
    with pytest.raises(NodeError, match="a row should be an object"):
        list(read_rows(data_files(alone)["names"]))
