"""Data sets in the layouts in which they are published, read row by row as the library `datasets` reads them."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas
import pytest

datasets = pytest.importorskip("datasets")

from lorafile.engine.data.files import Reading  # noqa: E402
from lorafile.engine.data.readers import read_rows  # noqa: E402
from lorafile.engine.data.sources import data_files  # noqa: E402

Rows = list[dict[str, Any]]
PAIRS = [
    {"prompt": f"wo wohnt {name} ?", "completion": f"in {city}, ja"} for name, city in (("anna", "köln"), ("ü", "b"))
]
TURNS = [{"role": "user", "content": "wo ?"}, {"role": "assistant", "content": "hier"}]
LABELLED = [{"sentence": 'sie sagt "gut', "label": 1}, {"sentence": "nicht , gut", "label": 0}]
FEATURES = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
CLASSIFIED = [{"text": "a", "label": 1}, {"text": "b", "label": 0}, {"text": "c", "label": 1}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@dataclass
class Layout:
    """A data set on disk, and how `datasets` is asked for it."""

    path: Path
    splits: dict[str, Callable[[], Any]]
    name: str | None = None
    reading: Reading = field(default_factory=Reading)
    table: bool = False


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(rows: Rows, mark: str) -> str:
    return "\n".join(mark.join(map(str, row)) for row in ([*rows[0]], *(row.values() for row in rows))) + "\n"


def asked(builder: str, files: Any, **settings: Any) -> Callable[[], Any]:
    files = [str(file) for file in files] if isinstance(files, list) else str(files)
    return lambda: datasets.load_dataset(builder, data_files={"train": files}, split="train", **settings)


def loaded(root: Path, split: str, name: str | None = None) -> Callable[[], Any]:
    return lambda: datasets.load_dataset(str(root), name, split=split)


def from_disk(root: Path, split: str) -> Callable[[], Any]:
    return lambda: datasets.load_from_disk(str(root))[split]


def glue(root: Path, names: dict[str, str], rows: Rows, **reading: Any) -> Layout:
    for name in names.values():
        (root / name).write_text(table(rows, "\t"), encoding="utf-8-sig" if "msr" in name else "utf-8")
    splits = {split: asked("csv", root / name, sep="\t", quoting=3) for split, name in names.items()}
    return Layout(root, splits, reading=Reading(**reading), table=True)


def sst2(root: Path) -> Layout:
    return glue(root, {"train": "train.tsv", "validation": "dev.tsv"}, LABELLED)


def mrpc(root: Path) -> Layout:
    rows = [
        {"Quality": n % 2, "#1 ID": n, "#2 ID": n, "#1 String": '"Gut" , sagt', "#2 String": "er"} for n in range(3)
    ]
    return glue(root, {n: f"msr_paraphrase_{n}.txt" for n in ("train", "test")}, rows, tables=True)


def rte(root: Path) -> Layout:
    rows = [{"index": n, "sentence1": "a", "sentence2": '"b', "label": "not_entailment"} for n in range(3)]
    return glue(root, {"train": "train.tsv", "validation": "dev.tsv"}, rows)


def squad(root: Path, name: str = "train-v2.0.json") -> Layout:
    answers = [{"text": "köln", "answer_start": 14}]
    asks = [{"id": "1", "question": "wo ?", "answers": answers}, {"id": "2", "question": "wer ?", "answers": []}]
    article = {"title": "städte", "paragraphs": [{"context": "anna wohnt in köln .", "qas": asks}]}
    (root / name).write_text(json.dumps({"version": "v2.0", "data": [article, article]}), encoding="utf-8")

    def flat() -> Rows:
        """The questions of the articles that `datasets` reads, in the layout of the hub's rajpurkar/squad."""
        rows = []
        for row in asked("json", root / name, field="data")():
            for paragraph in row["paragraphs"]:
                for ask in paragraph["qas"]:
                    given = {key: [answer[key] for answer in ask["answers"]] for key in ("text", "answer_start")}
                    about = {"id": ask["id"], "title": row["title"], "context": paragraph["context"]}
                    rows.append(about | {"question": ask["question"], "answers": given})
        return rows

    return Layout(root / name, {"train": flat})


def alpaca(root: Path) -> Layout:
    rows = [{"instruction": "sag ja", "input": "", "output": "ja"}, {"instruction": "x", "input": "y", "output": "z"}]
    (root / "alpaca_data.json").write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return Layout(root / "alpaca_data.json", {"train": asked("json", root / "alpaca_data.json")})


def sharegpt(root: Path) -> Layout:
    turns = [{"from": "human", "value": "wo ?"}, {"from": "gpt", "value": "hier"}]
    (root / "sg.json").write_text(json.dumps([{"id": "a_0", "conversations": turns}] * 2), encoding="utf-8")
    return Layout(root / "sg.json", {"train": asked("json", root / "sg.json")})


