"""`lora state verify --repair`: damage is named and mended."""

import contextlib
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from damage_fixture import flip, index, lora, rows, stored, work
from state_fixture import finish, write_study

from lorafile.cli.main import main
from lorafile.errors import StateError
from lorafile.plan.plan import Action
from lorafile.study.study import Study

TRAIN = "rank/r=4/seed=1:train"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = write_study(tmp_path)
    finish(file)
    return file


def test_a_damaged_adapter_is_named_and_made_again(spec: Path) -> None:
    adapter = stored(spec, TRAIN, "adapter_model.safetensors")
    flip(adapter, 100)
    found = lora(spec, "verify", "--json")
    assert found.exit_code == 4
    (damage,) = json.loads(found.stdout)["damages"]
    assert damage["told"] == f"adapter_model.safetensors of {TRAIN} differs from what was stored"
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'"final_loss": 1.5', "is damaged: its seal"),
        (b'"lora_alpha": 8', "its key does not match its settings"),
        (b'"python": "3', "the row of the environment"),
        (b"2026-11-01T10:00:00", "is damaged: its seal"),
        (b"adapter_model.safetensors", "is damaged: its seal"),
    ],
)
def test_a_flipped_bit_in_a_row_is_named_and_mended_from_the_copy(spec: Path, text: bytes, told: str) -> None:
    before = rows(spec, "SELECT * FROM attempts")
    flip(index(spec), text)
    with pytest.raises(StateError, match="has changed since it was last closed"):
        Study.load(spec, spec.parent / ".lora").plan()
    found = lora(spec, "verify")
    assert (found.exit_code, told in found.output) == (4, True), found.output
    assert lora(spec, "verify", "--repair").exit_code == 0
    assert lora(spec, "verify").exit_code == 0
    assert rows(spec, "SELECT * FROM attempts") == before
    assert len(list(spec.parent.glob(".lora/state.db.damaged-*"))) == 1, "the old index is kept"


@pytest.mark.parametrize("at", [60, 61, 62, 63])
def test_a_damaged_version_of_the_schema_is_damage_and_no_newer_lorafile(spec: Path, at: int) -> None:
    before = rows(spec, "SELECT * FROM attempts")
    file = index(spec)
    content = bytearray(file.read_bytes())
    content[at] ^= 16  # of SQLite's user_version, bytes 60 to 63
    file.write_bytes(content)
    with pytest.raises(StateError, match="has changed since it was last closed"):
        Study.load(spec, spec.parent / ".lora").plan()
    assert lora(spec, "verify", "--repair").exit_code == 0
    assert rows(spec, "SELECT * FROM attempts") == before


@pytest.mark.parametrize("text", [b"removals\x0cCREATE", b"TABLE removals", b"CREATE VIEW", b"json_valid(s.figures)"])
def test_text_of_the_schema_that_is_no_text_is_damage(spec: Path, text: bytes) -> None:
    before = rows(spec, "SELECT * FROM attempts")
    file = index(spec)
    content = bytearray(file.read_bytes())
    content[content.index(text)] ^= 128  # SQLite quotes it in its message
    file.write_bytes(content)
    for command in (("plan", str(spec)), ("state", "list")):
        shown = CliRunner().invoke(main, [*command, "--state", str(spec.parent / ".lora")])
        assert (shown.exit_code, "state verify --repair" in shown.output) == (4, True), shown.output
    assert lora(spec, "verify", "--repair").exit_code == 0
    assert rows(spec, "SELECT * FROM attempts") == before


@pytest.mark.parametrize("value", [None, 7, b"\xff"])
@pytest.mark.parametrize(("table", "column"), [("nodes", "key"), ("outputs", "digest")])
def test_a_value_of_another_type_is_named_and_mended_from_the_copy(
    spec: Path, table: str, column: str, value: bytes | int | None
) -> None:
    """As a flipped bit in the header of a row makes it: no table would take such a value."""
    before = rows(spec, "SELECT * FROM attempts")
    with contextlib.closing(sqlite3.connect(index(spec))) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        loose = re.sub("NOT NULL|STRICT", "", sql)
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (loose, table))
        connection.commit()
    with contextlib.closing(sqlite3.connect(index(spec))) as connection:
        (one,) = connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (value, one))
        connection.commit()
    assert lora(spec, "verify").exit_code == 4
    mended = lora(spec, "verify", "--repair")
    assert mended.exit_code == 0, mended.output
    assert rows(spec, "SELECT * FROM attempts") == before


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
