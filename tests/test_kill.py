"""Kill -9 during an apply: the state opens, nothing finished is done again, and the study completes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorafile import Study
from lorafile.state import State

pytest.importorskip("torch")


def finished(directory: Path) -> dict[str, int]:
    """Return key -> number of finished attempts."""
    state = State.read(directory)
    return {key: sum(a.finished for a in attempts) for key, attempts in state.latest().items()}


def test_ten_kills_at_different_moments(spec_file: Path) -> None:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write('[[sweep]]\nname = "rank"\nlora.r = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\ntrain.max_steps = [25]\n')
    directory = spec_file.parent / ".lora"
    command = [
        sys.executable,
        "-c",
        "from lorafile.cli import main; main()",
        "apply",
        "--yes",
        "--state",
        str(directory),
    ]
    rng = random.Random(int(os.environ.get("LORA_TEST_SEED", "0")))
    killed = 0
    for _ in range(10):
        before = finished(directory)
        process = subprocess.Popen(
            command, cwd=spec_file.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline, wanted = time.monotonic() + 120, sum(before.values()) + rng.randint(0, 6)
        while process.poll() is None and time.monotonic() < deadline and sum(finished(directory).values()) < wanted:
            time.sleep(0.05)
        time.sleep(rng.random() * 0.3)
        if process.poll() is None:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL) if rng.random() < 0.5 else process.kill()
        process.wait()
        after = finished(directory)
        assert all(after[key] == times for key, times in before.items() if times), "something finished was done again"
    assert killed >= 8
    study = Study.load(spec_file, directory)
    study.apply(lock_timeout=60)
    assert study.plan().work == []
    assert set(finished(directory).values()) <= {0, 1}
    state = State.read(directory)
    for attempts in state.latest().values():
        for digest in attempts[-1].outputs.values():
            state.objects.read(digest)
