"""SIGKILL at random instants of an apply; the next one goes on from whatever is there."""

import os
import random
import shutil
import signal
import subprocess

import pytest

from faults.study import Bench, Counts, assert_opens, assert_sound, killed, lost_and_twice

PARTS, KILLS, SAMPLE = 8, 25, 3  # parts of a full run, kills in each, and kills of the sample


def children(parent: int) -> list[int]:
    return [int(line) for line in subprocess.run(["pgrep", "-P", str(parent)], capture_output=True).stdout.split()]


def kill(process: "subprocess.Popen[str]", rng: random.Random) -> str:
    """Kill the applying process, all of its processes, or one worker; return which."""
    workers = [pid for child in children(process.pid) for pid in children(child)]
    whom = rng.choice(["the apply", "all", "all", "a worker" if workers else "the apply"])
    if whom == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(rng.choice(workers) if whom == "a worker" else process.pid, signal.SIGKILL)
    return whom


@pytest.mark.sampled(4)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_an_apply_that_is_killed_goes_on(
    bench: Bench, part: int, full: bool, rng: random.Random, counts: Counts
) -> None:
    """Applies one after another, each killed at an instant that is drawn evenly over the time of a whole one."""
    if part and not full:
        pytest.skip("a part of --full")
    instants = hits = completed = lost = twice = 0
    while instants < (KILLS if full else SAMPLE):
        before = bench.finished()
        process = bench.start(*rng.choice([(), ("--workers", "2", "--exclude", "*:profile")]))
        try:
            process.communicate(timeout=rng.uniform(0, bench.seconds))
            assert process.returncode == 0
        except subprocess.TimeoutExpired:
            instants += 1
            if kill(process, rng) == "a worker":
                hits += 1
                process.communicate(timeout=200)
                assert process.returncode in (0, 1)
            else:
                process.communicate(timeout=60)
                hits += killed(process)
        found = lost_and_twice(bench, before)
        lost, twice = lost + found[0], twice + found[1]
        assert_opens(bench, before)
        if bench.state.exists() and len(bench.finished()) == len(bench.expected):
            assert_sound(bench, bench.finished())
            completed += 1
            shutil.rmtree(bench.state)
    assert_sound(bench, bench.finished())
    completed += 1
    counts(
        "faults: SIGKILL",
        instants=instants,
        hit_a_running_apply=hits,
        studies_completed=completed,
        lost=lost,
        twice=twice,
    )
    assert hits > instants // 2
