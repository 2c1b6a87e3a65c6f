"""What a hostile bundle brings does not arrive."""

import gzip
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_fixture import Members, lora, read, with_index, written

from lorafile.state import State


def attempt_of(rows: list[Any]) -> dict[str, Any]:
    """Return the row of the training."""
    return next(values for table, values in rows if table == "attempts" and values["kind"] == "train")


def node_of(rows: list[Any]) -> list[Any]:
    return next(values for table, values in rows if table == "nodes" and values[1] == "train")


def first_output(name: str) -> Callable[[list[Any]], None]:
    def change(rows: list[Any]) -> None:
        attempt_of(rows)["outputs"][0][0] = name

    return change


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE_ROWS: dict[str, Callable[[list[Any]], None]] = {
    "a path as a name": first_output("../../../evil"),
    "an absolute path as a name": first_output("/tmp/evil"),
    "a pickle as a name": first_output("pytorch_model.bin"),
    "a name of two lines": first_output("a\nb"),
    "settings of another key": lambda rows: node_of(rows).__setitem__(3, '{"seed": 7}'),
    "a key that is a path": lambda rows: node_of(rows).__setitem__(0, "../../evil"),
    "an attempt at nothing": lambda rows: attempt_of(rows).update(key="0" * 64),
    "an outcome that is none": lambda rows: attempt_of(rows).update(outcome="perfect"),
    "terminal codes": lambda rows: attempt_of(rows).update(message="\x1b[2J all is well"),
    "a number as an address": lambda rows: attempt_of(rows).update(address=7),
    "figures that are a list": lambda rows: attempt_of(rows).update(figures="[1]"),
    "figures of great depth": lambda rows: attempt_of(rows).update(figures=DEEP),
    "a size that is none": lambda rows: attempt_of(rows)["outputs"][0].__setitem__(2, -1),
    "a row of nothing": lambda rows: rows.append(["nodes", []]),
    "a row that is a number": lambda rows: rows.append(["attempts", 7]),
    "a very long text": lambda rows: attempt_of(rows).update(message="x" * 10_000_000),
    "endless seconds": lambda rows: attempt_of(rows).update(seconds=1e999),
}


def refused(file: Path, state: Path) -> str:
    """Import something, prove that nothing of it was taken, and return why."""
    around = {path for path in file.parent.rglob("*") if state not in (path, *path.parents)}
    done = lora(state, "import", str(file))
    assert done.exit_code in (1, 4), done.output
    assert "bug in lorafile" not in done.output, done.output
    assert State.read(state).latest() == {}
    assert not [path for path in (state / "objects").rglob("*") if path.is_file()]
    assert {path for path in file.parent.rglob("*") if state not in (path, *path.parents)} == around
    return done.output


@pytest.mark.parametrize("what", list(HOSTILE_ROWS))
def test_hostile_rows_are_refused_whole(bundle: Path, tmp_path: Path, what: str) -> None:
    refused(with_index(bundle, tmp_path / "evil.tar", HOSTILE_ROWS[what]), tmp_path / "s")


def changed_member(**about: Any) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        for name, value in about.items():
            setattr(members[-1][0], name, value)
        return members

    return change


HOSTILE_FILES: dict[str, Callable[[Members], Members]] = {
    "a path outside": changed_member(name="objects/../../evil"),
    "an absolute path": changed_member(name="/tmp/evil"),
    "a symbolic link": changed_member(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": changed_member(type=tarfile.LNKTYPE, linkname="index.jsonl"),
    "a device": changed_member(type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a directory": changed_member(type=tarfile.DIRTYPE),
    "other bytes": lambda members: [*members[:-1], (members[-1][0], members[-1][1][::-1])],
    "an object that nothing names": lambda members: [*members[:-1], (tarfile.TarInfo("objects/" + "0" * 64), b"")],
    "an object twice": lambda members: [*members[:-1], members[-2]],
    "an object too few": lambda members: members[:-1],
    "no index": lambda members: [members[0], *members[2:]],
    "nothing": lambda members: [],
}


@pytest.mark.parametrize("what", list(HOSTILE_FILES))
def test_a_hostile_archive_is_refused_whole(bundle: Path, tmp_path: Path, what: str) -> None:
    refused(written(HOSTILE_FILES[what](read(bundle)), tmp_path / "evil.tar"), tmp_path / "s")


def test_extensions_of_the_format_are_refused(bundle: Path, tmp_path: Path) -> None:
    """They could name one file and mean another."""
    members = read(bundle)
    members[-1][0].pax_headers = {"path": "../evil"}
    refused(written(members, tmp_path / "pax.tar", tarfile.PAX_FORMAT), tmp_path / "s")
    (tmp_path / "packed.tar").write_bytes(gzip.compress(bundle.read_bytes()))
    refused(tmp_path / "packed.tar", tmp_path / "s")


def test_a_bundle_that_was_cut_or_changed_anywhere_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole, draw = bundle.read_bytes(), random.Random(0)
    end = len(whole.rstrip(b"\0"))
    told = set()
    for number in range(30):
        content, at = bytearray(whole), draw.randrange(end)
        content[at] ^= 1 << draw.randrange(8)
        changed = bytes(content) if number % 3 else whole[:at]
        (tmp_path / "evil.tar").write_bytes(changed)
        done = lora(tmp_path / str(number), "import", str(tmp_path / "evil.tar"))
        if done.exit_code == 0:  # a bit that means nothing: who wrote it, the space between two files
            assert lora(tmp_path / str(number), "verify").exit_code == 0
            assert State.read(tmp_path / str(number)).latest() == State.read(read_back(bundle, tmp_path)).latest()
        else:
            assert refused(tmp_path / "evil.tar", tmp_path / str(number))
        told.add(done.exit_code)
    assert 1 in told


def read_back(bundle: Path, directory: Path) -> Path:
    if not (directory / "sound").exists():
        lora(directory / "sound", "import", str(bundle))
    return directory / "sound"
