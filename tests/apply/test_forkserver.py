"""The fork server: begun while a plan is read, with memory settings of its own, and not where nothing is to be done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

LOOK = """
import json, os, sys, time
from multiprocessing import forkserver
from pathlib import Path
from lorafile import Study

study = Study.load(sys.argv[1], sys.argv[2])
plan = study.plan()
plan = plan if sys.argv[3] == "work" else plan.with_work(set())
study.warm_up(plan)
pid = forkserver._forkserver._forkserver_pid
about = Path(f"/proc/{pid}")
while pid and not (b"forkserver" in (about / "cmdline").read_bytes() and (about / "environ").read_bytes()):
    time.sleep(0.01)  # it is a copy of this process still, with what that began with
lines = (about / "environ").read_text().split(chr(0)) if pid else []
print(json.dumps([pid, dict(line.split("=", 1) for line in lines if line.startswith("MALLOC")), dict(os.environ)]))
"""


def begun(spec_file: Path, what: str, **environment: str) -> tuple[int | None, dict[str, str], dict[str, str]]:
    """Return the process id of the server, its memory settings, and the environment of who began it."""
    command = [sys.executable, "-P", "-c", LOOK, str(spec_file), str(spec_file.parent / ".lora"), what]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    pid, its, ours = json.loads(done.stdout)
    return pid, its, ours


def test_it_begins_with_a_plan_that_has_work_and_keeps_freed_memory(spec_file: Path) -> None:
    pid, its, ours = begun(spec_file, "work")
    assert pid
    assert its == {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    assert not [name for name in ours if name.startswith("MALLOC")]
    assert not (spec_file.parent / ".lora").exists(), "nobody has approved anything yet"


def test_what_the_user_has_set_stays(spec_file: Path) -> None:
    _, its, ours = begun(spec_file, "work", MALLOC_TRIM_THRESHOLD_="4096")
    assert its["MALLOC_TRIM_THRESHOLD_"] == ours["MALLOC_TRIM_THRESHOLD_"] == "4096"


def test_nothing_begins_where_nothing_is_to_be_done(spec_file: Path) -> None:
    assert begun(spec_file, "nothing")[0] is None
