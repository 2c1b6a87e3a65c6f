"""Data files: every format with other bytes, values that are no text, and files that are none."""

import csv
import gzip
import io
import json
import os
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fuzz.hostile import NAMES, NUMBERS, VALUES, spoil
from fuzz.oracle import Oracle

pytest.importorskip("transformers")
TOKENIZERS = True
SPEC = """study.name = "s"
model.path = "builtin:facts-llama"
data.path = "{path}"
data.max_length = 64
{more}
"""
PAIRS = [{"prompt": f"where does anna number {n} live ?", "completion": f" paris {n}"} for n in range(40)]
CHATS = [
    {"messages": [{"role": "user", "content": f"who {n} ?"}, {"role": "assistant", "content": "anna"}]}
    for n in range(40)
]
CLASSES = [{"text": f"anna {n}", "label": n % 2} for n in range(40)]
PASSAGES = [
    {"context": "anna lives in paris", "question": f"where {n} ?", "answers": {"text": ["paris"], "answer_start": [14]}}
    for n in range(40)
]
GUANACO = [{"text": f"### Human: who {n} ?### Assistant: anna"} for n in range(40)]
LAYOUTS = {"pairs": PAIRS, "chats": CHATS, "classes": CLASSES, "passages": PASSAGES, "guanaco": GUANACO}
GUANACO_MORE = 'data.format = "guanaco"'


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "replace")


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


FORMATS = {
    "rows.jsonl": lines(PAIRS),
    "rows.json": json.dumps(PAIRS).encode(),
    "squad.json": json.dumps(
        {"data": [{"paragraphs": [{"context": "anna", "qas": [{"id": "1", "question": "who ?", "answers": []}] * 40}]}]}
    ).encode(),
    "rows.csv": table(PAIRS),
    "rows.tsv": table(PAIRS, "\t"),
    "rows.parquet": parquet(PAIRS),
    "rows.txt": b"\n\n".join(f"anna number {n} lives in paris".encode() for n in range(40)),
}


def read(lora: Oracle, path: str, more: str = "", alone: bool = False) -> None:
    """Plan on some data, and show them."""
    (lora.box.work / "s.toml").write_text(SPEC.format(path=path, more=more), encoding="utf-8")
    large = path in WHOLE and len(WHOLE[path]) > 5_000_000
    if lora("plan", "s.toml", alone=alone).code == 0 and not large:  # tokenizers take a minute for 10 MB in one word
        lora("data", "show", "s.toml", alone=alone)
        lora("data", "show", "s.toml", "--json", "--rows", "100")


@pytest.mark.parametrize("name", list(FORMATS))
def test_files_with_other_bytes(lora: Oracle, name: str, draw: random.Random, full: bool) -> None:
    for number in range(250 if full else 6):
        (lora.box.work / name).write_bytes(spoil(FORMATS[name], draw))
        read(lora, name, alone=number % 100 == 99)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_rows_with_other_values(lora: Oracle, layout: str, draw: random.Random, full: bool) -> None:
    for _ in range(250 if full else 6):
        rows = json.loads(json.dumps(LAYOUTS[layout]))
        for _ in range(draw.choice([1, 3, 40])):
            row = draw.choice(rows)
            if isinstance(row, dict) and row:
                key = draw.choice(list(row))
                inner = row[key]
                if isinstance(inner, (list, dict)) and inner and draw.random() < 0.7:
                    place = draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
                    inner[place] = deepcopy(draw.choice(VALUES))
                else:
                    row[key] = deepcopy(draw.choice(VALUES))
                if draw.random() < 0.2:
                    row[draw.choice(NAMES)] = row.pop(key)
            elif draw.random() < 0.3:
                rows[draw.randrange(len(rows))] = deepcopy(draw.choice(VALUES))
        (lora.box.work / "rows.jsonl").write_bytes(lines(rows))
        read(lora, "rows.jsonl", GUANACO_MORE if layout == "guanaco" else "")


