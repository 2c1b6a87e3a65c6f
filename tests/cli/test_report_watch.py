"""`lora report --watch` next to a real apply."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_fixture import lora
from results_fixture import study

pytest.importorskip("torch")

from lorafile.report.html import page

RELOADS = '<meta http-equiv="refresh"'


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", "from lorafile.cli.main import main; main()", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_page_reloads_itself_only_while_it_is_watched() -> None:
    assert RELOADS in page(study(), [], live=True)
    assert RELOADS not in page(study(), [])


def test_the_page_follows_an_apply_and_ends_with_it(spec_file: Path) -> None:
    here = spec_file.parent
    watching = start("report", "--watch", cwd=here)
    try:
        assert watching.stdout is not None
        assert "Watching. Open" in watching.stdout.readline()
        assert "0 of 2 runs done, 2 missing; " in watching.stdout.readline()
        first = (here / "report" / "report.html").read_text(encoding="utf-8")
        assert RELOADS in first
        assert lora("apply", "--yes", "--quiet", cwd=here).returncode == 0
        told, _ = watching.communicate(timeout=240)
    finally:
        watching.kill()
    assert "2 of 2 runs done; nothing left to do" in told
    assert watching.returncode == 0
    last = (here / "report" / "report.html").read_text(encoding="utf-8")
    assert RELOADS not in last
    assert (here / "report" / "RESULTS.md").is_file()


def test_ctrl_c_leaves_a_whole_report_behind(spec_file: Path) -> None:
    here = spec_file.parent
    watching = start("report", "--watch", cwd=here)
    try:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.stdout.readline()
        time.sleep(0.2)
        watching.send_signal(signal.SIGINT)
        told, _ = watching.communicate(timeout=240)
    finally:
        watching.kill()
    assert "shows the current results" in told
    assert watching.returncode == 0
    assert RELOADS not in (here / "report" / "report.html").read_text(encoding="utf-8")
