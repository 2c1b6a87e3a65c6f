"""A bit flipped in, or bytes cut from, the index, its log, its checksum and its copy: named, never served, mended."""

import os
import random
import shutil
from pathlib import Path

import pytest

from faults.shim import Shim, Site
from faults.study import OPTIONS, Bench, Counts, assert_sound
from faults.test_damage import cut, flip
from lorafile.state.integrity.verify import verify

PAGE = 4096
CUTS, WITHOUT_COPY, SAMPLE = 12, 6, 6


def flip_in(file: Path, start: int, length: int, rng: random.Random) -> None:
    """Flip one bit somewhere in a stretch of a file."""
    at = start + rng.randrange(min(length, file.stat().st_size - start))
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1 << rng.randrange(8)]))


def assert_refused(bench: Bench) -> None:
    """Check that no command reads a damaged index, and that all say so."""
    before = {file: file.read_bytes() for file in bench.state.glob("state.db*")}
    runs = sorted({address.partition(":")[0] for address in bench.expected if address.endswith(":train")})
    commands = (
        ("plan", "study.toml"),
        ("apply", "study.toml", *OPTIONS),
        ("report", "study.toml", "--json"),
        ("show", runs[0]),
        ("state", "list"),
    )
    for words in commands:
        code, said = bench.lora(*words)
        assert (code, "verify --repair" in said) == (4, True), f"{words[0]}: {said}"
    code, said = bench.lora("state", "verify")
    assert (code, "state.db" in said) == (4, True), said
    assert all(file.read_bytes() == content for file, content in before.items() if not file.name.endswith("-shm"))


def assert_mended(bench: Bench, all_of_it: bool = True) -> None:
    """Check that a repair saves everything, or that an apply makes what it could not."""
    code, said = bench.lora("state", "verify", "--repair")
    assert code == 0, said
    assert verify(bench.state).sound
    if all_of_it:
        assert bench.results() == bench.expected
        assert bench.load().plan().work == []
    assert_sound(bench, bench.finished())


def assert_named_and_renewed(bench: Bench, name: str) -> None:
    """Check that verify says what is wrong with a file next to the index, and that a repair makes it anew."""
    code, said = bench.lora("state", "verify")
    assert (code, name in said) == (0, True), said
    assert bench.lora("state", "verify", "--repair")[0] == 0
    code, said = bench.lora("state", "verify")
    assert (code, name in said) == (0, False), said
    assert (bench.state / "state.db.backup").read_bytes() == (bench.state / "state.db").read_bytes()


@pytest.mark.timeout(1200)
def test_a_damaged_index_is_refused_and_mended(
    undisturbed: Bench, done: Bench, full: bool, rng: random.Random, counts: Counts
) -> None:
    index = done.state / "state.db"
    length = index.stat().st_size
    flips = [("flip", at) for at in range(0, length, PAGE)]
    cuts = [("cut", rng.randrange(length)) for _ in range(CUTS)]
    bare = [("bare", rng.randrange(0, length, PAGE)) for _ in range(WITHOUT_COPY)]
    chosen = [*flips, *cuts, *bare] if full else [*rng.sample(flips, 3), *cuts[:2], bare[0]]
    for what, at in chosen:
        shutil.rmtree(done.state)
        shutil.copytree(undisturbed.state, done.state)
        if what == "cut":
            os.truncate(index, at)
        else:
            flip_in(index, at, PAGE, rng)
        if what == "bare":
            (done.state / "state.db.backup").unlink()
        assert_refused(done)
        assert_mended(done, all_of_it=what != "bare")
    numbers = {what: sum(one == what for one, _ in chosen) for what in ("flip", "cut", "bare")}
    counts("faults: the index", pages_flipped=numbers["flip"], cuts=numbers["cut"], without_a_copy=numbers["bare"])


def test_a_damaged_checksum_or_copy_harms_nobody(
    undisturbed: Bench, done: Bench, rng: random.Random, counts: Counts
) -> None:
    """A wrong checksum makes a sound index suspect until it is repaired; a damaged copy is not believed."""
    for how in (flip, cut):
        shutil.rmtree(done.state)
        shutil.copytree(undisturbed.state, done.state)
        how(done.state / "state.db.sum", rng)
        os.utime(done.state / "state.db")  # this process has proven it before
        assert_refused(done)
        assert_mended(done)
        shutil.rmtree(done.state)
        shutil.copytree(undisturbed.state, done.state)
        how(done.state / "state.db.backup", rng)
        assert done.load().plan().work == []
        assert_named_and_renewed(done, "state.db.backup")
        how(done.state / "state.db.backup", rng)
        flip_in(done.state / "state.db", PAGE, PAGE, rng)
        assert_mended(done, all_of_it=False)
    for name in ("state.db.backup", "state.db.sum"):
        shutil.rmtree(done.state)
        shutil.copytree(undisturbed.state, done.state)
        (done.state / name).unlink()
        assert done.load().plan().work == []
        assert_named_and_renewed(done, name)
    counts("faults: the index", damaged_checksums=2, damaged_copies=2, missing_ones=2)


@pytest.mark.timeout(1200)
def test_a_damaged_log_loses_nothing_in_silence(
    done: Bench, shim: Shim, full: bool, rng: random.Random, counts: Counts
) -> None:
    """What a killed apply left in the log is there, or it is said that it is not."""
    done.lora("state", "rm", "*:score/*", "--yes")
    site = Site("truncate", "state.db-wal")  # the last of all, when the log is folded into the index
    done.disturbed(shim.fault(done.state, "before", site, 1), "apply", "study.toml", *OPTIONS)
    assert shim.fired
    template = done.spec.with_name("template")
    shutil.copytree(done.state, template)
    length = (template / "state.db-wal").stat().st_size
    whole = done.finished()
    places = range(0, length, 24 + PAGE)
    refused = noted = unharmed = 0
    for place in places if full else sorted(rng.sample(places, SAMPLE)):
        shutil.rmtree(done.state)
        shutil.copytree(template, done.state)
        flip_in(done.state / "state.db-wal", place, 24 + PAGE, rng)
        found = verify(done.state)
        if found.sound:
            lost = len(whole) - len(done.finished())
            assert lost == 0 or (lost == 1 and any("incomplete" in note for note in found.notes))
            noted, unharmed = noted + lost, unharmed + (not lost)
            assert_sound(done, done.finished())
        else:
            refused += 1
            assert_refused(done)
            assert_mended(done, all_of_it=False)
    counts("faults: the log", frames_flipped=refused + noted + unharmed, refused=refused, last_entry_told=noted)