LONG = "x" * 10_000_000
WHOLE = {
    "nothing.jsonl": b"",
    "nothing.json": b"",
    "nothing.csv": b"",
    "nothing.tsv": b"",
    "nothing.txt": b"",
    "nothing.parquet": b"",
    "blank.txt": b"\n \n\t\n" * 1000,
    "blank.csv": b",,,\n" * 1000,
    "header.csv": b"prompt,completion\n",
    "deep.json": b"[" * 1_000_000,
    "deep.jsonl": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b', "completion": "x"}\n',
    "deep but good.jsonl": (b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b', "completion": "x"}\n') * 40,
    "long.jsonl": lines([{"prompt": LONG, "completion": "x"}, *PAIRS]),
    "long.csv": table([{"prompt": LONG, "completion": "x"}, *PAIRS]),
    "long.txt": LONG.encode(),
    "words.txt": b"a " * 5_000_000,
    "quotes.txt": b'"' * 100_000,
    "quotes.tsv": b"prompt\tcompletion\n" + b'"' * 100_000 + b"\tx\n",
    "blanks.txt": b"x" + b"\n \t" * 300_000 + b"y",
    "many columns.csv": (",".join(f"c{n}" for n in range(50_000)) + "\n" + "," * 49_999 + "\n").encode(),
    "columns twice.csv": b"prompt,prompt,completion\n" + b"a,b,c\n" * 40,
    "keys twice.jsonl": b'{"prompt": "a", "prompt": "b", "completion": "c"}\n' * 40,
    "ragged.csv": b"prompt,completion\n" + b"a\na,b,c,d\n" * 40,
    "numbers.jsonl": lines([{"prompt": number, "completion": number} for number in NUMBERS if number != 10**400] * 4),
    "digits.jsonl": b'{"prompt": ' + b"9" * 5000 + b', "completion": "x"}\n',
    "nan.jsonl": b'{"prompt": NaN, "completion": -Infinity}\n' * 40,
    "surrogates.jsonl": b'{"prompt": "\\ud800", "completion": "\\udfff x"}\n' * 40,
    "zeros.jsonl": bytes(1_000_000),
    "zeros.csv": bytes(1_000_000),
    "names.jsonl": lines([dict.fromkeys(NAMES, "x") | {"prompt": "a", "completion": "b"}] * 40),
    "packed.jsonl": gzip.compress(lines(PAIRS)),
    "a bomb.jsonl": gzip.compress(bytes(100_000_000)),
    "a list.json": b"[1, 2, 3]",
    "a table.json": b'{"data": 7}',
    "articles.json": b'{"data": [{"paragraphs": 7}]}',
    "questions.json": b'{"data": [{"paragraphs": [{"qas": [{"answers": [{}]}]}]}]}',
    "a text.parquet": b"PAR1" + b"x" * 1000 + b"PAR1",
    "numbers.parquet": parquet([{"prompt": n, "completion": float("nan")} for n in range(40)]),
    "bytes.parquet": parquet([{"prompt": b"\xff\xfe", "completion": b"\x00"}] * 40),
    "lists.parquet": parquet([{"prompt": [1, 2], "completion": {"a": None}}] * 40),
}


@pytest.mark.parametrize("name", list(WHOLE))
def test_another_file_altogether(lora: Oracle, name: str) -> None:
    (lora.box.work / name).write_bytes(WHOLE[name])
    read(lora, name)


def test_paths_that_are_no_files(lora: Oracle) -> None:
    work = lora.box.work
    (work / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(work / "pipe.jsonl")
    (work / "zero.jsonl").symlink_to("/dev/zero")
    for name, inside in (("empty", ""), ("turns", "turns/again"), ("pipes", "pipes/train.jsonl")):
        (work / name).mkdir()
        if inside == "turns/again":
            (work / inside).symlink_to("..")
        elif inside:
            os.mkfifo(work / inside)
    (work / "devices").mkdir()
    (work / "devices" / "train.jsonl").symlink_to("/dev/zero")
    outside = ["/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/", "..", ".", "~", "/etc/passwd"]
    for path in ["loop.jsonl", "pipe.jsonl", "zero.jsonl", "empty", "turns", "pipes", "devices", *outside]:
        read(lora, path)
    for name in NAMES:
        if name.isprintable() and '"' not in name and "\\" not in name:
            read(lora, name)


TEMPLATES = [
    *("{question.__class__.__mro__}", "{question!r}", "{question:>1000000000}", "{0}", "{}", "{question[0]}", "{{x}}"),
    *("{% for i in range(10**9) %}x{% endfor %}", "{question" * 1000, "{question}" * 1000),
]


@pytest.mark.parametrize("part", ["prompt", "completion"])
def test_templates_of_a_spec(lora: Oracle, part: str, tmp_path: Path) -> None:
    (lora.box.work / "rows.jsonl").write_bytes(lines([{"question": f"who {n} ?", "answer": "anna"} for n in range(40)]))
    for template in TEMPLATES:
        parts = {"prompt": "{question}", "completion": "{answer}", part: template}
        written = ", ".join(f"{name} = {json.dumps(text)}" for name, text in parts.items())
        read(lora, "rows.jsonl", f"data.template = {{ {written} }}")
