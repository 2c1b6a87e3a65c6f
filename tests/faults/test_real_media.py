"""A disk that is really full, and one that is really read-only."""

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.study import Bench, Counts, assert_opens, assert_sound, assert_told

DISKS, SAMPLE = 8, 1
LEAST, MOST = 60, 900  # kilobytes; a finished state and what is made next to it need about so much


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    if subprocess.run(["mount", *options, str(where)], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.timeout(1800)
def test_a_full_disk_is_told_and_more_room_is_enough(
    bench: Bench, full: bool, rng: random.Random, counts: Counts
) -> None:
    """Disks of sizes that are drawn: some end before anything is trained, some while the last result is stored."""
    told = 0
    for _ in range(DISKS if full else SAMPLE):
        with mounted(bench.state, "-t", "tmpfs", "-o", f"size={rng.randrange(LEAST, MOST)}k", "tmpfs"):
            code, said = bench.apply()
            if code != 0:
                told += 1
                assert_told(code, said)
                assert "full" in said or "No space left" in said or "could not be written" in said, said
            assert_opens(bench, {})
            subprocess.run(["mount", "-o", "remount,size=20m", str(bench.state)], check=True)
            assert_sound(bench, bench.finished())
    counts("faults: a small disk", disks=DISKS if full else SAMPLE, full=told)


def test_an_apply_on_a_read_only_disk_is_told(done: Bench, counts: Counts) -> None:
    done.lora("state", "rm", "*:score/*", "--yes")
    before = done.finished()
    with mounted(done.state, "--bind", str(done.state)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(done.state)], check=True)
        assert len(done.load().plan().work) == 12
        code, said = done.apply()
        assert (code, str(done.state) in said) == (4, True), said
        assert_told(code, said)
        assert_opens(done, before)
    assert_sound(done, before)
    counts("faults: a read-only disk", applies=1)


def test_a_disk_that_becomes_read_only_while_workers_train(bench: Bench, full: bool, counts: Counts) -> None:
    """What is open for writing stays so, as the kernel has it; whatever is opened, made or renamed is refused."""
    if not full:
        pytest.skip("a part of --full")
    bench.state.mkdir()
    process = bench.start()
    try:
        while process.poll() is None and not any(bench.state.glob("running/*/curve.jsonl")):
            time.sleep(0.02)
        with mounted(bench.state, "--bind", str(bench.state)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(bench.state)], check=True)
            said, _ = process.communicate(timeout=200)
            assert_told(process.returncode, said)
            assert "Read-only file system" in said, said
            before = bench.finished()
    finally:
        process.kill()
        process.communicate()
    assert_opens(bench, before)
    assert_sound(bench, before)
    counts("faults: a disk that becomes read-only", applies=1, finished_before=len(before))
