"""A bit flipped in, or bytes cut from, each kind of object and of the index: named, never served, and mended."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.conftest import taken
from faults.study import Bench, Counts, assert_sound
from lorafile.state import State

Damage = Callable[[Path, random.Random], None]


def flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def cut(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(1, len(content))])


def empty(file: Path, rng: random.Random) -> None:
    file.write_bytes(b"")


def delete(file: Path, rng: random.Random) -> None:
    file.unlink()


DAMAGES: dict[str, Damage] = {"bit flipped": flip, "cut": cut, "emptied": empty, "deleted": delete}
SAMPLE, FLIPS = 3, 3


def objects(bench: Bench) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (kind of a node, name of its file) -> (address, digest) of one of them."""
    statement = "SELECT a.kind, o.name, a.address, o.digest FROM outputs o JOIN attempts a ON a.id = o.attempt"
    return {(kind, name): (address, digest) for kind, name, address, digest in State.read(bench.state).rows(statement)}


def readings(bench: Bench) -> dict[str, tuple[str, ...]]:
    """Return the commands that read objects."""
    spec, out = str(bench.spec), bench.spec.with_name("out")
    runs = sorted({address.partition(":")[0] for address in bench.expected if address.endswith(":train")})
    return {
        "report": ("report", spec, "--json"),
        "show": ("show", runs[0], "--predictions", "2"),
        "export": ("export", runs[0], str(out), "--spec", spec),
        "bundle": ("state", "export", "--bundle", str(bench.spec.with_name("all.tar"))),
    }


def served(bench: Bench) -> dict[str, tuple[int, str]]:
    """Return what each reading command ends with and says, files that it writes among it."""
    found = {}
    for name, words in readings(bench).items():
        shutil.rmtree(bench.spec.with_name("out"), ignore_errors=True)
        bench.spec.with_name("all.tar").unlink(missing_ok=True)
        code, said = bench.lora(*words)
        files = sorted([*bench.spec.parent.glob("out/*"), *bench.spec.parent.glob("all.tar")])
        written = "".join(f"{file.name} {file.read_bytes().hex()}" for file in files) if code == 0 else ""
        found[name] = (code, said + written)
    return found


def check_damage(bench: Bench, undisturbed: dict[str, tuple[int, str]], address: str, digest: str, how: str) -> int:
    """Check that damage to an object is named by verify, told or left out by what reads it, and mended."""
    code, said = bench.lora("state", "verify", "--json")
    assert code == 4
    assert any(digest in one["where"] and address in one["told"] for one in json.loads(said)["damages"])
    if how != "bit flipped":  # which has its length
        assert bench.lora("plan", str(bench.spec))[0] == 0
        assert digest in {one.digest for one in bench.load().plan().damaged}
    told = 0
    for name, (code, said) in served(bench).items():
        if code != 0:
            told += 1
            assert code in (1, 4), said
            assert digest[:12] in said or "no longer in the state" in said, said
        elif how != "deleted":
            assert said == undisturbed[name][1], f"{name} is not what it was"
    assert bench.lora("state", "verify", "--repair")[0] == 0
    assert_sound(bench, bench.finished())
    return told


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_object_is_named_and_mended(
    every_kind: Bench, tmp_path: Path, how: str, full: bool, rng: random.Random, counts: Counts
) -> None:
    kinds = objects(every_kind)
    assert {kind for kind, _ in kinds} >= {"prepare", "train", "predict", "score", "inspect", "truncate"}
    bench = taken(every_kind, tmp_path)
    undisturbed = served(bench)
    assert {code for code, _ in undisturbed.values()} == {0}
    chosen = sorted(kinds) * (FLIPS if how == "bit flipped" else 1) if full else rng.sample(sorted(kinds), SAMPLE)
    told, wrong = 0, dict[str, str]()
    for kind in chosen:
        shutil.rmtree(bench.state)
        shutil.copytree(every_kind.state, bench.state)
        address, digest = kinds[kind]
        DAMAGES[how](State(bench.state).objects.path(digest), rng)
        try:
            told += check_damage(bench, undisturbed, address, digest, how)
        except AssertionError as error:
            wrong[" ".join(kind)] = str(error)[:800]
    counts(
        f"faults: an object {how}", kinds=len(set(chosen)), damaged=len(chosen), told_by_readers=told, wrong=len(wrong)
    )
    assert not wrong, "\n".join(f"{kind}: {error}" for kind, error in wrong.items())