def openai(root: Path) -> Layout:
    rows = [{"messages": [{"role": "system", "content": "kurz"}, *TURNS]}, {"messages": TURNS}]
    (root / "fine_tune.jsonl").write_text(lines(rows), encoding="utf-8")
    return Layout(root / "fine_tune.jsonl", {"train": asked("json", root / "fine_tune.jsonl")})


CARD = """---
license: mit
configs:
- config_name: en
  data_files:
  - split: train
    path: "en/tr*.jsonl"
  - split: test
    path: held/en.jsonl
- config_name: de
  data_files: "de/*.jsonl"
---
# Configurations
"""


def hub_snapshot(root: Path) -> Layout:
    """A snapshot as the hub's client keeps it: links to blobs."""
    snapshot = root / "datasets--org--rows" / "snapshots" / ("0" * 40)
    blobs = root / "datasets--org--rows" / "blobs"
    blobs.mkdir(parents=True)
    contents = {
        "README.md": CARD,
        "de/rows.jsonl": lines(PAIRS[:1]),
        "en/tr1.jsonl": lines(PAIRS),
        "en/tr2.jsonl": lines(PAIRS[1:]),
        "held/en.jsonl": lines(PAIRS[:1] * 3),
    }
    for number, (name, text) in enumerate(contents.items()):
        (blobs / str(number)).write_text(text, encoding="utf-8")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / str(number))
    splits = {
        name: lambda name=name: datasets.load_dataset(str(snapshot), "en", split=name) for name in ("train", "test")
    }
    return Layout(snapshot, splits, name="en")


def card_with_settings(root: Path) -> Layout:
    """A README.md that says how its files are read: no header, semicolons, classes by name."""
    names = "features: [{name: text, dtype: string}, {name: label, dtype: {class_label: {names: ['bad', 'good']}}}]"
    card = "configs: [{config_name: default, data_files: part*.csv, sep: ';', names: [text, label]}]"
    (root / "README.md").write_text(f"---\n{card}\ndataset_info: {{{names}}}\n---\n", encoding="utf-8")
    (root / "part1.csv").write_text("a, b;1\nc;0\n", encoding="utf-8")
    (root / "part2.csv").write_text("d;1\n", encoding="utf-8")
    return Layout(root, {"train": loaded(root, "train")})


def saved(root: Path) -> Layout:
    datasets.Dataset.from_list(CLASSIFIED, features=datasets.Features(FEATURES)).save_to_disk(root / "s", num_shards=2)
    return Layout(root / "s", {"train": lambda: datasets.load_from_disk(str(root / "s"))})


def saved_splits(root: Path) -> Layout:
    names = ("train", "validation", "test")
    parts = {name: datasets.Dataset.from_list(CLASSIFIED[number:]) for number, name in enumerate(names)}
    datasets.DatasetDict(parts).save_to_disk(root / "s")
    return Layout(root / "s", {name: from_disk(root / "s", name) for name in names})


def shuffled_and_saved(root: Path) -> Layout:
    datasets.Dataset.from_list(CLASSIFIED).shuffle(seed=1).select([2, 0]).save_to_disk(root / "s")
    return Layout(root / "s", {"train": lambda: datasets.load_from_disk(str(root / "s"))})


def arrow(root: Path) -> Layout:
    datasets.Dataset.from_list(CLASSIFIED).save_to_disk(root / "s")
    (root / "s" / "data-00000-of-00001.arrow").rename(root / "rows.arrow")
    return Layout(root / "rows.arrow", {"train": asked("arrow", root / "rows.arrow")})


def parquet_shards(root: Path) -> Layout:
    whole = datasets.Dataset.from_list(CLASSIFIED, features=datasets.Features(FEATURES))
    (root / "data").mkdir()
    for number in range(2):
        whole.shard(2, number).to_parquet(root / "data" / f"train-0000{number}-of-00002.parquet")
    whole.to_parquet(root / "data" / "test-00000-of-00001.parquet")
    return Layout(root, {name: loaded(root, name) for name in ("train", "test")})


def compressed(root: Path, suffix: str, pack: Callable[[bytes], bytes]) -> Layout:
    for number in range(2):
        text = lines(PAIRS[number:]).encode()
        (root / f"train-0000{number}-of-00002.jsonl{suffix}").write_bytes(pack(text))
    return Layout(root, {"train": asked("json", sorted(root.iterdir()))})


