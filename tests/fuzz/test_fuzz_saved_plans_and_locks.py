"""Files that a study writes next to its spec and reads again: saved plans, locks, records of claims; and options."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import state_fixture
from state_fixture import STUDY, files_of, finish, write_study

from fuzz.hostile import NAMES, mutate, spoil
from fuzz.oracle import Oracle
from lorafile.files.jsonl import write_lines
from lorafile.graph.graph import GraphNode
from lorafile.study.study import Study

CLAIM = '[[claim]]\ntext = "8 is better"\none = "rank/r=8"\nother = "rank/r=4"\nis = "better"\n'
STATE = ("study.lock", "study.claims", ".lora", "report")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished study with its lock and its claims."""
    spec = write_study(tmp_path_factory.mktemp("whole"), STUDY + CLAIM)
    Study.load(spec).lock()

    def files(node: GraphNode, made: Path) -> dict[str, Path]:
        found = files_of(node, made)
        if node.kind == "score":
            rows = [{"row": row, "log_loss": 1.0 + row, "exact_match": row % 2, "tokens": 2} for row in range(6)]
            write_lines(found["outcomes.jsonl.gz"], rows)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_fixture, "files_of", files)
        finish(spec)
    shutil.rmtree(spec.parent / "made")
    yield spec.parent


@pytest.fixture
def work(lora: Oracle, whole: Path) -> Path:
    shutil.copytree(whole, lora.box.work, dirs_exist_ok=True)
    lora("plan", "study.toml", "--out", "plan.json", writes=("plan.json",))
    lora("report", "study.toml", writes=STATE)
    shutil.rmtree(lora.box.work / "report")
    return lora.box.work


COMMANDS = {
    "plan.json": [("apply", "plan.json"), ("diff", "plan.json", "plan.json")],
    "study.lock": [("plan", "study.toml"), ("diff", "study.toml", "study.toml"), ("graph", "study.toml")],
    "study.claims": [("report", "study.toml", "--check")],
}


def spoiled(content: bytes, draw: random.Random) -> bytes:
    """Return a JSON file with something changed: in its tree, or in its bytes."""
    if draw.random() < 0.3:
        return spoil(content, draw)
    tree = json.loads(content)
    for _ in range(draw.choice([1, 1, 2])):
        tree = mutate(tree, draw.choice)
        if not isinstance(tree, (dict, list)) or not tree:
            break
    return json.dumps(tree).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_file_with_something_changed(lora: Oracle, work: Path, name: str, draw: random.Random, full: bool) -> None:
    good = (work / name).read_bytes()
    for number in range(700 if full else 20):
        (work / name).write_bytes(spoiled(good, draw))
        for words in COMMANDS[name]:
            writes = (".lora",) if words[0] == "apply" else ()
            lora(*words, writes=writes, alone=number % 100 == 99)


DEEP = b"[" * 100_000
WHOLE_FILES = {
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"x"',
    "deep": DEEP,
    "deep inside": b'{"version": 1, "models": ' + DEEP,
    "10 MB": json.dumps({"version": 1, "models": {}, "data": {}, "x": "x" * 10_000_000}).encode(),
    "a version of a million digits": b'{"version": ' + b"9" * 1_000_000 + b"}",
    "a version that is a text": b'{"version": "\\u001b[2J"}',
    "keys twice": b'{"version": 1, "version": 9, "models": {}, "models": []}',
    "no text": b"\xff\xfe\x00",
    "a bundle": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_another_file_altogether(lora: Oracle, work: Path, name: str) -> None:
    for content in WHOLE_FILES.values():
        (work / name).write_bytes(content)
        for words in COMMANDS[name]:
            lora(*words, writes=(".lora",) if words[0] == "apply" else ())
    (work / name).unlink()
    (work / name).symlink_to("/dev/zero")
    for words in COMMANDS[name]:
        lora(*words, writes=(".lora",) if words[0] == "apply" else ())
    (work / name).unlink()
    (work / name).mkdir()
    for words in COMMANDS[name]:
        lora(*words, writes=(".lora",) if words[0] == "apply" else ())


OPTIONS = [
    *(("plan", "study.toml", "--price"), ("plan", "study.toml", "--gpu"), ("plan", "study.toml", "--target")),
    *(("plan", "study.toml", "--exclude"), ("plan", "study.toml", "--replace"), ("plan",), ("apply",), ("lock",)),
    *(("show", "--spec", "study.toml"), ("state", "show"), ("state", "rm", "--yes"), ("state", "list", "--where")),
    *(("state", "accept", "rank/r=4/seed=1:train"), ("state", "import"), ("diff", "study.toml"), ("graph",)),
    *(("diff", "--git"), ("init", "--model"), ("report", "study.toml", "--check", "--state"), ("evaluate",)),
    *(("import",), ("chat",), ("export", "rank/r=4"), ("data", "show", "study.toml", "--split")),
]


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_what_is_said_on_the_command_line(lora: Oracle, work: Path, words: tuple[str, ...], full: bool) -> None:
    values = [name for name in NAMES if "\0" not in name and len(name) < 100_000]
    values += ["1e999/h", "-1/h", "9" * 5000, "9" * 400 + "GB", "1e400GB", "0.0000001GB", "2.50/h/h", "½GB", "٣/h"]
    if words[0] == "export":  # where somebody wants it written, it is written
        values = [value for value in values if not value.startswith(("/", "~", "..", "a/.."))]
    for value in values if full else values[::12]:
        last = [value] if words[-1].startswith("--") else ["--", value]
        lora(*words, *last, writes=("",), starts=("git",))
