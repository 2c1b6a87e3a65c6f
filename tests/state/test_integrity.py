"""`lora state verify` and `gc`: damage is named and mended, and nothing goes that somebody needs."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from state_fixture import STUDY, finish, write_study

from lorafile.cli.main import main
from lorafile.errors import StateError
from lorafile.plan.plan import Action, Change
from lorafile.state import State
from lorafile.study.study import Study

TRAIN = "rank/r=4/seed=1:train"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = write_study(tmp_path)
    finish(file)
    return file


def lora(spec: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["state", *words, "--state", str(spec.parent / ".lora")])


def work(spec: Path) -> dict[str, Change]:
    return {change.address: change for change in Study.load(spec, spec.parent / ".lora").plan().work}


def index(spec: Path) -> Path:
    return spec.parent / ".lora" / "state.db"


def rows(spec: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(index(spec))) as connection:
        return connection.execute(statement).fetchall()


def stored(spec: Path, address: str, name: str) -> Path:
    """Return the object of a file of a node."""
    statement = "SELECT a.address, o.name, o.digest FROM outputs o JOIN attempts a ON a.id = o.attempt"
    digest = {(row[0], row[1]): row[2] for row in rows(spec, statement)}[address, name]
    return State(spec.parent / ".lora").objects.path(str(digest))


def flip(file: Path, at: int | bytes) -> None:
    """Turn one bit of a file, at a place or inside a text."""
    content = bytearray(file.read_bytes())
    place = content.index(at) + len(at) - 1 if isinstance(at, bytes) else at
    content[place] ^= 1
    file.write_bytes(content)


def test_a_sound_state_is_told_and_left_alone(spec: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (spec.parent / ".lora").rglob("*")}
    told = lora(spec, "verify")
    assert (told.exit_code, "as it was stored" in told.output) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in (spec.parent / ".lora").rglob("*")} == before


def test_a_damaged_adapter_is_named_and_made_again(spec: Path) -> None:
    adapter = stored(spec, TRAIN, "adapter_model.safetensors")
    flip(adapter, 100)
    found = lora(spec, "verify", "--json")
    assert found.exit_code == 4
    (damage,) = json.loads(found.stdout)["damages"]
    assert damage["told"] == f"adapter_model.safetensors of {TRAIN} is not what was stored"
    assert work(spec) == {}
    assert lora(spec, "verify", "--repair").exit_code == 0
    assert not adapter.exists()
    assert lora(spec, "verify").exit_code == 0
    assert {name: change.action for name, change in work(spec).items()} == {TRAIN: Action.RETRY}


def test_a_damaged_curve_is_made_again_from_the_index(spec: Path) -> None:
    """Every run of the fixture has the same curve: one object."""
    curve = stored(spec, TRAIN, "curve.jsonl.gz")
    before = curve.read_bytes()
    flip(curve, 20)
    assert lora(spec, "verify", "--repair").exit_code == 0
    assert curve.read_bytes() == before
    assert work(spec) == {}


def test_a_missing_object_is_named(spec: Path) -> None:
    stored(spec, TRAIN, "adapter_model.safetensors").unlink()
    told = lora(spec, "verify")
    assert (told.exit_code, f"of {TRAIN} is missing" in told.output) == (4, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'"final_loss": 1.5', "is damaged: its seal"),
        (b'"lora_alpha": 8', "its key is not that of its settings"),
        (b'"python": "3', "the row of the environment"),
        (b"2026-11-01T10:00:00", "is damaged: its seal"),
        (b"adapter_model.safetensors", "is damaged: its seal"),
    ],
)
def test_a_flipped_bit_in_a_row_is_named_and_mended_from_the_copy(spec: Path, text: bytes, told: str) -> None:
    before = rows(spec, "SELECT * FROM attempts")
    flip(index(spec), text)
    with pytest.raises(StateError, match="not what it was when it was last closed"):
        Study.load(spec, spec.parent / ".lora").plan()
    found = lora(spec, "verify")
    assert (found.exit_code, told in found.output) == (4, True), found.output
    assert lora(spec, "verify", "--repair").exit_code == 0
    assert lora(spec, "verify").exit_code == 0
    assert rows(spec, "SELECT * FROM attempts") == before
    assert len(list(spec.parent.glob(".lora/state.db.damaged-*"))) == 1, "the old index is kept"


@pytest.mark.parametrize("left", [None, 0, 100, 5000, 60_000])
def test_an_index_that_is_cut_short_is_told_and_read_from_its_copy(spec: Path, left: int | None) -> None:
    index(spec).unlink() if left is None else os.truncate(index(spec), left)
    planned = CliRunner().invoke(main, ["plan", str(spec), "--state", str(spec.parent / ".lora")])
    assert (planned.exit_code, "verify --repair" in planned.output) == (4, True), "never served as an empty one"
    assert lora(spec, "verify").exit_code == 4
    mended = lora(spec, "verify", "--repair")
    assert mended.exit_code == 0, mended.output
    assert lora(spec, "verify").exit_code == 0
    assert work(spec) == {}


def test_without_a_copy_what_can_be_read_is_saved(spec: Path) -> None:
    (spec.parent / ".lora" / "state.db.backup").unlink()
    flip(index(spec), b'"final_loss": 1.5')
    mended = lora(spec, "verify", "--repair")
    assert (mended.exit_code, "lost" in mended.output) == (0, True)
    assert len(work(spec)) == 1


def test_gc_takes_what_no_spec_declares_and_only_when_told(spec: Path) -> None:
    spec.write_text(STUDY.replace("lora.r = [4, 8]", "lora.r = [4]"), encoding="utf-8")
    gone = [stored(spec, f"rank/r=8/seed={seed}:train", "adapter_model.safetensors") for seed in (1, 2)]
    kept = stored(spec, TRAIN, "adapter_model.safetensors")
    dry = lora(spec, "gc", str(spec))
    assert (dry.exit_code, "Would free" in dry.output, all(file.exists() for file in gone)) == (0, True, True)
    assert lora(spec, "gc", str(spec), "--yes").exit_code == 0
    assert (any(file.exists() for file in gone), kept.exists()) == (False, True)
    assert stored(spec, TRAIN, "curve.jsonl.gz").exists(), "what two runs share stays while one of them is declared"
    assert work(spec) == {}
    assert lora(spec, "verify").exit_code == 0, "what was collected is no damage"
    assert rows(spec, "SELECT count(*) FROM runs") == [(5,)], "what was done stays on record"
    spec.write_text(STUDY, encoding="utf-8")
    assert Study.load(spec, spec.parent / ".lora").plan().damaged == (), "nor is it when it is declared again"


def test_gc_takes_what_killed_processes_left_and_keeps_what_goes_on(spec: Path) -> None:
    state = spec.parent / ".lora"
    half = stored(spec, TRAIN, "curve.jsonl.gz").with_name(".new-half")
    half.write_bytes(b"half")
    (state / "score-abc").mkdir()
    keys = dict(rows(spec, "SELECT address, key FROM attempts"))
    done, going_on = state / "running" / str(keys[TRAIN]), state / "running" / str(keys["rank/r=8/seed=1:train"])
    done.mkdir(parents=True)
    lora(spec, "rm", "rank/r=8/seed=1:train", "--yes")
    going_on.mkdir()  # it was begun again
    (going_on / "curve.jsonl").write_text(json.dumps({"steps": 4}) + "\n", encoding="utf-8")
    assert lora(spec, "gc", str(spec), "--yes").exit_code == 0
    assert [path.exists() for path in (half, state / "score-abc", done, going_on)] == [False, False, False, True]
