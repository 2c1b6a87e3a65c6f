"""What comes from other machines: bundles, and directories that say they are states."""

import gzip
import json
import os
import random
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_fixture import read, with_index, written
from state_fixture import finish, write_study

from fuzz.hostile import NAMES, VALUES, mutate, spoil
from fuzz.oracle import Oracle

HERE = (".lora",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = write_study(tmp_path_factory.mktemp("whole"))
    finish(spec)
    shutil.rmtree(spec.parent / "made")
    return spec.parent


@pytest.fixture
def bundle(lora: Oracle, whole: Path, tmp_path: Path) -> Path:
    """A bundle of everything, outside of the box."""
    shutil.copytree(whole, lora.box.work, dirs_exist_ok=True)
    lora("state", "export", "--bundle", "b.tar", writes=("b.tar",))
    shutil.copy(lora.box.work / "b.tar", tmp_path / "b.tar")
    lora.box.fresh()
    return tmp_path / "b.tar"


def take(lora: Oracle, file: str, alone: bool = False) -> None:
    """Import something into an empty state, and look at what came of it."""
    lora("state", "import", file, writes=HERE, codes=(0, 1, 4), alone=alone)
    if (lora.box.work / ".lora" / "state.db").exists():
        lora("state", "verify", writes=HERE, codes=(0,))
        lora("state", "list")
        shutil.rmtree(lora.box.work / ".lora")


def test_bundles_with_other_bytes(lora: Oracle, bundle: Path, draw: random.Random, full: bool) -> None:
    good = bundle.read_bytes()
    for number in range(600 if full else 20):
        (lora.box.work / "b.tar").write_bytes(spoil(good, draw))
        take(lora, "b.tar", alone=number % 100 == 99)


def test_bundles_whose_rows_lie(lora: Oracle, bundle: Path, draw: random.Random, full: bool) -> None:
    """By somebody who knows how digests and seals are made."""

    def change(rows: list[Any]) -> None:
        changed = mutate(rows, draw.choice, [*VALUES, "[" * 50_000, 10**30])
        rows[:] = changed if isinstance(changed, list) else rows

    for _ in range(800 if full else 20):
        try:
            with_index(bundle, lora.box.work / "b.tar", change)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            continue  # what cannot even be sealed
        take(lora, "b.tar")


def member(name: str, **about: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in about.items():
        setattr(info, key, value)
    return info, b""


@pytest.mark.parametrize("where", ["first", "last"])
def test_bundles_with_a_member_too_many(lora: Oracle, bundle: Path, where: str) -> None:
    good = read(bundle)
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE]
    extra = [member("objects/" + "a" * 64, type=kind, linkname="../../../canary") for kind in kinds]
    extra += [member(name[:99]) for name in NAMES if "\0" not in name]
    for one in extra:
        members = [one, *good] if where == "first" else [*good, one]
        try:
            written(members, lora.box.work / "b.tar")
        except (ValueError, UnicodeError):
            continue
        take(lora, "b.tar")


def test_what_is_no_bundle(lora: Oracle, bundle: Path) -> None:
    work = lora.box.work
    good = bundle.read_bytes()
    about, index = read(bundle)[:2]
    huge = bytearray(good)
    huge[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
    files = {
        "empty": b"",
        "zeros": bytes(10_000_000),
        "packed": gzip.compress(good),
        "a bomb": gzip.compress(bytes(200_000_000)),
        "a member of an exabyte": bytes(huge),
        "twice": good + good,
        "deep": b"[" * 1_000_000,
    }
    for name, content in files.items():
        (work / name).write_bytes(content)
        take(lora, name)
    for head in ({}, [], 7, {"format": "lorafile-bundle", "format_version": {}, "index": 3, "objects": "x"}):
        written([(about[0], json.dumps(head).encode()), index], work / "h.tar")
        take(lora, "h.tar")
    with (work / "sparse.tar").open("wb") as stream:
        stream.truncate(1 << 40)
    take(lora, "sparse.tar")
    (work / "loop").symlink_to("loop")
    os.mkfifo(work / "pipe")
    (work / "folder").mkdir()
    for name in ("loop", "pipe", "folder", "/dev/zero", "/dev/null", "/", "nowhere", ".."):
        take(lora, name)


LOOKS = [
    *(
        ("state", "list"),
        ("state", "verify"),
        ("plan", "study.toml"),
        ("report", "study.toml"),
        ("state", "gc", "study.toml"),
    ),
    *(("state", "show", "rank/r=4/seed=1:train"), ("show", "rank/r=4"), ("graph", "study.toml")),
]

SHARED = ".lora/state.db-shm"  # where SQLite's readers of a log note how far they are


def look(lora: Oracle) -> None:
    """Look at a state in every way, and take it in elsewhere."""
    for words in LOOKS:
        lora(*words, writes=("report", SHARED))
    lora("state", "import", ".lora", "--state", "other", writes=("other", SHARED))
    lora("state", "export", "--table", "runs", raw=True, writes=(SHARED,))


def sql(statement: str) -> Callable[[Path], None]:
    def change(state: Path) -> None:
        with sqlite3.connect(state / "state.db") as index:
            index.executescript(statement)
        index.close()
        for file in state.glob("state.db?*"):
            file.unlink()

    return change


def linked(inner: str, to: str) -> Callable[[Path], None]:
    def change(state: Path) -> None:
        place = next(iter(sorted(state.glob(inner))), state / inner)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(to)

    return change


CANARY = "../../../canary"
FOREIGN: dict[str, Callable[[Path], None]] = {
    "an object that is a link": linked("objects/*/*", "/etc/passwd"),
    "an object that is a link to itself": linked("objects/*/*", "."),
    "objects that are elsewhere": linked("objects", "../../neighbour"),
    "running that is elsewhere": linked("running", "../../neighbour"),
    "a run that is elsewhere": linked("running/" + "a" * 64, "../../../neighbour"),
    "an index that is a device": linked("state.db", "/dev/zero"),
    "an index that is a pipe": lambda state: ((state / "state.db").unlink(), os.mkfifo(state / "state.db")),  # type: ignore[func-returns-value]
    "an index that is a folder": lambda state: ((state / "state.db").unlink(), (state / "state.db").mkdir()),  # type: ignore[func-returns-value]
    "an index that is nothing": lambda state: (state / "state.db").write_bytes(b""),  # type: ignore[return-value]
    "an index that is a text": lambda state: (state / "state.db").write_bytes(b"x" * 100_000),  # type: ignore[return-value]
    "a log that lies": lambda state: (state / "state.db-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(5000)),  # type: ignore[return-value]
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON nodes BEGIN DELETE FROM attempts; END"),
    "tables that are views": sql("DROP TABLE nodes; CREATE VIEW nodes AS SELECT 1 AS key"),
    "no tables": sql("DROP TABLE attempts"),
    "another version": sql("PRAGMA user_version = 999999"),
    "a version below nothing": sql("PRAGMA user_version = -3"),
    "figures that are none": sql("UPDATE attempts SET figures = '[' || figures"),
    "figures that are a list": sql("UPDATE attempts SET figures = '[1]'"),
    "figures that are no numbers": sql('UPDATE attempts SET figures = \'{"log_loss": "x", "examples": []}\''),
    "figures without end": sql('UPDATE attempts SET figures = \'{"log_loss": 1e999, "steps": NaN}\''),
    "names that are paths": sql("UPDATE outputs SET name = '../../../evil/' || name"),
    "digests that are paths": sql("UPDATE outputs SET digest = '../../../../canary'"),
    "keys that are paths": sql("UPDATE attempts SET key = '../../canary'"),
    "names that a terminal obeys": sql(
        "UPDATE attempts SET address = char(27) || '[2J' || address, message = char(8238)"
    ),
    "seconds that are text": sql("UPDATE attempts SET seconds = 'x'"),
    "seconds that are blobs": sql("UPDATE attempts SET seconds = x'00ff', started = x'ff'"),
    "dates that are none": sql("UPDATE attempts SET started = 'yesterday'"),
    "outcomes that are none": sql("PRAGMA ignore_check_constraints = ON; UPDATE attempts SET outcome = 'perfect'"),
    "environments that are none": sql("UPDATE environments SET settings = '7'"),
    "settings that are none": sql("UPDATE nodes SET settings = 'null', inputs = '[]'"),
    "reads that are none": sql("UPDATE attempts SET reads = '{\"x\": 7}'"),
}


@pytest.mark.parametrize("what", list(FOREIGN))
def test_directories_that_say_they_are_states(lora: Oracle, whole: Path, what: str) -> None:
    shutil.copytree(whole, lora.box.work, dirs_exist_ok=True)
    FOREIGN[what](lora.box.work / ".lora")
    look(lora)
    if what == "objects that are elsewhere":
        return  # whoever puts them on another disk wants them written there
    lora("state", "gc", "study.toml", "--yes", writes=HERE)
    lora("state", "verify", "--repair", writes=HERE)


def test_indexes_with_other_bytes(lora: Oracle, whole: Path, draw: random.Random, full: bool) -> None:
    good = (whole / ".lora" / "state.db").read_bytes()
    for _ in range(150 if full else 5):
        shutil.rmtree(lora.box.fresh())
        shutil.copytree(whole, lora.box.work)
        (lora.box.work / ".lora" / "state.db").write_bytes(spoil(good, draw))
        for file in (lora.box.work / ".lora").glob("state.db?*"):
            file.unlink()
        look(lora)
