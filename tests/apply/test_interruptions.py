"""What ends an apply or a worker from outside: SIGTERM to one process or to all, a frozen worker, a frozen run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from apply_fixture import RANKS, Watch, children, load, study

from lorafile.apply.executors import process
from lorafile.engine.training import recorder
from lorafile.files.run_directory import CurveFile, unfinished
from lorafile.plan.plan import Action
from lorafile.state import State

LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
LONG = RANKS.replace("[2, 4]", "[2]") + "train.max_steps = [3000]\n"
PATIENCE = 120  # seconds, on a loaded machine


def start(spec_file: Path, *options: str) -> "subprocess.Popen[str]":
    """Begin an apply as the first process of a group."""
    command = [*LORA, "apply", str(spec_file), "--yes", "--state", str(spec_file.parent / ".lora"), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def when(holds: Callable[[], bool], running: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_of(spec_file: Path) -> int:
    """Return how far the run has come that is trained now."""
    found = [unfinished(directory) for directory in (spec_file.parent / ".lora" / "running").glob("*")]
    return max((run.step for run in found if run is not None), default=0)


def test_sigterm_to_the_apply_alone_leaves_a_checkpoint_and_the_next_apply_goes_on(spec_file: Path) -> None:
    """As `docker stop` does it: SIGTERM to the first process, and ten seconds later SIGKILL to whatever is left."""
    study(spec_file, LONG)
    running = start(spec_file, "--workers", "1", "--pack", "off")
    when(lambda: steps_of(spec_file) >= 5, running)
    running.terminate()
    out, _ = running.communicate(timeout=10)
    assert running.returncode == 130
    assert "Interrupted. Finished results are kept; the next apply resumes from there." in out
    plan = load(spec_file).plan()
    (resumed,) = [change for change in plan.work if change.action is Action.RETRY]
    assert "interrupted: Stopped on request; resumes from step " in resumed.reason
    attempts = State.read(spec_file.parent / ".lora").latest([resumed.key])[resumed.key]
    assert attempts[-1].seconds > 0
    applied = load(spec_file).apply(workers=1, pack="off")
    done = next(attempt for attempt in applied.attempts if attempt.key == resumed.key)
    assert done.outcome == "done"
    assert done.figures["resumed_from"][0] >= 5
    assert load(spec_file).plan().work == []


def test_sigterm_to_the_whole_group_is_a_sentence_whenever_it_comes(spec_file: Path, full: bool) -> None:
    """Among the moments are those at which workers start: no process of ours dies of it and leaves us alone."""
    study(spec_file, LONG)
    chance = random.Random(int(os.environ.get("LORA_TEST_SEED", "0")))
    lock, log = (spec_file.parent / ".lora" / name for name in ("lock", "staging/worker.log"))
    for number in range(20 if full else 2):
        for file in (lock, log):  # of the apply before
            file.unlink(missing_ok=True)
        running = start(spec_file)
        when((log if number % 2 else lock).exists, running)  # a worker is about to start; or work is about to begin
        time.sleep(chance.random() * chance.choice([0.1, 1, 3]))
        os.killpg(running.pid, signal.SIGTERM)
        out, _ = running.communicate(timeout=PATIENCE)
        assert running.returncode == 130, out
        assert "Interrupted" in out, out
        assert "Traceback" not in out and "internal" not in out.lower(), out
    found = subprocess.run(
        [*LORA, "state", "verify", "--state", str(spec_file.parent / ".lora")], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_frozen_worker_is_noticed_and_its_node_is_done_by_another(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SILENT_SECONDS", 12.0)  # two heartbeats and some
    slow = study(spec_file, RANKS.replace("[2, 4]", "[2]") + "train.max_steps = [300]\n")
    frozen: list[int] = []

    def freeze() -> None:
        worker = max(pid for child in children(os.getpid()) for pid in children(child))
        os.kill(worker, signal.SIGSTOP)
        frozen.append(worker)

    began = time.monotonic()
    applied = slow.apply(workers=1, pack="off", watchers=[Watch("train", freeze)])
    lost = [attempt for attempt in applied.attempts if attempt.outcome == "interrupted"]
    assert [attempt.message for attempt in lost] == ["The worker process did not respond for 12 s and was stopped."]
    assert 10 < lost[0].seconds < time.monotonic() - began
    assert not Path(f"/proc/{frozen[0]}").exists()
    assert sum(attempt.kind == "train" and attempt.outcome == "done" for attempt in applied.attempts) == 2
    assert load(spec_file).plan().work == []


def test_a_worker_that_computes_without_pause_is_not_taken_for_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that is read in one call keeps Python's lock, and the heartbeat back with it."""
    monkeypatch.setattr(process, "SILENT_SECONDS", 3.0)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        workers = [_worker(busy.pid), _worker(idle.pid)]
        time.sleep(1)  # it has computed, whatever it does from now on
        for worker in workers:
            worker.note_alive()
        lost = [False, False]
        for _ in range(45):
            time.sleep(0.1)
            lost = [before or worker.is_lost() for before, worker in zip(lost, workers, strict=True)]
        assert lost == [False, True]
    finally:
        busy.kill(), idle.kill()
        busy.wait(), idle.wait()


def _worker(pid: int) -> process.Worker:
    import multiprocessing

    ours, _ = multiprocessing.Pipe()
    worker: Any = process.Worker(type("Process", (), {"pid": pid})(), ours)
    worker.other = _
    return worker


HOLD = """
import os, sys, time
from pathlib import Path
from lorafile.files.run_directory import CurveFile
file = CurveFile(Path(sys.argv[1]))
assert file.locked()
file.begin({"steps": 9}, [])
print("held", flush=True)
time.sleep(600)
"""


def test_a_run_that_a_frozen_process_holds_is_given_up_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorafile.engine.request import Request
    from lorafile.errors import NodeError

    monkeypatch.setattr(recorder, "WAIT_SECONDS", 0.5)
    holder = subprocess.Popen([sys.executable, "-P", "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        request = Request("key", "train", "address", {}, {"checkpoint": str(tmp_path)})
        expected = rf"For 0.5 s process {holder.pid}, which is stopped, has held this run.*Stop it \(kill -9\)"
        with pytest.raises(NodeError, match=expected), recorder.record_run(request, lambda progress: None):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with recorder.record_run(request, lambda progress: None) as kept:
        assert kept.file is not None, "the system frees the lock of a process that has ended"


@pytest.mark.parametrize("number", ["ENOLCK", "ENOTSUP", "ENOSYS"])
def test_a_file_system_without_locks_has_no_run_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    import errno

    def refuse(*_: Any) -> None:
        raise OSError(getattr(errno, number), "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    with CurveFile(tmp_path) as file:
        assert file.locked()


def test_an_interrupted_attempt_says_how_long_it_took(spec_file: Path) -> None:
    slow = study(spec_file, RANKS.replace("[2, 4]", "[2]") + "train.max_steps = [300]\n")

    def kill() -> None:
        time.sleep(1)
        os.kill(max(pid for child in children(os.getpid()) for pid in children(child)), signal.SIGKILL)

    applied = slow.apply(workers=1, pack="off", watchers=[Watch("train", kill)])
    (lost,) = [attempt for attempt in applied.attempts if attempt.outcome == "interrupted"]
    assert lost.message == "The worker process was killed by SIGKILL."
    assert lost.seconds > 1
    recorded = json.loads(
        subprocess.run(
            [*LORA, "show", lost.key, "--json", "--state", str(spec_file.parent / ".lora")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert recorded["attempts"][0]["seconds"] == lost.seconds