def zstandard(content: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").compress(content))


def written(root: Path, name: str, text: str, builder: str, *, encoding: str = "utf-8", **settings: Any) -> Layout:
    """One file; what is said of it is said to `datasets` in its words, and to us in ours."""
    (root / name).write_text(text, encoding=encoding)
    own = {"field": settings.get("field"), "delimiter": settings.get("sep"), "encoding": settings.get("encoding")}
    names = tuple(settings.get("column_names", ()))
    if encoding not in ("utf-8", "utf-8-sig"):
        settings["encoding"] = own["encoding"] = encoding
    reading = Reading(**own, column_names=names)
    return Layout(
        root / name, {"train": asked(builder, root / name, **settings)}, reading=reading, table=builder == "csv"
    )


def by_pandas(root: Path, text: str) -> Layout:
    """A table column by column, which `datasets` takes for a single row unless it is in a field."""
    (root / "rows.json").write_text(text, encoding="utf-8")
    return Layout(root / "rows.json", {"train": lambda: pandas.read_json(root / "rows.json").to_dict("records")})


SPAN = 'prompt,completion\n"zwei\nZeilen, eins","sie sagt ""ja"""\nkurz,\n'
COLUMNS: dict[str, list[Any]] = {name: [row[name] for row in PAIRS] for name in PAIRS[0]}
LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "sst2": sst2,
    "mrpc": mrpc,
    "rte": rte,
    "squad": squad,
    "xquad": lambda root: squad(root, "xquad.de.json"),
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "openai": openai,
    "hub snapshot with configs": hub_snapshot,
    "card with settings": card_with_settings,
    "save_to_disk": saved,
    "save_to_disk of splits": saved_splits,
    "save_to_disk of a selection": shuffled_and_saved,
    "arrow": arrow,
    "parquet shards": parquet_shards,
    "gzip shards": lambda root: compressed(root, ".gz", gzip.compress),
    "bz2 shards": lambda root: compressed(root, ".bz2", bz2.compress),
    "xz shards": lambda root: compressed(root, ".xz", lzma.compress),
    "zstd shards": lambda root: compressed(root, ".zst", zstandard),
    "ndjson": lambda root: written(root, "rows.ndjson", lines(PAIRS), "json"),
    "upper case": lambda root: written(root, "ROWS.JSONL", lines(PAIRS), "json"),
    "upper case csv": lambda root: written(root, "ROWS.CSV", table(PAIRS, ";"), "csv", sep=";"),
    "json lines": lambda root: written(root, "rows.json", lines(PAIRS), "json"),
    "a list of one line": lambda root: written(root, "rows.json", json.dumps(PAIRS), "json"),
    "columns": lambda root: by_pandas(root, json.dumps(COLUMNS)),
    "columns of pandas": lambda root: by_pandas(root, pandas.DataFrame(PAIRS).to_json(indent=1)),
    "columns of a field": lambda root: written(root, "r.json", json.dumps({"x": COLUMNS}), "json", field="x"),
    "field": lambda root: written(root, "r.json", json.dumps({"x": [1], "rows": PAIRS}), "json", field="rows"),
    "semicolons": lambda root: written(root, "rows.csv", table(PAIRS, ";"), "csv", sep=";"),
    "tabs in txt": lambda root: written(root, "rows.txt", table(PAIRS, "\t"), "csv", sep="\t"),
    "quoted csv": lambda root: written(root, "rows.csv", SPAN, "csv"),
    "windows csv": lambda root: written(root, "rows.csv", SPAN.replace("\n", "\r\n"), "csv"),
    "byte order mark": lambda root: written(root, "rows.csv", SPAN, "csv", encoding="utf-8-sig"),
    "short rows": lambda root: written(root, "rows.csv", "a,b,c\nu,v,w\nx\ny,z\n", "csv"),
    "no header": lambda root: written(root, "rows.csv", "a,b\nc,d\n", "csv", column_names=["prompt", "completion"]),
    "index of pandas": lambda root: written(root, "rows.csv", ",prompt\n0,a\n1,b\n", "csv"),
    "latin-1 csv": lambda root: written(root, "rows.csv", "a,b\nköln,ü\n", "csv", encoding="latin-1"),
    "utf-16 csv": lambda root: written(root, "rows.csv", "a,b\nköln,ü\n", "csv", encoding="utf-16"),
    "latin-1 jsonl": lambda root: written(root, "rows.jsonl", lines(PAIRS), "json", encoding="latin-1"),
}


def as_compared(rows: Any, table: bool) -> Rows:
    """Rows without what the readers mean to differ in: a table's values are texts here, and typed by pandas there."""
    rows = [dict(row) for row in rows]
    columns = dict.fromkeys(column for row in rows for column in row)
    filled = [{column: row.get(column) for column in columns} for row in rows]
    return [{c: "" if v is None else str(v) for c, v in row.items()} for row in filled] if table else filled


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_is_read_as_datasets_reads_it(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    made = LAYOUTS[layout](root)
    before = sorted(root.rglob("*"))
    splits = data_files(made.path, made.name, made.reading)
    assert sorted(splits) == sorted(made.splits)
    for split, load in made.splits.items():
        ours, theirs = list(read_rows(splits[split])), load()
        assert ours
        assert as_compared(ours, made.table) == as_compared(theirs, made.table)
    assert sorted(root.rglob("*")) == before, "nothing is written next to the data"


def test_a_large_file_is_read_a_row_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.write('{"prompt": "a", "completion": "b"}\n' * 3 + "not JSON\n")
    assert len(list(islice(read_rows([file]), 3))) == 3
