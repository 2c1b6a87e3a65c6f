"""A state that the previous schema made: read as it is, by every command; brought up to date once, also when killed."""

import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from faults.shim import FAILS, Shim
from faults.study import OPTIONS, Bench, Counts, Results, assert_told
from faults.test_write_sites import KILLS, cases, sites
from lorafile.state.tables import FIRST, SECOND, VIEWS, statements

SAMPLE = 6


def put_back(bench: Bench) -> None:
    """Turn a finished state into what the previous version would have made of the same work."""
    index = bench.state / "state.db"
    with closing(sqlite3.connect(index)) as connection:
        for statement in statements(SECOND, VIEWS):
            words = statement.split()
            if words[0] == "CREATE":
                connection.execute(f"DROP {words[1]} {words[2]}")
        connection.execute(next(one for one in statements(FIRST) if one.startswith("CREATE VIEW results")))
        connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'second'")
        connection.commit()
        connection.execute("PRAGMA user_version = 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
    for file in bench.state.glob("state.db?*"):
        file.unlink()


def version(bench: Bench) -> int:
    with closing(sqlite3.connect(f"file:{bench.state / 'state.db'}?immutable=1", uri=True)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def without_profile(results: Results) -> Results:
    return {name: found for name, found in results.items() if not name.endswith(":profile")}


@pytest.fixture
def old(done: Bench) -> Bench:
    put_back(done)
    return done


@pytest.fixture
def read_only(old: Bench) -> Iterator[Bench]:
    """The state on a file system that nobody can write."""
    mount = ["mount", "--bind", str(old.state), str(old.state)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        remount = ["mount", "-o", "remount,ro,bind", str(old.state)]
        if subprocess.run(remount, capture_output=True).returncode:
            pytest.skip("mounting read-only is not allowed here")
        yield old
    finally:
        subprocess.run(["umount", str(old.state)], check=True)


def readings(bench: Bench) -> list[tuple[str, ...]]:
    run = next(address.partition(":")[0] for address in sorted(bench.expected) if address.endswith(":train"))
    return [
        ("plan", "study.toml"),
        ("report", "study.toml", "--json"),
        ("show", run),
        ("export", run, "exported"),
        ("state", "list"),
        ("state", "show", run),
        ("state", "verify"),
        ("state", "gc"),
        ("state", "export", "--out", "tables"),
        ("state", "export", "--bundle", "all.tar"),
    ]


def test_every_reading_command_takes_it_as_it_is(read_only: Bench, counts: Counts) -> None:
    before = {file: file.read_bytes() for file in read_only.state.rglob("*") if file.is_file()}
    for words in readings(read_only):
        code, said = read_only.lora(*words)
        assert code == 0, f"{words}: {said}"
    assert read_only.load().plan().work == []
    code, said = read_only.lora("state", "rm", "*:score/test", "--yes")
    assert_told(code, said)
    assert str(read_only.state) in said
    assert {file: file.read_bytes() for file in read_only.state.rglob("*") if file.is_file()} == before
    assert version(read_only) == 1
    counts("faults: the previous schema", commands_on_read_only_media=len(readings(read_only)) + 1)


@pytest.mark.timeout(1200)
def test_a_migration_that_is_disturbed_anywhere_is_done_by_the_next_command(
    old: Bench, shim: Shim, full: bool, rng: random.Random, counts: Counts
) -> None:
    template = old.spec.with_name("template")
    shutil.copytree(old.state, template)
    log, words = shim.log, ("state", "rm", "*:profile", "--yes")
    code, said = old.disturbed(shim.environment(old.state, log=log), *words)
    assert code == 0, said
    assert version(old) == 2
    chosen = [one for acts in (KILLS, *((act,) for act in FAILS)) for one in cases(sites(log), acts)]
    chosen = chosen if full else rng.sample(chosen, SAMPLE)
    met, wrong = 0, dict[str, str]()
    for case in chosen:
        shutil.rmtree(old.state)
        shutil.copytree(template, old.state)
        code, said = old.disturbed(shim.fault(old.state, case.act, case.site, case.nth), *words)
        met += shim.fired
        try:
            if case.act not in KILLS and code != 0:
                assert_told(code, said)
            assert old.lora("state", "verify")[0] == 0
            assert len(old.finished()) >= len(old.expected) - 1
            code, said = old.lora(
                "apply", "study.toml", *OPTIONS, "--exclude", "*:profile", "--replace", "*:score/test"
            )
            assert code == 0, said
            assert (version(old), old.lora("state", "verify")[0]) == (2, 0)
            assert without_profile(old.results()) == without_profile(old.expected)
        except AssertionError as error:
            wrong[str(case)] = str(error)[-600:]
    counts("faults: the previous schema", migrations_disturbed=len(chosen), met=met, wrong=len(wrong))
    assert not wrong, "\n".join(f"{case}: {error}" for case, error in wrong.items())
