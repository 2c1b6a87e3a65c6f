"""A program that trains is stopped from outside, at any moment: nothing of it runs on, and it goes on where it was."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from trainer_fixture import PROGRAM

from lorafile.files.run_directory import unfinished
from lorafile.state import State

LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
PATIENCE = 180.0  # seconds, on a loaded machine
STEPS = 25
SPEC = """
[train]
max_steps = 25
learning_rate = 1e-2
per_device_train_batch_size = 8
trainer = "mine"
[trainer.mine]
command = ["python", "trainer_program.py"]
options = {{ pause = 0.2, save_every = 1 }}
stop_seconds = 20
"""


@pytest.fixture
def program_spec(spec_file: Path) -> Path:
    text = spec_file.read_text(encoding="utf-8").replace("seeds = [1, 2]", "seeds = [1]")
    before, rest = text.split("[train]")
    spec_file.write_text(before + SPEC.format() + rest[rest.index("[evaluate]") :], encoding="utf-8")
    shutil.copy(PROGRAM, spec_file.parent)
    return spec_file


def apply(spec: Path, state: Path) -> "subprocess.Popen[str]":
    command = [*LORA, "apply", str(spec), "--yes", "--state", str(state)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def result(spec: Path, state: Path) -> tuple[bytes, list[int], dict[str, Any]]:
    """Apply to the end; return the adapter's bytes, the steps of the curve, and the figures."""
    running = apply(spec, state)
    out, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, out
    stored = State.read(state)
    (attempt,) = [each[-1] for each in stored.latest().values() if each[-1].kind == "train"]
    curve = [row["step"] for row in stored.objects.rows(attempt.outputs["curve.jsonl.gz"])]
    return stored.objects.read(attempt.outputs["adapter_model.safetensors"]), curve, attempt.figures


def step_of(state: Path) -> int:
    found = [unfinished(directory) for directory in (state / "running").glob("*")]
    return max((run.step for run in found if run is not None), default=0)


def processes_in(place: Path) -> list[int]:
    """Return the processes that work in a directory or below."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(place.resolve()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def workers() -> list[int]:
    """Return the processes that have started a program."""
    found = []
    for process in (entry for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        try:
            if b"sandbox.py" in (process / "cmdline").read_bytes():
                stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
                found.append(int(stat.rpartition(")")[2].split()[1]))
        except OSError:
            continue
    return found


def end(running: "subprocess.Popen[str]", how: str) -> None:
    if how == "SIGTERM":
        running.terminate()
    elif how == "SIGTERM, twice":
        running.terminate()
        time.sleep(0.3)
        running.terminate()
    elif how == "SIGKILL":
        running.kill()
    else:  # of the worker alone, which the apply replaces
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
    if how != "SIGKILL of the worker":
        running.communicate(timeout=PATIENCE)


HOW = ("SIGTERM", "SIGKILL", "SIGKILL of the worker", "SIGTERM, twice")


@pytest.mark.timeout(1800)
def test_a_program_that_is_stopped_at_any_moment_goes_on(
    program_spec: Path, full: bool, counts: Callable[..., None]
) -> None:
    chance = random.Random(int(os.environ.get("LORA_TEST_SEED", "0")))
    adapter, steps, _ = result(program_spec, program_spec.parent / "whole")
    assert steps == list(range(1, STEPS + 1))
    moments = resumed = 0
    for number in range(12 if full else 2):
        how, at = HOW[number % len(HOW)], chance.randrange(1, STEPS - 2)
        state = program_spec.parent / f"state{number}"
        running = apply(program_spec, state)
        deadline = time.monotonic() + PATIENCE
        while step_of(state) < at:
            assert running.poll() is None, running.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        end(running, how)
        while how != "SIGKILL of the worker" and processes_in(state):
            assert time.monotonic() < deadline + 30, (how, at, processes_in(state))
            time.sleep(0.05)
        if how == "SIGKILL of the worker":
            out, _ = running.communicate(timeout=PATIENCE)
            assert running.returncode in (0, 1), out
        again, curve, figures = result(program_spec, state)
        assert again == adapter, (how, at)
        assert curve == list(range(1, STEPS + 1)), (how, at)
        assert not processes_in(state)
        moments += 1
        resumed += bool(figures.get("resumed_from"))
    counts("programs that were stopped", moments=moments, resumed=resumed)
